//! Files to parts: CSV, NDJSON, Parquet and Arrow IPC.
//!
//! A reader yields parts with one schema. What a part is follows from the
//! content alone (a row group or batch, a piece of a large one, or so many rows of text),
//! so that the same bytes give the same parts on any machine.

mod blocks;
mod csv;
mod infer;
mod ipc;
mod json;
mod open;
mod parquet;
mod predicate;
mod row_group;
mod shaper;
mod shared_file;
mod split;
mod typed;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::arrow::datatypes::{Field as ArrowField, FieldRef};
use millrace_types::{DataType, Schema};
use serde::{Deserialize, Serialize};

use crate::column::{ColumnBytes, ColumnError, field_from_arrow};
use crate::threads::Threads;

pub use infer::MISSING;
use shaper::Shaper;

/// What a source file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Format {
    /// Text with separators and a header line.
    Csv,
    /// A JSON object on each line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Ipc,
}

impl Format {
    /// The format that a file name tells, compression aside.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zip")).unwrap_or(&name);
        let (_, extension) = name.rsplit_once('.')?;
        Self::named(extension)
    }

    /// Whether a file says what its columns are, and holds each by itself: then a column
    /// can be read without the others.
    pub fn is_columnar(self) -> bool {
        matches!(self, Self::Parquet | Self::Ipc)
    }

    /// The format of a name, as written in a pipeline.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "csv" | "tsv" | "txt" => Self::Csv,
            "ndjson" | "jsonl" | "json" => Self::Ndjson,
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "ipc" | "feather" => Self::Ipc,
            _ => return None,
        })
    }
}

/// How to read a source. All of it, and the bytes of the files, decide what
/// comes out; the names of the files do not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadOptions {
    /// Of all files.
    pub format: Format,
    /// Which columns, in which order; all without.
    pub columns: Option<Vec<String>>,
    /// Which rows: an expression.
    pub filter: Option<String>,
    /// What counts as missing, in text files.
    pub missing: Vec<String>,
    /// Types that are not to be inferred.
    pub types: BTreeMap<String, DataType>,
    /// Rows of a part, in text files, and for row groups and batches that are larger.
    pub part_rows: usize,
    /// Between the fields of a CSV file.
    pub delimiter: u8,
}

/// Rows of a part where the file does not say: a column of 8-byte values is
/// then 1 MiB, which fits a core's cache.
pub const PART_ROWS: usize = 131_072;

/// A source that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {message}", place(path, *line))]
    Content {
        /// The file.
        path: PathBuf,
        /// Counted from 1, where there are lines.
        line: Option<u64>,
        /// What is wrong.
        message: String,
    },
    /// A value that is not of the type given for its column.
    #[error("{}: column `{name}`: `{text}` is not {wanted}, the type given for it", place(path, *line))]
    Type {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: Option<u64>,
        /// The column.
        name: String,
        /// The value.
        text: String,
        /// The type.
        wanted: String,
    },
    /// A column that is named and not there.
    #[error("`{}` has no column `{name}`", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        name: String,
        /// The columns that it has.
        candidates: Vec<String>,
    },
    /// The row filter does not fit the columns.
    #[error("`where` does not fit `{}`: {error}", path.display())]
    Filter {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the expression.
        error: millrace_expr::ExprError,
    },
    /// Whoever takes the parts could not.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

fn place(path: &Path, line: Option<u64>) -> String {
    match line {
        Some(line) => format!("`{}`, line {line}", path.display()),
        None => format!("`{}`", path.display()),
    }
}

impl ReadError {
    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    fn content(path: &Path, line: Option<u64>, message: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), line, message: message.into() }
    }

    fn column(path: &Path, name: &str, error: &ColumnError) -> Self {
        Self::content(path, None, format!("column `{name}`: {error}"))
    }
}

