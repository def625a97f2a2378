//! CSV, by RFC 4180, with a header line.
//!
//! Types: those of the first part, and if a later value does not fit, wider
//! ones and a second reading. So memory holds one part at a time, and the types
//! are those of the whole file all the same.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema};
use csv_core::ReadRecordResult;
use millrace_types::{Schema, bounds};

use super::infer::{Kind, RawColumn};
use super::{ReadError, ReadOptions, ReadPart, Shaper, Sink, open::open};
use crate::column::{arrow_type, field_from_arrow};

/// A part is cut early when one of its columns has as much text.
const PART_BYTES: usize = 256 << 20;
/// Bytes of one record: more is a file that forgot to close a quote.
const RECORD_BYTES: usize = 64 << 20;

enum Stop {
    Error(ReadError),
    /// This column must be wider: read again.
    Widen {
        column: usize,
        kind: Kind,
    },
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Error(error)
    }
}

pub(super) fn read(files: &[PathBuf], options: &ReadOptions, sink: &dyn Sink) -> Result<Schema, ReadError> {
    let mut kinds: Vec<Kind> = Vec::new();
    loop {
        let mut table = CsvTable { options, shaper: Shaper::new(options), header: None, kinds, sink };
        match files.iter().try_for_each(|path| table.file(path)) {
            Ok(()) => {
                return table.shaper.finish(files.first(), "the file is empty: there is not even a header line");
            }
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Widen { column, kind }) => {
                kinds = table.kinds;
                // Each turn widens a column, and there are few steps to text.
                kinds[column] = kinds[column].join(kind);
                sink.restart();
            }
        }
    }
}

/// Records that say what the columns probably are.
const PEEKED: usize = 1000;

/// The schema, by the header and the first records.
pub(super) fn peek(path: &Path, options: &ReadOptions) -> Option<Schema> {
    let mut found = None;
    let peeked = open(path, &mut |input| {
        let mut records = Records::new(path, input, options.delimiter);
        let Some(header) = records.next()? else { return Ok(()) };
        let mut table =
            CsvTable { options, shaper: Shaper::new(options), header: None, kinds: Vec::new(), sink: &Nowhere };
        let names = table.check_header(path, header)?;
        let mut kinds = table.kinds;
        for _ in 0..PEEKED {
            let Some(record) = records.next()? else { break };
            let mut start = 0;
            for (kind, end) in kinds.iter_mut().zip(record.ends) {
                let field = &record.bytes[start..*end];
                if !options.missing.iter().any(|missing| missing.as_bytes() == field) {
                    *kind = kind.join(Kind::of(field));
                }
                start = *end;
            }
        }
        let fields = names.iter().zip(kinds).map(|(name, kind)| {
            let to = options.types.get(name).map_or_else(|| kind.arrow(), arrow_type);
            field_from_arrow(&ArrowField::new(name, to, true)).ok()
        });
        found = fields.collect::<Option<_>>().map(|fields| Schema { fields });
        Ok(())
    });
    peeked.ok().and(found)
}

struct Nowhere;

impl Sink for Nowhere {
    fn part(&self, _: u64, _: &Schema, _: ReadPart) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    fn restart(&self) {}
}

struct CsvTable<'a> {
    options: &'a ReadOptions,
    shaper: Shaper<'a>,
    header: Option<Vec<String>>,
    /// What the columns are, as far as known.
    kinds: Vec<Kind>,
    sink: &'a dyn Sink,
}

