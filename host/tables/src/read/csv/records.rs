//! Records of a CSV file, one at a time, by csv-core.

use std::io::Read;
use std::path::Path;

use csv_core::ReadRecordResult;
use millrace_types::bounds::TEXT_RECORD_BYTES;

use crate::read::error::ReadError;

/// A record.
pub(super) struct Record<'a> {
    /// Its line, from 1.
    pub(super) line: u64,
    /// Its fields, unquoted, one after the other.
    pub(super) bytes: &'a [u8],
    /// Where each field ends.
    pub(super) ends: &'a [usize],
}

/// Reads records one after the other.
pub(super) struct Records<'a> {
    path: &'a Path,
    input: &'a mut dyn Read,
    reader: csv_core::Reader,
    buffer: Vec<u8>,
    filled: usize,
    used: usize,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Lines before the first.
    before: u64,
}

impl<'a> Records<'a> {
    pub(super) fn new(path: &'a Path, input: &'a mut dyn Read, delimiter: u8, first_line: u64) -> Self {
        let reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Self {
            path,
            input,
            reader,
            buffer: vec![0; 256 << 10],
            filled: 0,
            used: 0,
            bytes: vec![0; 4096],
            ends: vec![0; 64],
            before: first_line - 1,
        }
    }

    /// Reads more input when all of it is consumed.
    fn fill(&mut self) -> Result<(), ReadError> {
        if self.used == self.filled {
            self.filled = self.input.read(&mut self.buffer).map_err(ReadError::io(self.path))?;
            self.used = 0;
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        self.fill()?;
        // The rest of the line end before, and empty lines.
        let ends = self.buffer[self.used..self.filled].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let line = self.before + self.reader.line() + ends.filter(|byte| **byte == b'\n').count() as u64;
        let (mut written, mut fields) = (0, 0);
        loop {
            self.fill()?;
            let input = &self.buffer[self.used..self.filled];
            let (result, read, wrote, ended) =
                self.reader.read_record(input, &mut self.bytes[written..], &mut self.ends[fields..]);
            self.used += read;
            written += wrote;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.bytes.len() >= TEXT_RECORD_BYTES => {
                    let message = "a record of more than 64 MiB; a quote is opened there and never closed?";
                    return Err(ReadError::content(self.path, Some(line), message));
                }
                ReadRecordResult::OutputFull => self.bytes.resize(self.bytes.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    return Ok(Some(Record { line, bytes: &self.bytes[..written], ends: &self.ends[..fields] }));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }
}
