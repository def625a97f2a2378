//! Files to parts: one module for each format, behind the trait `reader::Reader`.
//!
//! A reader yields parts with one schema. Parts follow from the content alone (a row group or
//! batch, a piece of a large one, or a number of rows of text), so that the same bytes give
//! the same parts on any machine. Readers know nothing of the store, guests or pipelines.

mod columnar;
mod csv;
mod error;
mod format;
mod guard;
mod ipc;
mod json;
mod open;
mod options;
mod parquet;
mod part_id;
mod predicate;
mod reader;
mod shaper;
mod sink;
mod text;

use std::path::{Path, PathBuf};

use millrace_threads::Threads;
use millrace_types::Schema;

pub use error::{ReadError, SinkError};
pub use format::Format;
pub use guard::is_guarded;
pub use options::{PART_ROWS, ReadOptions};
pub use part_id::PartId;
pub use reader::Peek;
pub use sink::{CollectColumns, PartSink, Sink};
pub use text::infer::MISSING;

use guard::guarded;
use reader::Reader;

fn reader_of(format: Format) -> &'static dyn Reader {
    match format {
        Format::Csv => &csv::Csv,
        Format::Ndjson => &json::Ndjson,
        Format::Parquet => &parquet::Parquet,
        Format::Ipc => &ipc::Ipc,
    }
}

/// Reads files, in this order, as one table, with the free threads where the format allows.
///
/// # Errors
/// When a file cannot be read, or does not fit the options or the other files.
pub fn read(files: &[PathBuf], options: &ReadOptions, threads: &Threads, sink: &dyn Sink) -> Result<Schema, ReadError> {
    let first = files.first().map(PathBuf::as_path);
    guarded(first, || reader_of(options.format).read(files, options, threads, sink))
}

/// Reads one part of a columnar format again, and parts that cannot be told from it before
/// they are decoded.
///
/// # Errors
/// As [`read`].
pub fn read_part(files: &[PathBuf], options: &ReadOptions, id: PartId, sink: &dyn Sink) -> Result<(), ReadError> {
    let Some(path) = usize::try_from(id.file()).ok().and_then(|file| files.get(file)) else { return Ok(()) };
    guarded(Some(path), || reader_of(options.format).read_part(path, options, id, sink))
}

/// What the first of the files says of the schema: by header, footer or first records.
pub fn peek(files: &[PathBuf], options: &ReadOptions) -> Peek {
    let Some(path) = files.first() else { return Peek::Unknown };
    let peeked = guarded(Some(path), || Ok(reader_of(options.format).peek(Path::new(path), options)));
    peeked.unwrap_or(Peek::Unknown)
}

#[cfg(test)]
mod tests;
