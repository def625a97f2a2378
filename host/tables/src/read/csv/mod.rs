//! CSV, by RFC 4180, with a header line.
//!
//! One thread at a time finds where records end; the others parse the blocks that it found. A
//! part has a fixed number of lines, whichever thread reads it. Types are those of the first
//! part; if a later value does not fit, the file is read again with wider types. So memory
//! holds few parts at a time, and the types are those of the whole file.

mod records;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema};
use millrace_threads::Threads;
use millrace_types::{Schema, bounds};

use super::columnar::selected;
use super::error::{ReadError, SinkError};
use super::open::open;
use super::options::{PART_ROWS, ReadOptions};
use super::part_id::PartId;
use super::predicate::{Batch, named};
use super::reader::{Peek, Reader};
use super::shaper::Shaper;
use super::sink::{CollectColumns, PartSink, Sink};
use super::text::blocks::{self, each_block};
use super::text::infer::{RawColumn, TextKind};
use super::text::split::{Block, Splitter};
use super::text::typed::{NotPlain, Typed, Wanted};
use crate::column::{arrow_type, field_from_arrow};
use records::{Record, Records};

/// A part is cut early when one of its columns has as much text.
const PART_BYTES: usize = 256 << 20;
/// This column needs a wider type: the file is read again.
struct Widen {
    column: usize,
    kind: TextKind,
}

type Stop = blocks::Stop<Widen>;

/// The reader of CSV.
pub(super) struct Csv;

impl Reader for Csv {
    fn peek(&self, path: &Path, options: &ReadOptions) -> Peek {
        let found: Vec<Schema> =
            peek(path, options).into_iter().filter_map(|schema| selected(options, schema)).collect();
        if found.is_empty() { Peek::Unknown } else { Peek::Candidates(found) }
    }

    fn read(
        &self,
        files: &[PathBuf],
        options: &ReadOptions,
        threads: &Threads,
        sink: &dyn Sink,
    ) -> Result<Schema, ReadError> {
        let read = match converge(files, options, threads, sink, Vec::new()) {
            // The filter may fit the types of the whole file.
            Err(ReadError::Filter { .. }) => {
                let all = ReadOptions { filter: None, columns: None, ..options.clone() };
                let (kinds, _) = converge(files, &all, threads, &Nowhere, Vec::new())?;
                sink.restart();
                converge(files, options, threads, sink, kinds)
            }
            read => read,
        };
        read.map(|(_, schema)| schema)
    }
}

/// Reads until the types hold for all values, and returns them.
fn converge(
    files: &[PathBuf],
    options: &ReadOptions,
    threads: &Threads,
    sink: &dyn Sink,
    mut kinds: Vec<TextKind>,
) -> Result<(Vec<TextKind>, Schema), ReadError> {
    loop {
        let mut table = CsvTable { options, shaper: Shaper::new(options), header: None, kinds, sink };
        let read = (0u64..).zip(files).try_for_each(|(number, path)| table.file(number, path, threads));
        match read {
            Ok(()) => {
                let CsvTable { shaper, kinds, .. } = table;
                let schema = shaper.finish(files.first(), "the file is empty: there is not even a header line");
                return schema.map(|schema| (kinds, schema));
            }
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Again(Widen { column, kind })) => {
                kinds = table.kinds;
                // Each turn widens a column, and there are few steps up to text.
                kinds[column] = kinds[column].join(kind);
                sink.restart();
            }
        }
    }
}

/// Records from which the types are guessed.
const PEEKED: usize = 1000;

