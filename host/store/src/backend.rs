//! The contract of a level of the store, local or remote.

use std::fmt;

use bytes::Bytes;
use millrace_types::wire::Kind;
use millrace_types::{ObjectRef, RecordName, bounds};

use crate::error::Result;
use crate::files::map_all;
use crate::folder::Folder;

/// The level that has an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// In the local folder.
    Local,
    /// In the remote store only.
    Remote,
    /// In neither.
    Missing,
}

/// Whether a record was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It was written.
    New,
    /// There was one with its name, which stays.
    Exists,
}

/// One level of the store: objects and records.
///
/// Objects are immutable and named by their content: storing one twice is harmless. A record
/// is created once and appears only after the objects that it refers to; the caller keeps that
/// order. What a backend returns is not trusted: the caller checks objects against their
/// digests and records against their checksums. A write is atomic: a reader sees all of it or
/// nothing, whenever the writer dies.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Whether each of the objects is there with its size, in the same order.
    ///
    /// # Errors
    /// When the backend cannot be reached.
    fn has_objects(&self, objects: &[ObjectRef]) -> Result<Vec<bool>>;

    /// The bytes of an object; `None` if it is not there.
    ///
    /// # Errors
    /// When the backend cannot be reached.
    fn get_object(&self, object: &ObjectRef) -> Result<Option<Bytes>>;

    /// Stores an object, replacing one with its name, which may be corrupt.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_object(&self, object: &ObjectRef, bytes: &Bytes) -> Result<()>;

    /// The encoded records of one kind, in the order of the names.
    ///
    /// # Errors
    /// When the backend cannot be reached.
    fn get_records(&self, kind: Kind, names: &[RecordName]) -> Result<Vec<Option<Bytes>>>;

    /// Creates a record, unless there is one with this name.
    ///
    /// # Errors
    /// When it cannot be written.
    fn create_record(&self, kind: Kind, name: &RecordName, bytes: &[u8]) -> Result<Created>;
}

impl Backend for Folder {
    fn has_objects(&self, objects: &[ObjectRef]) -> Result<Vec<bool>> {
        Ok(objects.iter().map(|object| self.has(object)).collect())
    }

    fn get_object(&self, object: &ObjectRef) -> Result<Option<Bytes>> {
        if self.has(object) { self.object(object).map(Some) } else { Ok(None) }
    }

    fn put_object(&self, object: &ObjectRef, bytes: &Bytes) -> Result<()> {
        Self::put_object(self, object, bytes)
    }

    fn get_records(&self, kind: Kind, names: &[RecordName]) -> Result<Vec<Option<Bytes>>> {
        let read = |name: &RecordName| map_all(&self.record_path(kind, name), bounds::RECORD_BYTES).ok();
        Ok(names.iter().map(read).collect())
    }

    fn create_record(&self, kind: Kind, name: &RecordName, bytes: &[u8]) -> Result<Created> {
        let path = self.record_path(kind, name);
        if path.exists() {
            return Ok(Created::Exists);
        }
        self.write_file(&path, bytes)?;
        Ok(Created::New)
    }
}
