//! A folder that holds objects and records: the names of its files, and how they are written.
//!
//! It knows the layout, but nothing about caches, indices or remote stores.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millrace_types::wire::Kind;
use millrace_types::{BlobDigest, ObjectRef, PackDigest, RecordName};

use crate::error::{OpenError, Result, StoreError};
use crate::files::{is_file_of, map, read_file};

/// The folders of a store.
const FOLDERS: [&str; 18] = [
    "tmp",
    "claims",
    "packs",
    "blobs",
    "actions",
    "tables",
    "gathered",
    "sources",
    "manifests",
    "plans",
    "plugins",
    "tasks",
    "memo",
    "compiled",
    "index",
    "traces",
    "runs",
    "events",
];

/// Version of the folder layout. Each folder has sixteen, by the first digit: making more
/// costs as much as writing a record, and file systems find a name among thousands.
const LAYOUT: &str = "millrace-store 2";

/// Whether this is the content of a `LAYOUT` file, of any version.
fn is_layout(found: &str) -> bool {
    let version = found.trim().strip_prefix("millrace-store ");
    version.is_some_and(|version| version.len() < 10 && version.parse::<u32>().is_ok())
}

/// A file in `tmp/` that was last written so long ago is left over from a killed process.
const UNFINISHED: Duration = Duration::from_secs(24 * 60 * 60);

/// Folders for files that are being written.
const WRITING: usize = 16;

/// The folder that this thread writes in. The system locks a folder while it creates a file, for
/// long where many were removed before: threads that share a folder wait for each other.
fn writing_folder() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static FOLDER: usize = THREADS.fetch_add(1, Ordering::Relaxed) % WRITING;
    }
    FOLDER.with(|folder| *folder)
}

/// A file that is being written and has no name yet. It is removed when dropped.
pub struct NewFile {
    file: tempfile::NamedTempFile,
}

impl NewFile {
    /// The file, for writing.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Renames it into place, making the folder if necessary.
    pub(crate) fn persist(mut self, path: &Path) -> Result<()> {
        for attempt in 0..2 {
            match self.file.persist(path) {
                Ok(_) => return Ok(()),
                Err(error) if attempt == 0 && error.error.kind() == io::ErrorKind::NotFound => {
                    let folder = path.parent().unwrap_or(path);
                    std::fs::create_dir_all(folder).map_err(|e| StoreError::new("create", folder, e))?;
                    self.file = error.file;
                }
                // A folder with this name is corruption, and is replaced.
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

/// The folder of a kind of record.
fn folder_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Action => "actions",
        // One file contains many tables.
        Kind::Table | Kind::Tables => "tables",
        Kind::Gathered => "gathered",
        Kind::Source | Kind::Columns => "sources",
        Kind::Memo => "memo",
        Kind::Manifest => "manifests",
        Kind::Plan => "plans",
        Kind::Plugin => "plugins",
        Kind::Run => "runs",
        Kind::Trace => "traces",
        // By component and engine: `millrace-wasm` writes it beside the code.
        Kind::Code => "compiled",
        Kind::Task => "tasks",
        Kind::Events => "events",
    }
}

/// A folder with the layout of a store.
#[derive(Debug, Clone)]
pub struct Folder {
    root: Arc<Path>,
}

impl Folder {
    /// Opens the store in a folder, creating it if there is none.
    ///
    /// # Errors
    /// When the folder belongs to something else or cannot be written.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let marker = root.join("LAYOUT");
        let folder = Self { root: root.into() };
        let found = read_file(&marker, 1 << 10);
        let had_marker = !matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound);
        match found.as_deref().map(std::str::from_utf8) {
            Ok(Ok(found)) if found.trim() == LAYOUT => {
                // Copying a store often loses its empty folders.
                folder.make_folders()?;
                return Ok(folder);
            }
            Ok(Ok(found)) if is_layout(found) => {
                let found = found.trim().to_owned();
                return Err(OpenError::Layout { path: root.to_owned(), found, wanted: LAYOUT });
            }
            // Missing, or corrupt.
            _ => {}
        }
        std::fs::create_dir_all(root).map_err(|e| StoreError::new("create", root, e))?;
        // Two processes may both be the first, and the marker may have been lost: the folders
        // of a store are recognised, and nothing in them is used unchecked.
        let was_store = ["tmp", "claims"].iter().all(|folder| root.join(folder).is_dir());
        let ours = |name: &std::ffi::OsStr| {
            let is_folder = |folders: &[&str]| folders.iter().any(|folder| name == *folder);
            // In a folder that was not a store, a file with this name belongs to something else.
            (name == "LAYOUT" && (was_store || !had_marker))
                || is_folder(&["tmp", "claims"])
                || (was_store && is_folder(&FOLDERS))
        };
        let has_others = std::fs::read_dir(root)
            .map_err(|e| StoreError::new("read", root, e))?
            .filter_map(io::Result::ok)
            .any(|entry| !ours(&entry.file_name()));
        if has_others {
            return Err(OpenError::NotAStore { path: root.to_owned() });
        }
        folder.make_folders()?;
        folder.write_file(&marker, LAYOUT.as_bytes())?;
        Ok(folder)
    }

