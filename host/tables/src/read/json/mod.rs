//! NDJSON: an object on each line, all of them together one table.
//!
//! Columns are the names of all objects, in the order of the alphabet: an object has none. What
//! they are is taken from the first block of lines. Mostly that holds to the end; where it
//! does not, all lines are looked at for what they are, and read once more. So the table is
//! that of the whole file, and memory holds few blocks at a time.

mod columns;
mod kind;
mod lexer;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema};
use millrace_types::{Schema, bounds};
use serde_json::Value;

use super::blocks::{Stop as BlocksStop, each_block};
use super::open::open;
use super::predicate::Batch;
use super::split::{Block, Splitter};
use super::threads::Threads;
use super::{PART_ROWS, ReadError, ReadOptions, Shaper, Sink, place_of};
use crate::column::{arrow_type, field_from_arrow};

use columns::{Column, Misfit};
use kind::{Kind, Kinds, Names, Unlooked, join_all, kinds_of};
use lexer::{Lexer, NotJson};

/// Objects that say what the columns probably are.
const PEEKED: usize = 1000;

/// The columns are not what was thought: all has to be looked at.
struct Unexpected;

type Stop = BlocksStop<Unexpected>;

pub(super) fn read(
    files: &[PathBuf],
    options: &ReadOptions,
    threads: &Threads,
    sink: &dyn Sink,
) -> Result<Schema, ReadError> {
    let mut table = Table { options, sink, threads, shaper: Shaper::new(options), fields: None, is_certain: false };
    match table.files(files) {
        Ok(()) => table.finish(files),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::Again(Unexpected)) => {
            sink.restart();
            let kinds = all_kinds(files, options, threads)?;
            let fields = Some(fields(&kinds, options, sink));
            let mut table = Table { shaper: Shaper::new(options), fields, is_certain: true, ..table };
            match table.files(files) {
                Ok(()) => table.finish(files),
                Err(Stop::Error(error)) => Err(error),
                Err(Stop::Again(Unexpected)) => {
                    let path = files.first().cloned().unwrap_or_default();
                    Err(ReadError::content(&path, None, "it changed while it was read: run again"))
                }
            }
        }
    }
}

/// The schema that it probably has, by the first objects.
pub(super) fn guess(path: &Path, options: &ReadOptions) -> Option<Schema> {
    let mut guessed = None;
    let looked = open(path, &mut |input| {
        let mut splitter = Splitter::lines(path, input);
        if let Some(block) = splitter.next(PEEKED)? {
            guessed = kinds_of(unmarked(&block), PEEKED).ok();
        }
        Ok(())
    });
    looked.ok()?;
    let field = |(name, kind): (&Box<[u8]>, &Kind)| {
        let name = std::str::from_utf8(name).ok()?;
        let to = options.types.get(name).map_or_else(|| kind.arrow(), arrow_type);
        field_from_arrow(&ArrowField::new(name, to, true)).ok()
    };
    Some(Schema { fields: guessed?.iter().map(field).collect::<Option<_>>()? })
}

/// A column that may come to be.
struct Field {
    name: String,
    kind: Kind,
    given: Option<ArrowType>,
    /// Whether it is a column of the table.
    is_wanted: bool,
    /// Of those, whether somebody wants its values, and not its type alone.
    is_kept: bool,
}

fn fields(kinds: &Kinds, options: &ReadOptions, sink: &dyn Sink) -> Vec<Field> {
    let field = |(name, kind): (&Box<[u8]>, &Kind)| {
        let name = String::from_utf8_lossy(name).into_owned();
        let is_asked = options.columns.as_ref().is_none_or(|columns| columns.contains(&name));
        let has_filter = options.filter.is_some();
        Field {
            given: options.types.get(&name).map(arrow_type),
            // A filter may ask for any column that can be one.
            is_wanted: is_asked || (has_filter && *kind != Kind::Nested),
            is_kept: has_filter || sink.wants(&name),
            name,
            kind: *kind,
        }
    };
    kinds.iter().map(field).collect()
}

