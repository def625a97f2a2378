//! Chunks in memory: columns and blobs are stored, packs are checked and discarded.

use std::collections::HashMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_tables::{ChunkError, ChunkSource, ColumnBytes, PackFile, PackSink};
use millrace_threads::lock;
use millrace_types::{BlobDigest, BlobRef, Chunk, ColumnDigest, PackDigest, StoredChunk};

#[derive(Default)]
pub struct Memory {
    pub columns: HashMap<ColumnDigest, ColumnBytes>,
    blobs: Mutex<HashMap<BlobDigest, Bytes>>,
}

/// Discards what is written to it.
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
    fn keep(self: Box<Self>, _: &PackDigest, _: &[Arc<StoredChunk>]) -> Result<(), ChunkError> {
        Ok(())
    }
}

impl ChunkSource for Memory {
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, ChunkError> {
        self.columns.get(&chunk.digest()).cloned().ok_or_else(|| ChunkError::Lost("no such column".to_owned()))
    }

    fn blob(&self, blob: &BlobRef) -> Result<Bytes, ChunkError> {
        lock(&self.blobs).get(&blob.digest).cloned().ok_or_else(|| ChunkError::Lost("no such blob".to_owned()))
    }
}

impl PackSink for Memory {
    fn new_pack(&self) -> Result<Box<dyn PackFile>, ChunkError> {
        Ok(Box::new(Nowhere(io::empty())))
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, ChunkError> {
        let blob = BlobRef { digest: blake3::hash(bytes).into(), size: bytes.len() as u64 };
        lock(&self.blobs).insert(blob.digest, Bytes::copy_from_slice(bytes));
        Ok(blob)
    }
}