/// The schemas that the file may have, by the header and the first records.
fn peek(path: &Path, options: &ReadOptions) -> Vec<Schema> {
    let mut found = Vec::new();
    let peeked = open(path, &mut |input| {
        let mut records = Records::new(path, input, options.delimiter, 1);
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
                    *kind = kind.join(TextKind::of(field));
                }
                start = *end;
            }
        }
        for widening in [|kind| kind, TextKind::wider, |_| TextKind::Text] {
            let fields = names.iter().zip(&kinds).map(|(name, kind)| {
                let to = options.types.get(name).map_or_else(|| widening(*kind).arrow(), arrow_type);
                field_from_arrow(&ArrowField::new(name, to, true)).ok()
            });
            found.extend(fields.collect::<Option<_>>().map(|fields| Schema { fields }));
        }
        Ok(())
    });
    found.dedup();
    if peeked.is_ok() { found } else { Vec::new() }
}

/// Discards everything.
struct Nowhere;

impl Sink for Nowhere {
    fn begin<'s>(&'s self, _: PartId, _: &Schema, _: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        Ok(Box::new(CollectColumns::new(|_| Ok(()))))
    }

    fn restart(&self) {}
}

struct CsvTable<'a> {
    options: &'a ReadOptions,
    shaper: Shaper<'a>,
    header: Option<Vec<String>>,
    /// The kinds of the columns, as far as known.
    kinds: Vec<TextKind>,
    sink: &'a dyn Sink,
}

/// What the parsers of a file have in common.
struct Parser<'a> {
    number: u64,
    path: &'a Path,
    options: &'a ReadOptions,
    header: &'a [String],
    /// The columns that are columns of the table.
    wanted: Vec<bool>,
    /// Of those, the ones whose values are kept; of the others only the types are determined.
    kept: Vec<bool>,
    missing: Vec<&'a [u8]>,
    shaper: &'a Shaper<'a>,
    sink: &'a dyn Sink,
}

impl CsvTable<'_> {
    fn file(&mut self, number: u64, path: &Path, threads: &Threads) -> Result<(), Stop> {
        let mut stop = None;
        open(path, &mut |input| {
            match self.records(number, path, input, threads) {
                Ok(()) => {}
                Err(Stop::Error(error)) => return Err(error),
                Err(widen) => stop = Some(widen),
            }
            Ok(())
        })?;
        stop.map_or(Ok(()), Err)
    }

    fn records(
        &mut self,
        number: u64,
        path: &Path,
        input: &mut (dyn Read + Send),
        threads: &Threads,
    ) -> Result<(), Stop> {
        let mut splitter = Splitter::new(path, input, self.options.delimiter);
        let header = loop {
            let Some(first) = splitter.next(1)? else { return Ok(()) };
            let mut bytes = first.bytes.as_slice();
            let line_end = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            if line_end.strip_suffix(b"\r").unwrap_or(line_end).contains(&b'\r') && !bytes.contains(&b'"') {
                let message = "a line ends with a carriage return alone; convert the line ends, for instance with `tr '\\r' '\\n'`";
                return Err(ReadError::content(path, Some(first.line), message).into());
            }
            let mut records = Records::new(path, &mut bytes, self.options.delimiter, first.line);
            // Empty lines before the header are skipped.
            if let Some(header) = records.next()? {
                break self.check_header(path, header)?;
            }
        };
        let options = self.options;
        // An error about an unknown column in the filter lists all columns.
        let all = options.columns.is_none() || options.filter.is_some();
        let named = named(options);
        let asked = |name: &String| options.columns.iter().flatten().any(|column| column == name);
        let parser = Parser {
            number,
            path,
            options,
            wanted: header.iter().map(|name| all || asked(name)).collect(),
            kept: header.iter().map(|name| named.contains(name) || self.sink.wants(name)).collect(),
            header: &header,
            missing: options.missing.iter().map(|text| text.as_bytes()).collect(),
            shaper: &self.shaper,
            sink: self.sink,
        };
        let rows = options.part_rows.max(1);
        // The first part decides the types.
        let Some(block) = splitter.next(rows)? else {
            return parser.empty(&self.kinds);
        };
        let is_known = self.shaper.is_known();
        parser.block(&block, &mut self.kinds, is_known)?;
        let kinds = &self.kinds;
        each_block(path, None, &mut splitter, rows, threads, |block| parser.block(block, &mut kinds.to_vec(), true))
    }

    fn check_header(&mut self, path: &Path, record: Record<'_>) -> Result<Vec<String>, ReadError> {
        let fail = |message: String| Err(ReadError::content(path, Some(record.line), message));
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
                self.kinds.resize(names.len(), TextKind::Missing);
                self.header = Some(names.clone());
                Ok(names)
            }
            Some(header) if *header == names => Ok(names),
            Some(header) => fail(format!("the header is not that of the files before: {}", header.join(", "))),
        }
    }
}