/// What whoever takes the parts may fail with.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Where parts go. Text is read with the types that its beginning suggests; if
/// a later value says otherwise, reading starts again and so does the sink.
///
/// Parts come from several threads at a time; `place` says in which order they are.
pub trait Sink: Sync {
    /// Whether it takes a column. Of the others only their types are looked at: they are in
    /// the schema of the table, and not in that of its parts.
    fn wants(&self, column: &str) -> bool {
        let _ = column;
        true
    }

    /// Begins a part of so many rows, with the columns that it wants.
    ///
    /// # Errors
    /// Whatever stops the reading.
    fn begin<'s>(&'s self, place: u64, schema: &Schema, rows: usize) -> Result<Box<dyn PartSink + 's>, SinkError>;

    /// Forgets all parts so far.
    fn restart(&self);
}

/// Where the columns of one part go, one by one while each is in a cache, from whichever
/// thread has read it. Dropped before its end, there is no such part.
pub trait PartSink: Send {
    /// Takes the column of the next field.
    ///
    /// # Errors
    /// Whatever stops the reading.
    fn column(&mut self, column: ColumnBytes) -> Result<(), SinkError>;

    /// All columns are there.
    ///
    /// # Errors
    /// Whatever stops the reading.
    fn end(self: Box<Self>) -> Result<(), SinkError>;
}

/// Holds the columns of a part until all are there, for whoever can do nothing with one.
pub struct Whole<F> {
    columns: Vec<ColumnBytes>,
    end: F,
}

impl<F: FnOnce(Vec<ColumnBytes>) -> Result<(), SinkError> + Send> Whole<F> {
    /// Gives them to `end`.
    pub fn new(end: F) -> Self {
        Self { columns: Vec::new(), end }
    }
}

impl<F: FnOnce(Vec<ColumnBytes>) -> Result<(), SinkError> + Send> PartSink for Whole<F> {
    fn column(&mut self, column: ColumnBytes) -> Result<(), SinkError> {
        self.columns.push(column);
        Ok(())
    }

    fn end(self: Box<Self>) -> Result<(), SinkError> {
        let Self { columns, end } = *self;
        end(columns)
    }
}

/// Reads files, in this order, as one table, with such threads as are free where the format
/// allows.
///
/// # Errors
/// When a file cannot be read, or does not fit the options or the others.
pub fn read(files: &[PathBuf], options: &ReadOptions, threads: &Threads, sink: &dyn Sink) -> Result<Schema, ReadError> {
    guarded(files.first().map(PathBuf::as_path), || match options.format {
        Format::Csv => csv::read(files, options, threads, sink),
        Format::Ndjson => json::read(files, options, threads, sink),
        Format::Parquet => parquet::read(files, options, threads, sink),
        Format::Ipc => ipc::read(files, options, threads, sink),
    })
}

/// Reads again the part at one place, of a format whose columns are read one by one, and
/// such parts as cannot be told from it before they are decoded.
///
/// # Errors
/// As [`read`].
pub fn read_place(files: &[PathBuf], options: &ReadOptions, place: u64, sink: &dyn Sink) -> Result<(), ReadError> {
    let (file, index) = file_and_index(place);
    let Some(path) = usize::try_from(file).ok().and_then(|file| files.get(file)) else { return Ok(()) };
    guarded(Some(path), || match options.format {
        Format::Parquet => parquet::read_one(file, path, options, index, sink),
        Format::Ipc => ipc::read_one(file, path, options, index, sink),
        Format::Csv | Format::Ndjson => Ok(()),
    })
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread reads a file just now: whoever tells of panics may leave one to the
/// error that it becomes.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Readers of other crates panic at some files that are harmed: that is a mistake of the file.
fn guarded<T>(path: Option<&Path>, work: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(ReadError::content(
            path.unwrap_or(Path::new("")),
            None,
            format!("it is harmed, and its reader stopped: {text}"),
        ))
    })
}

