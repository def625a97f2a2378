//! Objects: packs and blobs. Immutable, named by digest, mapped when read.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use millrace_types::{BlobDigest, BlobRef, ObjectRef, PackDigest};

use crate::backend::Presence;
use crate::error::Result;
use crate::files::map;
use crate::folder::NewFile;
use crate::store::Store;

/// The name of an object, without its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectName {
    /// A pack.
    Pack(PackDigest),
    /// A blob.
    Blob(BlobDigest),
}

impl Store {
    /// A file to write to, on the same file system as its later name.
    ///
    /// # Errors
    /// When the system cannot make one.
    pub fn new_file(&self) -> Result<NewFile> {
        self.folder.new_file()
    }

    /// Removes the incomplete files that killed processes left more than a day ago.
    pub fn clear_unfinished(&self) {
        self.folder.clear_unfinished();
    }

    /// Whether an object is there with its size, locally or in the remote store. A symbolic
    /// link does not count.
    pub fn has(&self, object: &ObjectRef) -> bool {
        self.has_all(std::slice::from_ref(object))
    }

    /// Whether all objects are there. The remote store is asked once.
    pub fn has_all(&self, objects: &[ObjectRef]) -> bool {
        match &self.remote {
            None => objects.iter().all(|object| self.folder.has(object)),
            Some(_) => !self.presence(objects).contains(&Presence::Missing),
        }
    }

    /// Where objects are, in their order. The remote store is asked once, for those that are
    /// not local.
    pub fn presence(&self, objects: &[ObjectRef]) -> Vec<Presence> {
        let local = |object: &ObjectRef| if self.folder.has(object) { Presence::Local } else { Presence::Missing };
        let mut found: Vec<Presence> = objects.iter().map(local).collect();
        if let Some(remote) = &self.remote {
            let missing: Vec<usize> = (0..objects.len()).filter(|index| found[*index] == Presence::Missing).collect();
            let asked: Vec<ObjectRef> = missing.iter().map(|index| objects[*index]).collect();
            for (index, _) in missing.into_iter().zip(remote.has(&asked)).filter(|(_, has)| *has) {
                found[index] = Presence::Remote;
            }
        }
        found
    }

    /// The bytes of an object, mapped; fetched first if only the remote store has it.
    fn object(&self, object: &ObjectRef) -> Result<Bytes> {
        match self.folder.object(object) {
            Err(_) if self.remote.as_ref().is_some_and(|remote| remote.fetch(object)) => self.folder.object(object),
            found => found,
        }
    }

    /// Stores a file that was written as a pack.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_pack(&self, digest: &PackDigest, file: NewFile) -> Result<()> {
        file.persist(&self.folder.pack_path(digest))
    }

    /// The bytes of a pack, mapped.
    ///
    /// # Errors
    /// When it is missing or truncated.
    pub fn pack(&self, digest: &PackDigest, size: u64) -> Result<Bytes> {
        self.object(&ObjectRef::Pack(*digest, size))
    }

    /// All packs and blobs: the file and the digest that is its name.
    pub fn objects(&self) -> impl Iterator<Item = (PathBuf, ObjectName)> + '_ {
        let hex = |path: &Path| blake3::Hash::from_hex(path.file_stem()?.to_str()?).ok();
        let packs = self.folder.files_in("packs").filter_map(move |path| {
            let name = ObjectName::Pack(hex(&path)?.into());
            Some((path, name))
        });
        let blobs = self.folder.files_in("blobs").filter_map(move |path| {
            let name = ObjectName::Blob(hex(&path)?.into());
            Some((path, name))
        });
        packs.chain(blobs)
    }

    /// The bytes of the file of an object; `None` if it is not a regular file.
    pub fn object_bytes(&self, path: &Path) -> Option<Bytes> {
        let meta = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        map(path, meta.len()).ok()
    }

    /// Removes a corrupt pack.
    pub fn discard_pack(&self, digest: &PackDigest) {
        let _ = std::fs::remove_file(self.folder.pack_path(digest));
    }

    /// Removes a corrupt blob.
    pub fn discard_blob(&self, digest: &BlobDigest) {
        let _ = std::fs::remove_file(self.folder.blob_path(digest));
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef> {
        let blob = BlobRef { digest: blake3::hash(bytes).into(), size: bytes.len() as u64 };
        if !self.folder.has(&blob.object()) {
            self.folder.put_object(&blob.object(), bytes)?;
        }
        Ok(blob)
    }

    /// The bytes of a blob, mapped.
    ///
    /// # Errors
    /// When it is missing or truncated.
    pub fn blob(&self, blob: &BlobRef) -> Result<Bytes> {
        self.object(&blob.object())
    }

    /// Whether the bytes of a blob match its digest. A corrupt one is removed.
    pub fn is_blob_intact(&self, blob: &BlobRef) -> bool {
        let is_intact = self.blob(blob).is_ok_and(|bytes| BlobDigest::from(blake3::hash(&bytes)) == blob.digest);
        if !is_intact {
            self.discard_blob(&blob.digest);
        }
        is_intact
    }

    /// The file of a blob, for a consumer that needs a path.
    pub fn blob_file(&self, digest: &BlobDigest) -> PathBuf {
        self.folder.blob_path(digest)
    }

    /// Finds a blob by its digest alone, as users name it.
    pub fn find_blob(&self, digest: &BlobDigest) -> Option<BlobRef> {
        // A link does not count as an object.
        let meta = std::fs::symlink_metadata(self.folder.blob_path(digest)).ok()?;
        meta.is_file().then_some(BlobRef { digest: *digest, size: meta.len() })
    }
}