/// What the columns are, by all lines.
fn all_kinds(files: &[PathBuf], options: &ReadOptions, threads: &Threads) -> Result<Kinds, ReadError> {
    let kinds = Mutex::new(Kinds::new());
    for path in files {
        open(path, &mut |input| {
            let mut splitter = Splitter::lines(path, input);
            let look = |block: &Block| {
                let more = look(path, block)?;
                let mut kinds = kinds.lock().unwrap_or_else(PoisonError::into_inner);
                join_all(&mut kinds, more);
                if kinds.len() > bounds::COLUMNS { Err(too_many(path).into()) } else { Ok(()) }
            };
            let looked = each_block::<Unexpected>(path, None, &mut splitter, options.part_rows.max(1), threads, look);
            looked.map_err(|stop| match stop {
                Stop::Error(error) => error,
                Stop::Again(Unexpected) => too_many(path),
            })
        })?;
    }
    Ok(kinds.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What the columns are, by the lines of a block.
fn look(path: &Path, block: &Block) -> Result<Kinds, ReadError> {
    let (lines, harm) = utf8(path, block);
    let kinds = kinds_of(lines, usize::MAX).map_err(|unlooked| match unlooked {
        Unlooked::NotJson(at) => not_json(path, block, lines, at),
        Unlooked::TooMany => too_many(path),
    })?;
    harm.map_or(Ok(kinds), Err)
}

fn too_many(path: &Path) -> ReadError {
    let message =
        format!("its objects have more than {} names, and at most so many columns are taken", bounds::COLUMNS);
    ReadError::content(path, None, message)
}

struct Table<'a> {
    options: &'a ReadOptions,
    sink: &'a dyn Sink,
    threads: &'a Threads,
    shaper: Shaper<'a>,
    /// In the order of their names, once they are known.
    fields: Option<Vec<Field>>,
    /// Whether all lines were looked at for them: then what does not fit is a mistake.
    is_certain: bool,
}

impl Table<'_> {
    fn files(&mut self, files: &[PathBuf]) -> Result<(), Stop> {
        for (number, path) in (0u64..).zip(files) {
            let mut stop = None;
            open(path, &mut |input| {
                match self.file(number, path, input) {
                    Err(Stop::Error(error)) => return Err(error),
                    Err(again) => stop = Some(again),
                    Ok(()) => {}
                }
                Ok(())
            })?;
            stop.map_or(Ok(()), Err)?;
        }
        let fields = self.fields.as_deref().unwrap_or_default();
        let is_there = |name: &&String| fields.iter().any(|field| field.name == **name);
        let mut asked = self.options.types.keys().chain(self.options.columns.iter().flatten());
        match asked.find(|name| !is_there(name)) {
            None => Ok(()),
            Some(_) if !self.is_certain => Err(Stop::Again(Unexpected)),
            Some(name) => {
                let path = files.first().cloned().unwrap_or_default();
                let candidates = fields.iter().map(|field| field.name.clone()).collect();
                Err(ReadError::NoColumn { path, name: name.clone(), candidates }.into())
            }
        }
    }

    fn file(&mut self, number: u64, path: &Path, input: &mut (dyn Read + Send)) -> Result<(), Stop> {
        let mut splitter = Splitter::lines(path, input);
        let rows = self.options.part_rows.max(1);
        let mut first = None;
        if self.fields.is_none() {
            let Some(block) = splitter.next(rows)? else { return Ok(()) };
            self.fields = Some(fields(&look(path, &block)?, self.options, self.sink));
            first = Some(block);
        }
        let table = &*self;
        each_block(path, first, &mut splitter, rows, self.threads, |block| table.block(number, path, block))
    }

    fn block(&self, number: u64, path: &Path, block: &Block) -> Result<(), Stop> {
        let (lines, harm) = utf8(path, block);
        let fields = self.fields.as_deref().unwrap_or_default();
        let most = self.options.part_rows.min(PART_ROWS);
        let column = |field: &Field| {
            let column = || Column::new(field.kind, field.given.as_ref(), field.is_kept, most);
            field.is_wanted.then(column)
        };
        let mut columns: Vec<Option<Column>> = fields.iter().map(column).collect();
        let wanted = columns.iter().flatten().count();
        // Of other names nobody wants to know.
        let is_open = self.options.columns.is_none() || self.options.filter.is_some();
        let mut names = Names::new(fields.iter().map(|field| field.name.as_bytes()));
        let mut lexer = Lexer::new(lines);
        let mut rows = 0;
        let wrong = |lexer: &Lexer<'_>| Stop::Error(not_json(path, block, lines, lexer.at()));
        while lexer.object().map_err(|NotJson| wrong(&lexer))? {
            let (mut place, mut filled) = (0, 0);
            while let Some(member) = lexer.member().map_err(|NotJson| wrong(&lexer))? {
                match names.find(place, &member.name) {
                    None if is_open => return Err(Stop::Again(Unexpected)),
                    None => {}
                    Some(found) => {
                        if let Some(column) = &mut columns[found] {
                            if column.rows() > rows {
                                column.pop();
                                filled -= 1;
                            }
                            let at = || (path, block, lines, lexer.at());
                            column.push(&member).map_err(|misfit| self.misfit(at(), &fields[found], &misfit))?;
                            filled += 1;
                        }
                    }
                }
                place += 1;
            }
            rows += 1;
            if filled < wanted {
                columns.iter_mut().flatten().filter(|column| column.rows() < rows).for_each(Column::push_null);
            }
        }
        harm.map_or(Ok(()), Err)?;
        let (mut arrow_fields, mut arrays) = (Vec::with_capacity(wanted), Vec::with_capacity(wanted));
        for (field, column) in fields.iter().zip(columns) {
            let Some(column) = column else { continue };
            arrow_fields.push(ArrowField::new(&field.name, column.arrow(), true));
            arrays.push(column.finish().map_err(|(row, error)| match self.is_certain {
                true => Stop::Error(not_of_type(path, block, lines, row, field, &error)),
                false => Stop::Again(Unexpected),
            })?);
        }
        let batch = Batch { rows, schema: Arc::new(ArrowSchema::new(arrow_fields)), arrays };
        let emitted = self.shaper.emit_at(place_of(number, block.number as usize, 0), path, batch, self.sink);
        emitted.map_err(|error| match error {
            ReadError::Sink(_) => error.into(),
            // It may be at odds with a guess only.
            _ if !self.is_certain => Stop::Again(Unexpected),
            _ => error.into(),
        })
    }

    #[cold]
    fn misfit(&self, (path, block, lines, at): (&Path, &Block, &[u8], usize), field: &Field, misfit: &Misfit) -> Stop {
        if !self.is_certain {
            return Stop::Again(Unexpected);
        }
        let (number, line) = line_at(block, lines, at);
        let object: serde_json::Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
        let value = object.get(&field.name).unwrap_or(&Value::Null);
        let name = &field.name;
        let message = match misfit {
            Misfit::Digits => {
                let written = written(line, name).unwrap_or_default();
                format!("column `{name}` is of floats, and `{written}` has more digits than a float holds")
            }
            Misfit::Kind if field.kind == Kind::Nested => {
                format!(
                    "column `{name}` is {} here, which no column can be: choose the others with `columns`",
                    kind(value)
                )
            }
            Misfit::Kind => {
                format!("column `{name}` is {} here, and {} elsewhere", kind(value), type_name(&field.kind.arrow()))
            }
        };
        ReadError::content(path, Some(number), message).into()
    }

    fn finish(self, files: &[PathBuf]) -> Result<Schema, ReadError> {
        let path = files.first().cloned().unwrap_or_default();
        let fields = self.fields.unwrap_or_default();
        if fields.is_empty() {
            return Err(ReadError::content(&path, None, "there is no object with a value in it"));
        }
        if self.shaper.schema.get().is_none() {
            let wanted = fields.iter().filter(|field| field.is_wanted);
            let arrow = |field: &Field| field.given.clone().unwrap_or_else(|| field.kind.arrow());
            let wanted: Vec<_> = wanted.map(|field| ArrowField::new(&field.name, arrow(field), true)).collect();
            self.shaper.emit(&path, Batch::empty(Arc::new(ArrowSchema::new(wanted))), self.sink)?;
        }
        self.shaper.finish(files.first(), "the file is empty")
    }
}