/// The schemas that a table of these files may have, as far as header, footer or
/// beginning tell: the names for certain, and where the types are guesses from the first
/// records, the guess, then that with wider numbers and times, then with text. None,
/// where names are unknown before everything was read; mistakes are left to the reading.
pub fn peek(files: &[PathBuf], options: &ReadOptions) -> Vec<Schema> {
    let Some(path) = files.first() else { return Vec::new() };
    let mut schemas = match options.format {
        Format::Csv => csv::peek(path, options),
        Format::Parquet | Format::Ipc => {
            let columnar = || match options.format {
                Format::Parquet => Ok(parquet::peek(path, options)),
                _ => Ok(ipc::peek(path, options)),
            };
            guarded(Some(path), columnar).ok().flatten().into_iter().collect()
        }
        Format::Ndjson => Vec::new(),
    };
    if options.format.is_columnar() {
        for field in schemas.iter_mut().flat_map(|schema| &mut schema.fields) {
            field.data_type = options.types.get(field.name.as_str()).unwrap_or(&field.data_type).clone();
        }
    }
    schemas.into_iter().filter_map(|schema| chosen(options, schema)).collect()
}

/// The schema that a table of NDJSON probably has, by the first objects: all of it may turn out
/// to be another, names too. Of other formats [`peek`] says more.
pub fn guess(files: &[PathBuf], options: &ReadOptions) -> Option<Schema> {
    match options.format {
        Format::Ndjson => chosen(options, json::guess(files.first()?, options)?),
        Format::Csv | Format::Parquet | Format::Ipc => None,
    }
}

/// Of a schema the columns that are asked for, in their order.
fn chosen(options: &ReadOptions, schema: Schema) -> Option<Schema> {
    let Some(columns) = &options.columns else { return Some(schema) };
    let fields = columns.iter().map(|name| Some(schema.find(name)?.1.clone())).collect::<Option<_>>()?;
    Some(Schema { fields })
}

/// A schema as it crosses, of what a file says of itself; of columns that nobody asks for any
/// type will do.
fn unpacked(schema: &::arrow::datatypes::Schema, options: &ReadOptions) -> Option<Schema> {
    let is_wanted = |field: &&FieldRef| options.columns.as_ref().is_none_or(|names| names.contains(field.name()));
    let field = |field: &FieldRef| {
        field_from_arrow(&ArrowField::new(field.name(), predicate::unpacked(field.data_type()), true)).ok()
    };
    Some(Schema { fields: schema.fields().iter().filter(is_wanted).map(field).collect::<Option<_>>()? })
}

/// That a file that says what its columns are has those that are named.
fn check_names(path: &Path, options: &ReadOptions, schema: &::arrow::datatypes::Schema) -> Result<(), ReadError> {
    let mut names = options.types.keys().chain(options.columns.iter().flatten());
    match names.find(|name| schema.index_of(name).is_err()) {
        Some(name) => {
            let candidates = schema.fields().iter().map(|field| field.name().clone()).collect();
            Err(ReadError::NoColumn { path: path.to_owned(), name: name.clone(), candidates })
        }
        None => Ok(()),
    }
}

/// Where a part stands among all: by file, by what the file is cut into, by piece of that.
fn place_of(file: u64, index: usize, piece: usize) -> u64 {
    file << 44 | (index as u64) << 20 | piece as u64
}

/// The file of a place, and which of the things that the file is cut into.
fn file_and_index(place: u64) -> (u64, usize) {
    (place >> 44, (place >> 20 & 0xff_ffff) as usize)
}

/// Does each of so many things by whichever thread is free, with what `begin` gives the
/// thread. Of several errors it is that of the first thing.
fn by_threads<S>(
    path: &Path,
    count: usize,
    threads: &Threads,
    begin: impl Fn() -> Result<S, ReadError> + Sync,
    each: impl Fn(&mut S, usize) -> Result<(), ReadError> + Sync,
) -> Result<(), ReadError> {
    let done = threads.each_with(
        0..count,
        || None,
        |begun: &mut Option<S>, index| {
            guarded(Some(path), || {
                let begun = match begun {
                    Some(begun) => begun,
                    None => begun.insert(begin()?),
                };
                each(begun, index)
            })
        },
    );
    done.map(drop)
}

#[cfg(test)]
mod tests;
