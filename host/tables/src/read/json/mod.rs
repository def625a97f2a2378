//! NDJSON: an object on each line, all objects together one table.
//!
//! The columns are the names in all objects, in alphabetical order: an object has no order.
//! Names and types are taken from the first block of lines, which mostly holds to the end. If
//! it does not, all lines are examined for names and types, and then read again. So the table
//! is that of the whole file, and memory holds few blocks at a time.

mod columns;
mod kind;
mod lexer;
mod lines;

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema};
use millrace_threads::{Threads, lock};
use millrace_types::{Schema, bounds};
use serde_json::Value;

use super::columnar::selected;
use super::error::ReadError;
use super::open::open;
use super::options::{PART_ROWS, ReadOptions};
use super::part_id::PartId;
use super::predicate::{Batch, named};
use super::reader::{Peek, Reader};
use super::shaper::Shaper;
use super::sink::Sink;
use super::text::blocks::{Stop as BlocksStop, each_block};
use super::text::split::{Block, Splitter};
use crate::column::{arrow_type, field_from_arrow, type_from_arrow};

use columns::{Column, Misfit, NotGiven};
use kind::{JsonKind, Kinds, Names, Unlooked, join_all, kinds_of};
use lexer::{Lexer, NotJson};
use lines::{line_at, not_json, unmarked, utf8, written};

/// Objects from which the columns are guessed.
const PEEKED: usize = 1000;

/// Values of a part, including missing ones: a line may have few of many names.
const CELLS: usize = 32 << 20;

/// The columns are not as guessed: all lines must be examined.
struct Unexpected;

type Stop = BlocksStop<Unexpected>;

/// The reader of NDJSON.
pub(super) struct Ndjson;

impl Reader for Ndjson {
    fn peek(&self, path: &Path, options: &ReadOptions) -> Peek {
        let schema = guess(path, options).and_then(|schema| selected(options, schema));
        schema.map_or(Peek::Unknown, Peek::Guess)
    }

    fn read(
        &self,
        files: &[PathBuf],
        options: &ReadOptions,
        threads: &Threads,
        sink: &dyn Sink,
    ) -> Result<Schema, ReadError> {
        let named = named(options);
        let asked = options.columns.as_ref().map(|columns| {
            let names = columns.iter().chain(options.types.keys()).chain(&named);
            names.cloned().collect()
        });
        let shaper = Shaper::new(options);
        let mut table = LineReader { options, sink, threads, named, asked, shaper, fields: None, is_certain: false };
        match table.files(files) {
            Ok(()) => table.finish(files),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Again(Unexpected)) => {
                sink.restart();
                let fields = Some(table.fields_of(&table.all_kinds(files)?));
                let mut table = LineReader { shaper: Shaper::new(options), fields, is_certain: true, ..table };
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
}

/// The likely schema of a file, from its first objects.
fn guess(path: &Path, options: &ReadOptions) -> Option<Schema> {
    let mut guessed = None;
    let peeked = open(path, &mut |input| {
        let mut splitter = Splitter::lines(path, input);
        if let Some(block) = splitter.next(PEEKED)? {
            guessed = kinds_of(unmarked(&block), PEEKED, None).ok();
        }
        Ok(())
    });
    peeked.ok()?;
    let field = |name: &[u8], kind: JsonKind| {
        let name = std::str::from_utf8(name).ok()?;
        let to = options.types.get(name).map_or_else(|| kind.arrow(), arrow_type);
        field_from_arrow(&ArrowField::new(name, to, true)).ok()
    };
    Some(Schema { fields: guessed?.iter().map(|(name, kind)| field(name, *kind)).collect::<Option<_>>()? })
}

/// A name in the objects, which may be a column of the table.
struct Field {
    name: String,
    kind: JsonKind,
    given: Option<ArrowType>,
    /// Whether it is a column of the table.
    is_wanted: bool,
    /// Whether its values are needed, and not only its type.
    is_kept: bool,
}

fn too_many(path: &Path) -> ReadError {
    let message = format!("its objects have more than {} names, the maximum number of columns", bounds::COLUMNS);
    ReadError::content(path, None, message)
}

struct LineReader<'a> {
    options: &'a ReadOptions,
    sink: &'a dyn Sink,
    threads: &'a Threads,
    /// The columns that the filter names.
    named: HashSet<String>,
    /// All names that the options mention; `None` if every name is selected.
    asked: Option<HashSet<String>>,
    shaper: Shaper<'a>,
    /// In the order of their names, once they are known.
    fields: Option<Vec<Field>>,
    /// Whether the fields are from all lines: then a value that does not fit is an error.
    is_certain: bool,
}

/// Why an object does not fit the columns.
enum Unfit {
    NotJson,
    /// It has a name that is not a column.
    Name,
    /// The value of this column does not fit it.
    Value(usize, Misfit),
}

impl From<NotJson> for Unfit {
    fn from(_: NotJson) -> Self {
        Self::NotJson
    }
}

/// A block that is being read into columns.
struct BlockLines<'a> {
    /// The number of the file.
    number: u64,
    path: &'a Path,
    block: &'a Block,
    /// Its lines up to the first that is not UTF-8.
    lines: &'a [u8],
}

