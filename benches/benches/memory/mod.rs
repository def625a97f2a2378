//! What a task is given and leaves, in memory: columns and blobs are kept, what is written as a
//! pack is checked and forgotten.

use std::collections::HashMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use millrace_tables::ColumnBytes;
use millrace_types::{BlobDigest, BlobRef, Chunk, ColumnDigest, PackDigest, StoredChunk};
use millrace_wasm::{Data, DataError, PackFile};

#[derive(Default)]
pub struct Memory {
    pub columns: HashMap<ColumnDigest, ColumnBytes>,
    blobs: Mutex<HashMap<BlobDigest, Bytes>>,
}

impl Memory {
    fn blobs(&self) -> MutexGuard<'_, HashMap<BlobDigest, Bytes>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is written to it.
struct Nowhere(io::Empty);

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Nowhere {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl PackFile for Nowhere {
    fn keep(self: Box<Self>, _: &PackDigest, _: &[Arc<StoredChunk>]) -> Result<(), DataError> {
        Ok(())
    }
}

impl Data for Memory {
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, DataError> {
        self.columns.get(&chunk.digest()).cloned().ok_or_else(|| DataError("no such column".to_owned()))
    }

    fn blob(&self, blob: &BlobRef) -> Result<Bytes, DataError> {
        self.blobs().get(&blob.digest).cloned().ok_or_else(|| DataError("no such blob".to_owned()))
    }

    fn new_pack(&self) -> Result<Box<dyn PackFile>, DataError> {
        Ok(Box::new(Nowhere(io::empty())))
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, DataError> {
        let blob = BlobRef { digest: blake3::hash(bytes).into(), size: bytes.len() as u64 };
        self.blobs().insert(blob.digest, Bytes::copy_from_slice(bytes));
        Ok(blob)
    }
}