    /// Its path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn make_folders(&self) -> Result<()> {
        for folder in ["tmp", "claims"].map(|name| self.root.join(name)) {
            std::fs::create_dir_all(&folder).map_err(|e| StoreError::new("create", &folder, e))?;
        }
        Ok(())
    }

    pub(crate) fn sharded(&self, folder: &str, hex: &str) -> PathBuf {
        let mut path = self.root.join(folder);
        path.push(&hex[..1]);
        path.push(hex);
        path
    }

    /// All files in the shards of a folder.
    pub(crate) fn files_in(&self, folder: &str) -> impl Iterator<Item = PathBuf> + use<> {
        let folders = std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.map(|file| file.path())
    }

    /// A file to write to, on the same file system as its later name.
    ///
    /// # Errors
    /// When the system cannot make one.
    pub fn new_file(&self) -> Result<NewFile> {
        let mut folder = self.root.join("tmp");
        folder.push(format!("{:x}", writing_folder()));
        let make = || tempfile::Builder::new().prefix("").tempfile_in(&folder);
        let file = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Another process may be faster.
                let _ = std::fs::create_dir(&folder);
                make()
            }
            made => made,
        };
        Ok(NewFile { file: file.map_err(|e| StoreError::new("write in", &folder, e))? })
    }

    /// Writes a complete file at once: a reader sees its old content or the new one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut new = self.new_file()?;
        new.file().write_all(bytes).map_err(|e| StoreError::new("write", path, e))?;
        new.persist(path)
    }

    /// Removes the files in `tmp/` that killed processes left: those last written more than a day
    /// ago.
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

    pub(crate) fn pack_path(&self, digest: &PackDigest) -> PathBuf {
        let mut path = self.sharded("packs", &digest.hex());
        path.set_extension("arrow");
        path
    }

    pub(crate) fn blob_path(&self, digest: &BlobDigest) -> PathBuf {
        self.sharded("blobs", &digest.hex())
    }

    /// The file of a marker, whose existence is its content, in a folder of such files.
    pub(crate) fn marker_path(&self, folder: &str, name: &str) -> PathBuf {
        self.root.join(folder).join(name)
    }

    /// The names of the markers in a folder.
    pub(crate) fn markers(&self, folder: &str) -> HashSet<String> {
        let files = std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        files.filter_map(|file| file.file_name().into_string().ok()).collect()
    }

    fn object_path(&self, object: &ObjectRef) -> (PathBuf, u64) {
        match object {
            ObjectRef::Pack(digest, size) => (self.pack_path(digest), *size),
            ObjectRef::Blob(digest, size) => (self.blob_path(digest), *size),
        }
    }

    pub(crate) fn record_path(&self, kind: Kind, name: &RecordName) -> PathBuf {
        self.sharded(folder_of(kind), &name.hex())
    }

    /// Whether an object is there with its size. A symbolic link does not count.
    pub fn has(&self, object: &ObjectRef) -> bool {
        let (path, size) = self.object_path(object);
        is_file_of(&path, size)
    }

    /// The bytes of an object, mapped.
    ///
    /// # Errors
    /// When it is missing or truncated.
    pub fn object(&self, object: &ObjectRef) -> Result<Bytes> {
        let (path, size) = self.object_path(object);
        map(&path, size)
    }

    /// Stores the bytes of an object under its name.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn put_object(&self, object: &ObjectRef, bytes: &[u8]) -> Result<()> {
        self.write_file(&self.object_path(object).0, bytes)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_write_in_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
        let write = |_| store.write_file(&folder.path().join("packs/a"), b"whole").unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * WRITING).map(|i| scope.spawn(move || write(i))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        let folders: Vec<_> =
            std::fs::read_dir(folder.path().join("tmp")).unwrap().map(|entry| entry.unwrap()).collect();
        assert!((2..=WRITING).contains(&folders.len()));
        assert!(folders.iter().all(|folder| std::fs::read_dir(folder.path()).unwrap().next().is_none()));
        std::fs::remove_dir_all(folder.path().join("tmp")).unwrap();
        assert!(store.new_file().is_err());
    }

    #[test]
    fn an_unfinished_file_is_removed_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::open(folder.path()).unwrap();
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
            // The folders that the store itself writes in.
            left.retain(|name| name.len() > 1);
            left.sort();
            assert_eq!(left, ["folder", "new", "yesterday"]);
        }
    }
}