/// A part that is being read.
struct PartSoFar {
    columns: Vec<Option<Column>>,
    rows: usize,
    /// Rows of the block in earlier pieces.
    before: usize,
    piece: usize,
}

impl LineReader<'_> {
    fn fields_of(&self, kinds: &Kinds) -> Vec<Field> {
        let field = |name: &[u8], kind: JsonKind| {
            let name = String::from_utf8_lossy(name).into_owned();
            let is_named = self.named.contains(&name);
            Field {
                given: self.options.types.get(&name).map(arrow_type),
                is_wanted: is_named || self.options.columns.as_ref().is_none_or(|columns| columns.contains(&name)),
                is_kept: is_named || self.sink.wants(&name),
                name,
                kind,
            }
        };
        kinds.iter().map(|(name, kind)| field(name, *kind)).collect()
    }

    /// The kinds of all names, from all lines.
    fn all_kinds(&self, files: &[PathBuf]) -> Result<Kinds, ReadError> {
        let kinds = Mutex::new(Kinds::new());
        for path in files {
            open(path, &mut |input| {
                let mut splitter = Splitter::lines(path, input);
                let examine = |block: &Block| {
                    let more = self.kinds(path, block)?;
                    let mut kinds = lock(&kinds);
                    join_all(&mut kinds, more);
                    if kinds.len() > bounds::COLUMNS { Err(too_many(path).into()) } else { Ok(()) }
                };
                let rows = self.options.part_rows.max(1);
                let examined = each_block::<Unexpected>(path, None, &mut splitter, rows, self.threads, examine);
                examined.map_err(|stop| match stop {
                    Stop::Error(error) => error,
                    Stop::Again(Unexpected) => too_many(path),
                })
            })?;
        }
        Ok(kinds.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The kinds of all names, from the lines of a block.
    fn kinds(&self, path: &Path, block: &Block) -> Result<Kinds, ReadError> {
        let (lines, invalid) = utf8(path, block);
        let kinds = kinds_of(lines, usize::MAX, self.asked.as_ref()).map_err(|error| match error {
            Unlooked::NotJson(at) => not_json(path, block, lines, at),
            Unlooked::TooMany => too_many(path),
        })?;
        invalid.map_or(Ok(kinds), Err)
    }

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
                let known = guess(&path, self.options).into_iter().flat_map(|schema| schema.fields);
                let candidates = known.map(|field| field.name.to_string()).collect();
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
            self.fields = Some(self.fields_of(&self.kinds(path, &block)?));
            first = Some(block);
        }
        let table = &*self;
        each_block(path, first, &mut splitter, rows, self.threads, |block| table.block(number, path, block))
    }

    fn block(&self, number: u64, path: &Path, block: &Block) -> Result<(), Stop> {
        let (lines, invalid) = utf8(path, block);
        let at = BlockLines { number, path, block, lines };
        let fields = self.fields.as_deref().unwrap_or_default();
        let wanted = fields.iter().filter(|field| field.is_wanted).count();
        let most = (CELLS / wanted.max(1)).clamp(1, self.options.part_rows.max(1));
        // An object and its line end have at least three bytes.
        let room = most.min(PART_ROWS).min(lines.len() / 3 + 1);
        let column =
            |field: &Field| field.is_wanted.then(|| Column::new(field.kind, field.given.as_ref(), field.is_kept, room));
        let columns = || fields.iter().map(column).collect();
        let mut part = PartSoFar { columns: columns(), rows: 0, before: 0, piece: 0 };
        let mut names = Names::new(fields.iter().map(|field| field.name.as_bytes()));
        let mut lexer = Lexer::new(lines);
        loop {
            let start = lexer.clone();
            let stop = |unfit: Unfit, lexer: &Lexer<'_>| match unfit {
                Unfit::NotJson => Stop::Error(not_json(path, block, lines, lexer.at())),
                Unfit::Name => Stop::Again(Unexpected),
                Unfit::Value(found, misfit) => self.misfit(&at, lexer.at(), &fields[found], &misfit),
            };
            if !lexer.object().map_err(|error| stop(error.into(), &lexer))? {
                break;
            }
            if part.rows == most {
                let (before, piece) = (part.before + part.rows, part.piece + 1);
                let next = PartSoFar { columns: columns(), rows: 0, before, piece };
                self.emit(&at, std::mem::replace(&mut part, next))?;
            }
            match self.object(&mut lexer, &mut names, &mut part) {
                Err(Unfit::Value(..)) => {
                    lexer = start;
                    self.last_of_each(&mut lexer, &mut names, &mut part).map_err(|unfit| stop(unfit, &lexer))?;
                }
                done => done.map_err(|unfit| stop(unfit, &lexer))?,
            }
            part.rows += 1;
        }
        invalid.map_or(Ok(()), Err)?;
        if part.rows > 0 || part.piece == 0 { self.emit(&at, part) } else { Ok(()) }
    }

    /// Reads the object that the lexer has entered.
    #[inline]
    fn object(&self, lexer: &mut Lexer<'_>, names: &mut Names, part: &mut PartSoFar) -> Result<(), Unfit> {
        let mut index = 0;
        while let Some(member) = lexer.member()? {
            match names.find(index, &member.name) {
                Some(found) => {
                    if let Some(Some(column)) = part.columns.get_mut(found) {
                        if column.rows() > part.rows {
                            column.pop();
                        }
                        column.push(part.rows, &member).map_err(|misfit| Unfit::Value(found, misfit))?;
                    }
                }
                None => self.other(names, &member.name)?,
            }
            index += 1;
        }
        Ok(())
    }

    /// Handles a name that is not a column: unless the options ask for it, it is known from now
    /// on.
    #[cold]
    fn other(&self, names: &mut Names, name: &[u8]) -> Result<(), Unfit> {
        let is_asked = |asked: &HashSet<String>| asked.iter().any(|asked| asked.as_bytes() == name);
        if self.asked.as_ref().is_none_or(is_asked) {
            return Err(Unfit::Name);
        }
        names.add(name);
        Ok(())
    }

    /// Reads the next object again, after one of its values did not fit: the name may occur
    /// several times, and then the last value counts.
    #[cold]
    fn last_of_each(&self, lexer: &mut Lexer<'_>, names: &mut Names, part: &mut PartSoFar) -> Result<(), Unfit> {
        lexer.object()?;
        let mut last = BTreeMap::new();
        let mut index = 0;
        while let Some(member) = lexer.member()? {
            match names.find(index, &member.name) {
                Some(found) => drop(last.insert(found, member)),
                None => self.other(names, &member.name)?,
            }
            index += 1;
        }
        part.columns.iter_mut().flatten().filter(|column| column.rows() > part.rows).for_each(Column::pop);
        for (found, member) in last {
            if let Some(Some(column)) = part.columns.get_mut(found) {
                column.push(part.rows, &member).map_err(|misfit| Unfit::Value(found, misfit))?;
            }
        }
        Ok(())
    }

    fn emit(&self, at: &BlockLines<'_>, part: PartSoFar) -> Result<(), Stop> {
        let PartSoFar { columns, rows, before, piece } = part;
        let fields = self.fields.as_deref().unwrap_or_default();
        let (mut arrow_fields, mut arrays) = (Vec::new(), Vec::new());
        for (field, column) in fields.iter().zip(columns) {
            let Some(mut column) = column else { continue };
            column.fill(rows);
            arrow_fields.push(ArrowField::new(&field.name, column.arrow(), true));
            arrays.push(column.finish().map_err(|NotGiven { row, text }| match self.is_certain {
                true => {
                    let wanted = self.options.types.get(&field.name).map_or_else(String::new, ToString::to_string);
                    let line = line_of(at, before + row);
                    Stop::Error(ReadError::Type {
                        path: at.path.to_owned(),
                        line,
                        name: field.name.clone(),
                        text,
                        wanted,
                    })
                }
                false => Stop::Again(Unexpected),
            })?);
        }
        let batch = Batch { rows, schema: Arc::new(ArrowSchema::new(arrow_fields)), arrays };
        let id = PartId::new(at.number, at.block.number as usize, piece);
        self.shaper.emit_at(id, at.path, batch, self.sink).map_err(|error| match error {
            ReadError::Sink(_) => error.into(),
            // Without certainty, the guess may be what is wrong.
            _ if !self.is_certain => Stop::Again(Unexpected),
            _ => error.into(),
        })
    }

    /// Reports a value that does not fit, in the object that ends at `end`.
    #[cold]
    fn misfit(&self, at: &BlockLines<'_>, end: usize, field: &Field, misfit: &Misfit) -> Stop {
        if !self.is_certain {
            return Stop::Again(Unexpected);
        }
        let BlockLines { path, block, lines, .. } = *at;
        // `end` may be after the end of the line.
        let end = end - usize::from(lines[..end].ends_with(b"\n"));
        let (number, line) = line_at(block, lines, end);
        let object: serde_json::Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
        let value = object.get(&field.name).unwrap_or(&Value::Null);
        let name = &field.name;
        let message = match misfit {
            Misfit::Digits if field.kind == JsonKind::Huge && field.given.is_none() => {
                let written = written(line, name).unwrap_or_default();
                format!("column `{name}`: `{written}` has more digits than a 64-bit integer holds")
            }
            Misfit::Digits => {
                let written = written(line, name).unwrap_or_default();
                format!("column `{name}` has floats, and `{written}` has more digits than a float holds")
            }
            Misfit::Kind if field.kind == JsonKind::Nested => {
                format!(
                    "column `{name}` is {} here, which no column can hold: select other columns with `columns`, or read it as text with `types`",
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
            return Err(ReadError::content(&path, None, "it has no object with a value"));
        }
        if !self.shaper.is_known() {
            let wanted = fields.iter().filter(|field| field.is_wanted);
            let arrow = |field: &Field| field.given.clone().unwrap_or_else(|| field.kind.arrow());
            let wanted: Vec<_> = wanted.map(|field| ArrowField::new(&field.name, arrow(field), true)).collect();
            self.shaper.emit(&path, Batch::empty(Arc::new(ArrowSchema::new(wanted))), self.sink)?;
        }
        self.shaper.finish(files.first(), "the file is empty")
    }
}

/// The line number of the object with index `row` in a block.
fn line_of(at: &BlockLines<'_>, row: usize) -> Option<u64> {
    let lines = (at.block.line..).zip(at.lines.split(|byte| *byte == b'\n'));
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).nth(row).map(|(number, _)| number)
}

fn type_name(data_type: &ArrowType) -> String {
    type_from_arrow(data_type).map_or_else(|_| data_type.to_string(), |ours| ours.to_string())
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
