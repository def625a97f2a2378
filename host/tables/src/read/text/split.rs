//! Cuts text into blocks of complete records, and parses no more than that needs.
//!
//! A line is a record, unless it ends inside quotes, in CSV. Quotes have the same meaning as in
//! the parser (csv-core): a quote at the beginning of a field opens, the next one closes unless
//! it is doubled, and a quote in an unquoted field is an ordinary character.

use std::io::Read;
use std::path::Path;

use millrace_types::bounds::TEXT_RECORD_BYTES;

use crate::read::error::ReadError;

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;
/// A block with this many bytes is cut early.
const BLOCK_BYTES: usize = 256 << 20;

/// Complete records of a file.
pub(in crate::read) struct Block {
    /// Its index in the file, from 0.
    pub(in crate::read) number: u64,
    /// The line of its first record, from 1.
    pub(in crate::read) line: u64,
    pub(in crate::read) bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    /// Before the first byte of a field.
    Start,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field: the closing quote, or the first of two.
    Closing,
}

/// Reads blocks one after the other.
pub(in crate::read) struct Splitter<'a> {
    path: &'a Path,
    input: &'a mut (dyn Read + Send),
    /// The delimiter of CSV; `None` where every line is a record.
    delimiter: Option<u8>,
    /// Bytes that were read and are in no block yet.
    buffer: Vec<u8>,
    /// Bytes of the buffer that were scanned.
    scanned: usize,
    state: QuoteState,
    number: u64,
    /// The line of the first byte in the buffer.
    line: u64,
    at_end: bool,
    spare: Vec<Vec<u8>>,
}

impl<'a> Splitter<'a> {
    /// A splitter of CSV.
    pub(in crate::read) fn new(path: &'a Path, input: &'a mut (dyn Read + Send), delimiter: u8) -> Self {
        Self { delimiter: Some(delimiter), ..Self::lines(path, input) }
    }

    /// A splitter of text in which every line is a record.
    pub(in crate::read) fn lines(path: &'a Path, input: &'a mut (dyn Read + Send)) -> Self {
        Self {
            path,
            input,
            delimiter: None,
            buffer: Vec::new(),
            scanned: 0,
            state: QuoteState::Start,
            number: 0,
            line: 1,
            at_end: false,
            spare: Vec::new(),
        }
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        let mut chunk = (&mut *self.input).take(CHUNK as u64);
        let read = chunk.read_to_end(&mut self.buffer).map_err(ReadError::io(self.path))?;
        self.at_end = read < CHUNK;
        Ok(())
    }

    /// Reuses the memory of a block that is no longer needed: fresh memory costs more than
    /// reading into it.
    pub(in crate::read) fn reuse(&mut self, bytes: Vec<u8>) {
        self.spare.push(bytes);
    }

    /// Reserves memory for all lines of a block, as estimated from the lines so far: a buffer
    /// that grows in small steps is copied again and again, each time to fresh memory.
    fn expect(&mut self, lines: usize, found: usize, end: usize) {
        if found > 0 && self.buffer.capacity() < BLOCK_BYTES {
            let all = end as f64 / found as f64 * lines as f64;
            let room = |all: f64| (all as usize).min(BLOCK_BYTES) + CHUNK;
            // A little more, since the other lines may be longer.
            if room(all) > self.buffer.capacity() {
                self.buffer.reserve_exact(room(all * 1.1).saturating_sub(self.buffer.len()));
            }
        }
    }