/// Without the mark that some programs put before UTF-8.
fn unmarked(block: &Block) -> &[u8] {
    let lines = block.bytes.as_slice();
    if block.number == 0 { lines.strip_prefix(b"\xef\xbb\xbf").unwrap_or(lines) } else { lines }
}

/// The lines of a block; if there is one that is not UTF-8, those before it, and the error.
fn utf8<'b>(path: &Path, block: &'b Block) -> (&'b [u8], Option<ReadError>) {
    let lines = unmarked(block);
    match std::str::from_utf8(lines) {
        Ok(_) => (lines, None),
        Err(error) => {
            let good = memchr::memrchr(b'\n', &lines[..error.valid_up_to()]).map_or(0, |end| end + 1);
            let (number, _) = line_at(block, lines, good);
            let message = "it is not UTF-8; convert the file, for instance with iconv";
            (&lines[..good], Some(ReadError::content(path, Some(number), message)))
        }
    }
}

/// The line of a place: its number and what it holds. A place at a line's end belongs to it.
fn line_at<'b>(block: &Block, lines: &'b [u8], at: usize) -> (u64, &'b [u8]) {
    let at = at.min(lines.len());
    let before = &lines[..at];
    let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let end = memchr::memchr(b'\n', &lines[at..]).map_or(lines.len(), |end| at + end);
    (block.line + memchr::memchr_iter(b'\n', before).count() as u64, &lines[start..end])
}