impl Parser<'_> {
    /// A file without rows: its schema alone.
    fn empty(&self, kinds: &[TextKind]) -> Result<(), Stop> {
        let part = CsvPart::new(self.header.len());
        self.emit(PartId::new(self.number, 0, 0), &part, &mut kinds.to_vec(), self.shaper.is_known())
    }

    /// Parses a block. Unless the types are known, it decides them.
    fn block(&self, block: &Block, kinds: &mut [TextKind], mut is_known: bool) -> Result<(), Stop> {
        if is_known && let Ok(found) = self.typed(block, kinds) {
            return Ok(found?);
        }
        let has_quotes = memchr::memchr2(b'"', b'\r', &block.bytes).is_some();
        let mut part = CsvPart::new(self.header.len());
        let mut id = PartId::new(self.number, block.number as usize, 0);
        let mut emitted = false;
        let mut is_full = |part: &mut CsvPart, largest: usize| -> Result<(), Stop> {
            if part.lines.len() >= self.options.part_rows || largest >= PART_BYTES {
                self.emit(id, part, kinds, is_known)?;
                part.clear();
                (emitted, is_known) = (true, true);
                id = id.next_piece();
            }
            Ok(())
        };
        if !has_quotes {
            self.plain(block, &mut part, &mut is_full)?;
        } else {
            let mut bytes = block.bytes.as_slice();
            let mut records = Records::new(self.path, &mut bytes, self.options.delimiter, block.line);
            while let Some(Record { line, bytes, ends }) = records.next()? {
                let mut start = 0;
                let fields = ends.iter().map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]);
                let largest = self.record(line, fields, &mut part)?;
                is_full(&mut part, largest)?;
            }
        }
        if !part.lines.is_empty() || !emitted {
            self.emit(id, &part, kinds, is_known)?;
        }
        Ok(())
    }

    /// Parses a block straight into columns, if it has no quotes and all values fit.
    fn typed(&self, block: &Block, kinds: &[TextKind]) -> Result<Result<(), ReadError>, NotPlain> {
        let wanted = self.header.iter().enumerate().map(|(index, name)| {
            let given = self.options.types.get(name).map(arrow_type);
            let inferred = given.is_none().then_some(kinds[index]);
            let to = self.wanted[index].then(|| given.unwrap_or_else(|| kinds[index].arrow()));
            Wanted { to, inferred, is_kept: self.kept[index] }
        });
        let mut typed =
            Typed::new(wanted.collect(), self.options.delimiter, &self.missing, self.options.part_rows.min(PART_ROWS));
        typed.block(&block.bytes)?;
        if typed.largest() >= PART_BYTES || typed.rows() > self.options.part_rows {
            return Err(NotPlain);
        }
        let (rows, mut fields, mut arrays) = (typed.rows(), Vec::new(), Vec::new());
        for (index, to, array) in typed.finish()? {
            fields.push(ArrowField::new(&self.header[index], to, true));
            arrays.push(array);
        }
        let schema = Arc::new(ArrowSchema::new(fields));
        let id = PartId::new(self.number, block.number as usize, 0);
        Ok(self.shaper.emit_at(id, self.path, Batch { rows, schema, arrays }, self.sink))
    }

    /// Parses a block without quotes: its fields lie between the delimiters.
    fn plain(
        &self,
        block: &Block,
        part: &mut CsvPart,
        is_full: &mut dyn FnMut(&mut CsvPart, usize) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut start = 0;
        for (line, end) in (block.line..).zip(memchr::memchr_iter(b'\n', &block.bytes).chain([block.bytes.len()])) {
            let record = &block.bytes[start.min(end)..end];
            start = end + 1;
            if record.is_empty() {
                continue; // an empty line, or nothing behind the last line end
            }
            let mut from = 0;
            let cuts = memchr::memchr_iter(self.options.delimiter, record).chain([record.len()]);
            let fields = cuts.map(|cut| &record[std::mem::replace(&mut from, cut + 1)..cut]);
            let largest = self.record(line, fields, part)?;
            is_full(part, largest)?;
        }
        Ok(())
    }

    /// Adds a record to a part. Returns the bytes of the largest column.
    fn record<'f>(
        &self,
        line: u64,
        fields: impl Iterator<Item = &'f [u8]>,
        part: &mut CsvPart,
    ) -> Result<usize, ReadError> {
        let width = self.header.len();
        let (mut found, mut largest) = (0, 0);
        for field in fields {
            if found < width && self.wanted[found] {
                let column = &mut part.columns[found];
                column.push(field, self.missing.contains(&field));
                largest = largest.max(column.bytes());
            }
            found += 1;
        }
        if found != width {
            let message = format!("{found} fields, and the header has {width}");
            return Err(ReadError::content(self.path, Some(line), message));
        }
        part.lines.push(line);
        Ok(largest)
    }

    fn emit(&self, id: PartId, part: &CsvPart, kinds: &mut [TextKind], is_known: bool) -> Result<(), Stop> {
        let mut fields = Vec::with_capacity(self.header.len());
        let mut arrays = Vec::with_capacity(self.header.len());
        for (index, (name, raw)) in self.header.iter().zip(&part.columns).enumerate() {
            if !self.wanted[index] {
                continue;
            }
            let wanted = self.options.types.get(name).map(arrow_type);
            if !is_known && wanted.is_none() {
                kinds[index] = kinds[index].join(raw.kind());
            }
            let to = wanted.clone().unwrap_or_else(|| kinds[index].arrow());
            let array = match raw.parse(&to, wanted.is_none()) {
                // A column that was all missing so far has no type yet.
                Ok(_) if wanted.is_none() && kinds[index] == TextKind::Missing && raw.kind() != TextKind::Missing => {
                    return Err(Stop::Again(Widen { column: index, kind: raw.kind() }));
                }
                Ok(array) => array,
                Err(misfit) => {
                    let line = part.lines.get(misfit.row).copied();
                    if wanted.is_none() && to != ArrowType::Utf8 {
                        return Err(Stop::Again(Widen { column: index, kind: raw.kind() }));
                    }
                    if to == ArrowType::Utf8 {
                        let message = format!(
                            "column `{name}` is not UTF-8 (`{}`); convert the file, for instance with iconv",
                            misfit.text
                        );
                        return Err(ReadError::content(self.path, line, message).into());
                    }
                    let wanted = self.options.types.get(name).map_or_else(String::new, ToString::to_string);
                    let (path, name, text) = (self.path.to_owned(), name.to_owned(), misfit.text);
                    return Err(ReadError::Type { path, line, name, text, wanted }.into());
                }
            };
            fields.push(ArrowField::new(name, to, true));
            arrays.push(array);
        }
        let schema = Arc::new(ArrowSchema::new(fields));
        Ok(self.shaper.emit_at(id, self.path, Batch::new(schema, arrays), self.sink)?)
    }
}

/// A part that is being read.
struct CsvPart {
    lines: Vec<u64>,
    columns: Vec<RawColumn>,
}

impl CsvPart {
    fn new(width: usize) -> Self {
        Self { lines: Vec::new(), columns: (0..width).map(|_| RawColumn::default()).collect() }
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.columns.iter_mut().for_each(RawColumn::clear);
    }
}