    /// The next block of `lines` lines, or the rest of the file.
    pub(in crate::read) fn next(&mut self, lines: usize) -> Result<Option<Block>, ReadError> {
        let mut found = 0;
        // The end of the last complete record.
        let mut end = 0;
        loop {
            if self.scan(lines, &mut found, &mut end) || (self.scanned >= BLOCK_BYTES && end > 0) {
                break;
            }
            if self.scanned - end > TEXT_RECORD_BYTES {
                let message = match self.delimiter {
                    Some(_) => "a record of more than 64 MiB; a quote is opened there and never closed?",
                    None => "a line of more than 64 MiB",
                };
                return Err(ReadError::content(self.path, Some(self.line + newlines(&self.buffer[..end])), message));
            }
            if self.at_end {
                if self.state == QuoteState::Quoted {
                    let message = "a quote is opened here and never closed";
                    let line = self.line + newlines(&self.buffer[..end]);
                    return Err(ReadError::content(self.path, Some(line), message));
                }
                end = self.buffer.len();
                break;
            }
            self.expect(lines, found, end);
            self.fill()?;
        }
        if end == 0 {
            return Ok(None);
        }
        let mut next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.buffer.capacity()));
        next.clear();
        next.extend_from_slice(&self.buffer[end..]);
        self.buffer.truncate(end);
        let bytes = std::mem::replace(&mut self.buffer, next);
        let block = Block { number: self.number, line: self.line, bytes };
        self.scanned = 0;
        self.state = QuoteState::Start;
        self.number += 1;
        self.line += newlines(&block.bytes);
        Ok(Some(block))
    }

    /// Scans the rest of the buffer for ends of records. Returns whether `lines` were found.
    fn scan(&mut self, lines: usize, found: &mut usize, end: &mut usize) -> bool {
        while self.scanned < self.buffer.len() {
            let to = self.buffer.len().min(self.scanned + CHUNK);
            let piece = &self.buffer[self.scanned..to];
            let read = match self.state {
                QuoteState::Quoted => match memchr::memchr(b'"', piece) {
                    Some(quote) => {
                        self.state = QuoteState::Closing;
                        quote + 1
                    }
                    None => piece.len(),
                },
                QuoteState::Closing if piece[0] == b'"' => {
                    self.state = QuoteState::Quoted;
                    1
                }
                // Up to the next quote every line is a record.
                _ => {
                    let quote = self.delimiter.and_then(|_| memchr::memchr(b'"', piece));
                    let plain = &piece[..quote.unwrap_or(piece.len())];
                    for at in memchr::memchr_iter(b'\n', plain) {
                        *found += 1;
                        *end = self.scanned + at + 1;
                        if *found == lines {
                            return true;
                        }
                    }
                    self.state = match plain.last() {
                        Some(b'\n' | b'\r') => QuoteState::Start,
                        Some(last) if Some(*last) == self.delimiter => QuoteState::Start,
                        Some(_) => QuoteState::Unquoted,
                        None => self.state,
                    };
                    if quote.is_some() {
                        self.state =
                            if self.state == QuoteState::Start { QuoteState::Quoted } else { QuoteState::Unquoted };
                    }
                    plain.len() + usize::from(quote.is_some())
                }
            };
            self.scanned += read;
        }
        false
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(text: &[u8], lines: usize) -> Vec<(u64, Vec<u8>)> {
        let mut input = text;
        let mut splitter = Splitter::new(Path::new("x.csv"), &mut input, b',');
        let mut blocks = Vec::new();
        while let Ok(Some(block)) = splitter.next(lines) {
            blocks.push((block.line, block.bytes));
        }
        blocks
    }

    #[test]
    fn a_line_end_in_quotes_does_not_end_a_record() {
        let text = b"a,b\n1,\"x\ny\"\n2,5\" tv\n3,\"\"\"\n\"\n4,z";
        let found: Vec<String> = blocks(text, 1)
            .into_iter()
            .map(|(line, bytes)| format!("{line} {}", String::from_utf8(bytes).unwrap()))
            .collect();
        assert_eq!(found, ["1 a,b\n", "2 1,\"x\ny\"\n", "4 2,5\" tv\n", "5 3,\"\"\"\n\"\n", "7 4,z"]);
    }

    /// Chunks of text may end anywhere, for instance between two quotes.
    #[test]
    fn a_record_may_span_chunks() {
        let record = "7,\"a\"\"\n,\"\"\",5\" tv,\"\"\n";
        let rows = 2 * CHUNK / record.len();
        for before in 0..record.len() {
            let text = "h".repeat(before) + "\n" + &record.repeat(rows);
            let found = blocks(text.as_bytes(), 10_000);
            let of_records = |bytes: &[u8]| bytes == record.repeat(bytes.len() / record.len()).as_bytes();
            assert!(of_records(&found[0].1[before + 1..]) && found[1..].iter().all(|(_, bytes)| of_records(bytes)));
            assert_eq!(found.len(), (rows + 1).div_ceil(10_000));
        }
    }

    proptest! {
        /// Blocks parsed one by one give the records of the whole text.
        #[test]
        fn blocks_consist_of_complete_records(text in "[a,\"\r\n]{0,60}", lines in 1usize..4) {
            let records = |bytes: &[u8]| {
                let mut reader = csv_core::Reader::new();
                let (mut out, mut ends, mut records) = (vec![0; 200], vec![0; 200], Vec::new());
                let mut rest = bytes;
                let (mut written, mut fields) = (0, 0);
                loop {
                    let (result, read, wrote, ended) = reader.read_record(rest, &mut out[written..], &mut ends[fields..]);
                    rest = &rest[read..];
                    written += wrote;
                    fields += ended;
                    match result {
                        csv_core::ReadRecordResult::Record => {
                            records.push((out[..written].to_vec(), ends[..fields].to_vec()));
                            (written, fields) = (0, 0);
                        }
                        csv_core::ReadRecordResult::End => return records,
                        _ => {}
                    }
                }
            };
            let found = blocks(text.as_bytes(), lines);
            let whole: Vec<u8> = found.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            // An open quote at the end is an error; the last block is missing then.
            prop_assume!(whole.len() == text.len());
            let parsed: Vec<_> = found.iter().flat_map(|(_, bytes)| records(bytes)).collect();
            prop_assert_eq!(parsed, records(text.as_bytes()));
        }
    }
}