#[cold]
fn not_json(path: &Path, block: &Block, lines: &[u8], at: usize) -> ReadError {
    let (number, line) = line_at(block, lines, at);
    let message = match serde_json::from_slice::<Value>(line) {
        Ok(_) => "it is not an object".to_owned(),
        Err(error) => {
            let message = error.to_string();
            let what = message.split(" at line").next().unwrap_or_default();
            format!("not JSON at column {}: {what}", error.column())
        }
    };
    ReadError::content(path, Some(number), message)
}

/// What is wrong with the value of a row of which the type was given.
fn not_of_type(
    path: &Path,
    block: &Block,
    lines: &[u8],
    row: usize,
    field: &Field,
    error: &dyn std::fmt::Display,
) -> ReadError {
    let filled = |(_, line): &(u64, &[u8])| !line.trim_ascii().is_empty();
    let lines = (block.line..).zip(lines.split(|byte| *byte == b'\n'));
    let Some((number, line)) = lines.filter(filled).nth(row) else {
        return ReadError::content(path, None, format!("not usable as JSON lines: {error}"));
    };
    let object: serde_json::Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let value = object.get(&field.name).unwrap_or(&Value::Null);
    let (name, to) = (&field.name, field.given.as_ref().unwrap_or(&ArrowType::Null));
    let is_of_kind = match to {
        ArrowType::Utf8 | ArrowType::Date32 | ArrowType::Timestamp(..) => value.is_string(),
        ArrowType::Boolean => value.is_boolean(),
        number if number.is_numeric() => value.is_number(),
        _ => true,
    };
    let message = if is_of_kind {
        format!("column `{name}`: `{}` is no {}", written(line, name).unwrap_or_default(), type_name(to))
    } else {
        format!("column `{name}` is {} here, and {} elsewhere", kind(value), type_name(to))
    };
    ReadError::content(path, Some(number), message)
}

/// A value as it is written: a reader of values loses digits.
fn written(line: &[u8], name: &str) -> Option<String> {
    let mut lexer = Lexer::new(line);
    lexer.object().ok()?;
    let mut written = None;
    while let Ok(Some(member)) = lexer.member() {
        if *member.name == *name.as_bytes() {
            written = Some(String::from_utf8_lossy(member.written).chars().take(60).collect());
        }
    }
    written
}

fn type_name(data_type: &ArrowType) -> String {
    crate::column::type_from_arrow(data_type).map_or_else(|_| data_type.to_string(), |ours| ours.to_string())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
