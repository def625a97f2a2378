//! The source and the destination of columns and blobs: the contract between the code that runs
//! a guest or reads a file, and the code that stores the bytes.
//!
//! Two implementations: the engine's, over the store, and [`MemoryChunks`], over memory.

use std::collections::HashMap;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_threads::lock;
use millrace_types::{BlobRef, Chunk, Field, ObjectRef, PackDigest, StoredChunk};

use crate::column::ColumnBytes;
use crate::pack::{self, Pack, PackWriter};
use crate::rows;

/// Why a column or a blob cannot be read or kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// An object is missing or truncated; a new run recomputes it.
    #[error("{0}; run the pipeline again to recompute it")]
    Lost(String),
    /// An object does not match its digest.
    #[error("{0}")]
    Corrupt(String),
    /// A column that stayed in its source file cannot be read from there.
    #[error("{0}")]
    Source(String),
    /// Bytes that cannot be used as the column they should be.
    #[error("{0}")]
    Invalid(String),
    /// An error of the system.
    #[error("{0}")]
    Io(String),
}

impl From<io::Error> for ChunkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Where columns and blobs come from.
pub trait ChunkSource: Send + Sync {
    /// The bytes of a column chunk.
    ///
    /// # Errors
    /// When they cannot be had.
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, ChunkError>;

    /// The bytes of a blob.
    ///
    /// # Errors
    /// When they cannot be had.
    fn blob(&self, blob: &BlobRef) -> Result<Bytes, ChunkError>;
}

/// Where packs and blobs go.
pub trait PackSink: Send + Sync {
    /// A file for a pack that is about to be written. It is removed when dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    fn new_pack(&self) -> Result<Box<dyn PackFile>, ChunkError>;

    /// Keeps a blob.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, ChunkError>;
}

/// Both.
pub trait ChunkStore: ChunkSource + PackSink {}

impl<T: ChunkSource + PackSink> ChunkStore for T {}

/// A file that a pack is written to.
pub trait PackFile: Write + Seek + Send {
    /// Keeps it under its name. Afterwards the chunks can be read.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn keep(self: Box<Self>, digest: &PackDigest, chunks: &[Arc<StoredChunk>]) -> Result<(), ChunkError>;
}

/// A writer of a pack to a sink.
pub type SinkWriter = PackWriter<Box<dyn PackFile>>;

/// Completes a pack and keeps it.
///
/// # Errors
/// When it cannot be written or kept.
pub fn keep_pack(pack: SinkWriter) -> Result<Vec<Arc<StoredChunk>>, ChunkError> {
    let Pack { digest, chunks, out } = pack.finish()?;
    out.keep(&digest, &chunks)?;
    Ok(chunks)
}

/// Writes columns of one length as a pack, and keeps it.
///
/// # Errors
/// When it cannot be written or kept.
pub fn put_pack(
    sink: &dyn PackSink,
    fields: &[Field],
    columns: &[ColumnBytes],
) -> Result<Vec<Arc<StoredChunk>>, ChunkError> {
    let mut pack = PackWriter::new(fields, columns.first().map_or(0, ColumnBytes::rows) as u64, sink.new_pack()?);
    columns.iter().try_for_each(|column| pack.column(&column.as_ref()))?;
    keep_pack(pack)
}

/// Packs and blobs in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryChunks {
    objects: Arc<Mutex<HashMap<ObjectRef, Bytes>>>,
}

impl MemoryChunks {
    fn get(&self, object: &ObjectRef) -> Result<Bytes, ChunkError> {
        let found = lock(&self.objects).get(object).cloned();
        found.ok_or_else(|| ChunkError::Lost(format!("an object of {} bytes is not in memory", object.size())))
    }

    fn stored(&self, chunk: &StoredChunk) -> Result<ColumnBytes, ChunkError> {
        let bytes = self.get(&chunk.object())?;
        pack::column(&bytes, chunk).map_err(|error| ChunkError::Invalid(error.to_string()))
    }
}

impl ChunkSource for MemoryChunks {
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, ChunkError> {
        match chunk {
            Chunk::Stored(chunk) => self.stored(chunk),
            Chunk::Gather(gather) => {
                let invalid = |error: crate::ColumnError| ChunkError::Invalid(error.to_string());
                let mut sources =
                    gather.sources.iter().map(|source| self.column(source)).collect::<Result<Vec<_>, _>>()?;
                if sources.is_empty() {
                    sources.push(ColumnBytes::empty(&gather.data_type).map_err(invalid)?);
                }
                rows::gather(gather.kind, &self.stored(&gather.selection)?, &sources).map_err(invalid)
            }
            Chunk::Unread(unread) => {
                Err(ChunkError::Source(format!("the column `{}` is in a file, not in memory", unread.name)))
            }
        }
    }

    fn blob(&self, blob: &BlobRef) -> Result<Bytes, ChunkError> {
        self.get(&blob.object())
    }
}

impl PackSink for MemoryChunks {
    fn new_pack(&self) -> Result<Box<dyn PackFile>, ChunkError> {
        Ok(Box::new(MemoryPack { bytes: Cursor::default(), chunks: self.clone() }))
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, ChunkError> {
        let blob = BlobRef { digest: blake3::hash(bytes).into(), size: bytes.len() as u64 };
        lock(&self.objects).insert(blob.object(), Bytes::copy_from_slice(bytes));
        Ok(blob)
    }
}

/// A pack that is being written in memory.
struct MemoryPack {
    bytes: Cursor<Vec<u8>>,
    chunks: MemoryChunks,
}

impl Write for MemoryPack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for MemoryPack {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

impl PackFile for MemoryPack {
    fn keep(self: Box<Self>, digest: &PackDigest, _: &[Arc<StoredChunk>]) -> Result<(), ChunkError> {
        let bytes = Bytes::from(self.bytes.into_inner());
        lock(&self.chunks.objects).insert(ObjectRef::Pack(*digest, bytes.len() as u64), bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, UInt32Array};
    use millrace_types::{ColumnName, DataType, Selection};

    use super::*;

    fn field(name: &str, data_type: DataType) -> Field {
        Field { name: ColumnName::new(name), data_type, nullable: true }
    }

    #[test]
    fn what_is_kept_in_memory_reads_back_stored_and_gathered() {
        let chunks = MemoryChunks::default();
        let numbers = ColumnBytes::from_array(&Int64Array::from(vec![Some(1), None, Some(3)])).unwrap();
        let texts = ColumnBytes::from_array(&StringArray::from(vec!["a", "b", "c"])).unwrap();
        let fields = [field("n", DataType::Int64), field("t", DataType::Utf8)];
        let stored = put_pack(&chunks, &fields, &[numbers.clone(), texts]).unwrap();
        assert_eq!(chunks.column(&Chunk::Stored(stored[0].clone())), Ok(numbers));
        let rows = ColumnBytes::from_array(&UInt32Array::from(vec![2, 0])).unwrap();
        let rows = put_pack(&chunks, &[field("rows", DataType::UInt32)], &[rows]).unwrap();
        let source = vec![Chunk::Stored(stored[1].clone())];
        let taken = Chunk::gather(Selection::Take, &rows[0], 2, source, DataType::Utf8);
        let expected = ColumnBytes::from_array(&StringArray::from(vec!["c", "a"])).unwrap();
        assert_eq!(chunks.column(&taken), Ok(expected));
        let blob = chunks.put_blob(b"bytes").unwrap();
        assert_eq!(chunks.blob(&blob).unwrap(), &b"bytes"[..]);
        let empty = MemoryChunks::default();
        assert!(matches!(empty.blob(&blob), Err(ChunkError::Lost(_))));
    }
}
