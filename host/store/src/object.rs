//! Objects: packs and blobs. Immutable, named by digest, mapped when read.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millrace_types::action_record::ObjectRef;
use millrace_types::{BlobDigest, BlobRef, PackDigest};

use crate::{Result, Store, StoreError};

/// What an object is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectName {
    /// A pack.
    Pack(PackDigest),
    /// A blob.
    Blob(BlobDigest),
}

/// So long after its last byte a file that was never named is nobody's.
const UNFINISHED: Duration = Duration::from_secs(24 * 60 * 60);

/// Folders for files that are being written.
const WRITING: usize = 16;

/// Which of them this thread writes in. Where all write in one they wait for each other: the system
/// locks a folder while it looks for room for a file, for long where many were lately removed.
fn place_of_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % WRITING;
    }
    PLACE.with(|place| *place)
}

/// A file that is being written and has no name yet. Dropped, it is gone.
pub struct NewFile {
    file: tempfile::NamedTempFile,
}

impl NewFile {
    /// The file, for writing.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Moves it to its name, making the folder when there is none.
    fn persist(mut self, path: &Path) -> Result<()> {
        for attempt in 0..2 {
            match self.file.persist(path) {
                Ok(_) => return Ok(()),
                Err(error) if attempt == 0 && error.error.kind() == io::ErrorKind::NotFound => {
                    let folder = path.parent().unwrap_or(path);
                    std::fs::create_dir_all(folder).map_err(|e| StoreError::new("create", folder, e))?;
                    self.file = error.file;
                }
                // Something of another kind took the place: damage, which is written over.
                Err(error) if attempt == 0 && error.error.kind() == io::ErrorKind::IsADirectory => {
                    std::fs::remove_dir_all(path).map_err(|e| StoreError::new("clear", path, e))?;
                    self.file = error.file;
                }
                Err(error) => return Err(StoreError::new("write", path, error.error)),
            }
        }
        Ok(())
    }
}

impl Store {
    /// A file to write to, on the same file system as its later name.
    ///
    /// # Errors
    /// When the system cannot make one.
    pub fn new_file(&self) -> Result<NewFile> {
        let mut folder = self.root.join("tmp");
        folder.push(format!("{:x}", place_of_thread()));
        let make = || tempfile::Builder::new().prefix("").tempfile_in(&folder);
        let file = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody else may be faster.
                let _ = std::fs::create_dir(&folder);
                make()
            }
            made => made,
        };
        Ok(NewFile { file: file.map_err(|e| StoreError::new("write in", &folder, e))? })
    }

    /// Removes the files that processes which were killed have left half written: those that
    /// nobody has written to for a day.
    pub fn clear_unfinished(&self) {
        let is_old = |meta: &std::fs::Metadata| {
            meta.is_file() && meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UNFINISHED))
        };
        let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
        let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let folders = entries(self.root.join("tmp")).filter(is_folder).map(|entry| entry.path());
        for entry in std::iter::once(self.root.join("tmp")).chain(folders).flat_map(entries) {
            if entry.metadata().is_ok_and(|meta| is_old(&meta)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Writes a whole file at once: it has its old content or the new one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut new = self.new_file()?;
        new.file().write_all(bytes).map_err(|e| StoreError::new("write", path, e))?;
        new.persist(path)
    }

    fn pack_path(&self, digest: &PackDigest) -> PathBuf {
        let mut path = self.sharded("packs", &digest.hex());
        path.set_extension("arrow");
        path
    }

    fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.sharded("blobs", &digest.hex())
    }

    fn object_path(&self, object: &ObjectRef) -> (PathBuf, u64) {
        match object {
            ObjectRef::Pack(digest, size) => (self.pack_path(digest), *size),
            ObjectRef::Blob(digest, size) => (self.blob_path(digest), *size),
        }
    }

    /// Whether an object is there and whole, by its size. A link is none: what it points
    /// to has a name of its own.
    pub fn has(&self, object: &ObjectRef) -> bool {
        let (path, size) = self.object_path(object);
        is_file_of(&path, size)
    }

    /// Names a file that was written as a pack.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_pack(&self, digest: &PackDigest, file: NewFile) -> Result<()> {
        file.persist(&self.pack_path(digest))
    }

    /// The bytes of a pack, mapped.
    ///
    /// # Errors
    /// When it is not there or was cut.
    pub fn pack(&self, digest: &PackDigest, size: u64) -> Result<Bytes> {
        map(&self.pack_path(digest), size)
    }

    /// All files of a folder of the store.
    pub(crate) fn files_in(&self, folder: &str) -> impl Iterator<Item = PathBuf> + use<> {
        let folders = std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.map(|file| file.path())
    }

    /// All packs and blobs: the file and the digest that is its name.
    pub fn objects(&self) -> impl Iterator<Item = (PathBuf, ObjectName)> + '_ {
        let hex = |path: &Path| blake3::Hash::from_hex(path.file_stem()?.to_str()?).ok();
        let packs = self.files_in("packs").filter_map(move |path| {
            let name = ObjectName::Pack(hex(&path)?.into());
            Some((path, name))
        });
        let blobs = self.files_in("blobs").filter_map(move |path| {
            let name = ObjectName::Blob(hex(&path)?.into());
            Some((path, name))
        });
        packs.chain(blobs)
    }

    /// The bytes of an object's file; none if it is no regular file.
    pub fn object_bytes(&self, path: &Path) -> Option<Bytes> {
        let meta = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        map(path, meta.len()).ok()
    }

    /// Takes away a pack that is not what it should be.
    pub fn discard_pack(&self, digest: &PackDigest) {
        let _ = std::fs::remove_file(self.pack_path(digest));
    }

    /// Takes away a blob that is not what it should be.
    pub fn discard_blob(&self, digest: &BlobDigest) {
        let _ = std::fs::remove_file(self.blob_path(digest));
    }

    /// Keeps a blob.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef> {
        let blob = BlobRef { digest: blake3::hash(bytes).into(), size: bytes.len() as u64 };
        if !self.has(&ObjectRef::Blob(blob.digest, blob.size)) {
            self.write_file(&self.blob_path(&blob.digest), bytes)?;
        }
        Ok(blob)
    }

    /// The bytes of a blob, mapped.
    ///
    /// # Errors
    /// When it is not there or was cut.
    pub fn blob(&self, blob: &BlobRef) -> Result<Bytes> {
        map(&self.blob_path(&blob.digest), blob.size)
    }

    /// Whether a blob has the bytes that its name says. One that has not is taken away.
    pub fn is_blob_whole(&self, blob: &BlobRef) -> bool {
        let is_whole = self.blob(blob).is_ok_and(|bytes| BlobDigest::from(blake3::hash(&bytes)) == blob.digest);
        if !is_whole {
            self.discard_blob(&blob.digest);
        }
        is_whole
    }

    /// Where a blob lies, for those that need a file.
    pub fn blob_file(&self, digest: &BlobDigest) -> PathBuf {
        self.blob_path(digest)
    }

    /// Looks for a blob by its digest alone, as people name it.
    pub fn find_blob(&self, digest: &BlobDigest) -> Option<BlobRef> {
        let size = std::fs::metadata(self.blob_path(digest)).ok()?.len();
        Some(BlobRef { digest: *digest, size })
    }
}