impl CsvTable<'_> {
    fn file(&mut self, path: &Path) -> Result<(), Stop> {
        let mut stop = None;
        open(path, &mut |input| {
            match self.records(path, input) {
                Ok(()) => {}
                Err(Stop::Error(error)) => return Err(error),
                Err(widen) => stop = Some(widen),
            }
            Ok(())
        })?;
        stop.map_or(Ok(()), Err)
    }

    fn records(&mut self, path: &Path, input: &mut dyn Read) -> Result<(), Stop> {
        let mut records = Records::new(path, input, self.options.delimiter);
        let Some(header) = records.next()? else { return Ok(()) };
        let header = self.check_header(path, header)?;
        let width = header.len();
        let missing: HashSet<&[u8]> = self.options.missing.iter().map(|text| text.as_bytes()).collect();
        let mut part = CsvPart { lines: Vec::new(), columns: (0..width).map(|_| RawColumn::default()).collect() };
        let mut emitted = false;
        while let Some(record) = records.next()? {
            let (line, found) = (record.line, record.ends.len());
            if found == 1 && width > 1 && record.ends[0] == 0 {
                continue; // an empty line
            }
            if found != width {
                let message = format!("{found} fields, and the header has {width}");
                return Err(ReadError::content(path, Some(line), message).into());
            }
            part.lines.push(line);
            let mut start = 0;
            let mut largest = 0;
            for (column, end) in part.columns.iter_mut().zip(record.ends) {
                let field = &record.bytes[start..*end];
                column.push(field, missing.contains(field));
                largest = largest.max(column.bytes());
                start = *end;
            }
            if part.lines.len() >= self.options.part_rows || largest >= PART_BYTES {
                self.emit(path, &header, &mut part)?;
                emitted = true;
            }
        }
        if !part.lines.is_empty() || !emitted {
            self.emit(path, &header, &mut part)?;
        }
        Ok(())
    }

    fn check_header(&mut self, path: &Path, record: Record<'_>) -> Result<Vec<String>, ReadError> {
        let fail = |message: String| Err(ReadError::content(path, Some(1), message));
        let mut names = Vec::with_capacity(record.ends.len());
        let mut start = 0;
        for end in record.ends {
            let name = &record.bytes[start..*end];
            let name = if start == 0 { name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name) } else { name };
            match std::str::from_utf8(name) {
                Ok(name) => names.push(name.to_owned()),
                Err(_) => return fail("the header is not UTF-8; convert the file, for instance with iconv".to_owned()),
            }
            start = *end;
        }
        if names.len() > bounds::COLUMNS {
            return fail(format!("{} columns, and at most {} are taken", names.len(), bounds::COLUMNS));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return fail(format!("two columns are called `{twice}`"));
        }
        let unknown =
            self.options.types.keys().chain(self.options.columns.iter().flatten()).find(|name| !names.contains(name));
        if let Some(name) = unknown {
            return Err(ReadError::NoColumn { path: path.to_owned(), name: name.clone(), candidates: names });
        }
        match &self.header {
            None => {
                self.kinds.resize(names.len(), Kind::Missing);
                self.header = Some(names.clone());
                Ok(names)
            }
            Some(header) if *header == names => Ok(names),
            Some(header) => fail(format!("the header is not that of the files before: {}", header.join(", "))),
        }
    }

    fn emit(&mut self, path: &Path, header: &[String], part: &mut CsvPart) -> Result<(), Stop> {
        let first = self.shaper.schema.get().is_none();
        let mut fields = Vec::with_capacity(header.len());
        let mut arrays = Vec::with_capacity(header.len());
        for (index, (name, raw)) in header.iter().zip(&part.columns).enumerate() {
            let wanted = self.options.types.get(name).map(arrow_type);
            if first && wanted.is_none() {
                self.kinds[index] = self.kinds[index].join(raw.kind());
            }
            let to = wanted.clone().unwrap_or_else(|| self.kinds[index].arrow());
            let array = match raw.parse(&to, wanted.is_none()) {
                // A column that was all missing so far has no type yet.
                Ok(_) if wanted.is_none() && self.kinds[index] == Kind::Missing && raw.kind() != Kind::Missing => {
                    return Err(Stop::Widen { column: index, kind: raw.kind() });
                }
                Ok(array) => array,
                Err(misfit) => {
                    let line = part.lines.get(misfit.row).copied();
                    if wanted.is_none() && to != ArrowType::Utf8 {
                        return Err(Stop::Widen { column: index, kind: raw.kind() });
                    }
                    let message = if to == ArrowType::Utf8 {
                        format!(
                            "column `{name}` is not UTF-8 (`{}`); convert the file, for instance with iconv",
                            misfit.text
                        )
                    } else {
                        let wanted = self.options.types.get(name).map_or_else(String::new, ToString::to_string);
                        format!("column `{name}`: `{}` is not {wanted}, the type given for it", misfit.text)
                    };
                    return Err(ReadError::content(path, line, message).into());
                }
            };
            fields.push(ArrowField::new(name, to, true));
            arrays.push(array);
        }
        let schema = Arc::new(ArrowSchema::new(fields));
        self.shaper.emit(path, &schema, arrays, self.sink)?;
        part.lines.clear();
        part.columns.iter_mut().for_each(RawColumn::clear);
        Ok(())
    }
}

struct CsvPart {
    lines: Vec<u64>,
    columns: Vec<RawColumn>,
}

struct Record<'a> {
    line: u64,
    bytes: &'a [u8],
    ends: &'a [usize],
}

/// Records of a CSV file, one at a time.
struct Records<'a> {
    path: &'a Path,
    input: &'a mut dyn Read,
    reader: csv_core::Reader,
    buffer: Vec<u8>,
    filled: usize,
    used: usize,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Quotes in the file so far: where all are closed, they are even.
    quotes: usize,
}

impl<'a> Records<'a> {
    fn new(path: &'a Path, input: &'a mut dyn Read, delimiter: u8) -> Self {
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
            quotes: 0,
        }
    }

    fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        let line = self.reader.line();
        let (mut written, mut fields) = (0, 0);
        loop {
            if self.used == self.filled {
                self.filled = self.input.read(&mut self.buffer).map_err(ReadError::io(self.path))?;
                self.used = 0;
                self.quotes += memchr::memchr_iter(b'"', &self.buffer[..self.filled]).count();
                let open = self.filled == 0 && self.quotes % 2 == 1 && self.bytes[..written].contains(&b'\n');
                if open {
                    let message = "a quote is opened here and never closed";
                    return Err(ReadError::content(self.path, Some(line), message));
                }
            }
            let input = &self.buffer[self.used..self.filled];
            let (result, read, wrote, ended) =
                self.reader.read_record(input, &mut self.bytes[written..], &mut self.ends[fields..]);
            self.used += read;
            written += wrote;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.bytes.len() >= RECORD_BYTES => {
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
