//! The store as a sink of packs and blobs.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use millrace_store::{NewFile, Store, StoreError};
use millrace_tables::{ChunkError, PackFile, PackSink};
use millrace_types::{BlobRef, ObjectRef, PackDigest, StoredChunk};

use crate::integrity::Written;

/// An error of the store, as an error of chunks.
pub(crate) fn io_error(error: &StoreError) -> ChunkError {
    ChunkError::Io(error.to_string())
}

/// Puts packs and blobs into a store.
pub(crate) struct StorePacks {
    store: Store,
    written: Written,
}

impl StorePacks {
    /// A sink for a store; what it writes is marked as checked.
    pub(crate) fn new(store: Store, written: Written) -> Self {
        Self { store, written }
    }
}

impl PackSink for StorePacks {
    fn new_pack(&self) -> Result<Box<dyn PackFile>, ChunkError> {
        let file = self.store.new_file().map_err(|error| io_error(&error))?;
        Ok(Box::new(NewPack { file, store: self.store.clone(), written: self.written.clone() }))
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, ChunkError> {
        self.store.put_blob(bytes).map_err(|error| io_error(&error))
    }
}

/// A pack that is being written.
struct NewPack {
    file: NewFile,
    store: Store,
    written: Written,
}

impl Write for NewPack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Without the path, a full disk of the store would look like a full disk of the source.
        let full = |error: io::Error| {
            let root = self.store.root().display().to_string();
            io::Error::new(error.kind(), format!("cannot write to the store `{root}`: {error}"))
        };
        self.file.file().write(bytes).map_err(full)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for NewPack {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.file().seek(to)
    }
}

impl PackFile for NewPack {
    fn keep(self: Box<Self>, digest: &PackDigest, chunks: &[Arc<StoredChunk>]) -> Result<(), ChunkError> {
        let Self { file, store, written } = *self;
        let size = chunks.first().map_or(0, |chunk| chunk.pack_bytes);
        // An existing one may be corrupt: it is checked when it is read.
        if store.has(&ObjectRef::Pack(*digest, size)) {
            return Ok(());
        }
        store.put_pack(digest, file).map_err(|error| io_error(&error))?;
        written.note(chunks.iter().map(|chunk| &**chunk));
        Ok(())
    }
}