/// Whether there is a regular file of this size. A link is none.
pub(crate) fn is_file_of(path: &Path, size: u64) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

/// The bytes of a file that is written as a whole, mapped: of at most so many.
pub(crate) fn map_all(path: &Path, most: u64) -> io::Result<Bytes> {
    let file = crate::open_file(path)?;
    match file.metadata()?.len() {
        0 => Ok(Bytes::new()),
        size if size > most => Err(io::Error::other("it is too large")),
        _ => Ok(Bytes::from_owner(map_immutable(&file)?)),
    }
}

pub(crate) fn map(path: &Path, size: u64) -> Result<Bytes> {
    let read = |source| StoreError::new("read", path, source);
    let file = crate::open_file(path).map_err(read)?;
    let found = file.metadata().map_err(read)?.len();
    if found != size {
        let message = format!("it has {found} bytes instead of {size}");
        return Err(read(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    if size == 0 {
        return Ok(Bytes::new());
    }
    Ok(Bytes::from_owner(map_immutable(&file).map_err(read)?))
}

#[expect(unsafe_code, reason = "mapping a file is what makes reading it free; the one place that does it")]
fn map_immutable(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the mapping must not change while it is there. Objects, tables, indices and
    // traces are renamed into place when they are whole and never written again: a new one
    // is another file, and to replace or remove one leaves the mapping intact. Somebody who
    // edits files inside the store by hand while a run reads them is outside of what can be
    // promised.
    unsafe { memmap2::Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nor do those of others matter, or that there are none yet.
    #[test]
    fn threads_write_in_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = |_| store.write_file(&folder.path().join("packs/a"), b"whole").unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * WRITING).map(|i| scope.spawn(move || write(i))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let places: Vec<_> =
            std::fs::read_dir(folder.path().join("tmp")).unwrap().map(|entry| entry.unwrap()).collect();
        assert!((2..=WRITING).contains(&places.len()));
        assert!(places.iter().all(|place| std::fs::read_dir(place.path()).unwrap().next().is_none()));
        std::fs::remove_dir_all(folder.path().join("tmp")).unwrap();
        assert!(store.new_file().is_err());
    }

    #[test]
    fn what_was_never_named_goes_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let tmp = folder.path().join("tmp");
        for place in [tmp.clone(), tmp.join("f")] {
            std::fs::create_dir_all(place.join("folder")).unwrap();
            for (name, hours) in [("new", 0), ("yesterday", 23), ("left", 25), ("long", 24 * 300)] {
                let file = File::create(place.join(name)).unwrap();
                file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 60 * 60)).unwrap();
            }
        }
        store.clear_unfinished();
        for place in [tmp.clone(), tmp.join("f")] {
            let mut left: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            // Where the store itself writes.
            left.retain(|name| name.len() > 1);
            left.sort();
            assert_eq!(left, ["folder", "new", "yesterday"]);
        }
    }
}
