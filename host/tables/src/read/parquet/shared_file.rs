//! One open file that several readers read, each at its own offset.
//!
//! A cloned `File` shares its offset with the clone, and each clone counts towards the limit of
//! open files of the process.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;
use millrace_platform::read_at;

/// A file, with the length that it had when it was opened.
#[derive(Clone)]
pub(super) struct SharedFile {
    file: Arc<File>,
    bytes: u64,
}

impl SharedFile {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), bytes })
    }
}

/// Reads from an offset on.
pub(super) struct From {
    file: Arc<File>,
    offset: u64,
}

impl Read for From {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = read_at(&self.file, into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for SharedFile {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(From { file: self.file.clone(), offset: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // A length that a corrupt file declares never takes more memory than the file has bytes.
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(ParquetError::EOF(format!("the file does not have {length} bytes at offset {start}")));
        }
        let mut bytes = Vec::with_capacity(length);
        let from = From { file: self.file.clone(), offset: start };
        if from.take(length as u64).read_to_end(&mut bytes)? < length {
            return Err(ParquetError::EOF("the file was truncated while it was read".to_owned()));
        }
        Ok(bytes.into())
    }
}
