//! Finds a source, and reads it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use millrace_store::Store;
use millrace_tables::read::{self as reader, Format, Peek, ReadOptions};
use millrace_threads::Threads;
use millrace_types::{SourceKey, Table};

use super::error::SourceError;
use super::files::{Digested, Inputs, Pattern, changed, digests};
use super::key::source_key;
use super::need::Need;
use super::read::Files;
use super::record::{SourceRecord, SourceTable, packs};
use super::sink::{ReadTable, SourceStore, read_table};
use crate::diagnostic::Diagnostic;
use crate::pipeline::Source;

/// A source that was read.
pub(crate) struct Read {
    /// Its table.
    pub(crate) table: Arc<Table>,
    /// Whether no file had to be read.
    pub(crate) cached: bool,
    /// The duration of reading it, in microseconds.
    pub(crate) wall_us: u64,
    /// Its files.
    pub(crate) inputs: Inputs,
}

fn options(source: &Source, first: &Path) -> Result<ReadOptions, Diagnostic> {
    let format = source.format.or_else(|| Format::of(first)).ok_or_else(|| {
        Diagnostic::new(format!("the file name `{}` does not determine the format", first.display()))
            .at(&source.path.1, "this file")
            .help("add `format = \"csv\"`, \"ndjson\", \"parquet\" or \"arrow\"")
    })?;
    let tabs = first.to_string_lossy().contains(".tsv");
    Ok(ReadOptions {
        format,
        columns: source.columns.as_ref().map(|columns| columns.iter().map(|(name, _)| name.clone()).collect()),
        filter: source.filter.as_ref().map(|(text, _)| text.clone()),
        missing: source.missing.clone().unwrap_or_else(|| reader::MISSING.map(str::to_owned).to_vec()),
        types: source.types.iter().map(|(name, (data_type, _))| (name.clone(), data_type.clone())).collect(),
        part_rows: source.part_rows.unwrap_or(reader::PART_ROWS),
        delimiter: source.delimiter.unwrap_or(if tabs { b'\t' } else { b',' }),
    })
}

/// A source whose files were found.
pub(crate) struct FoundSource {
    started: Instant,
    files: Vec<PathBuf>,
    options: ReadOptions,
    pattern: Pattern,
    digests: Vec<Digested>,
    key: SourceKey,
    peek: Peek,
}

impl FoundSource {
    /// The known part of its schema before it is read.
    pub(crate) fn peek(&self) -> &Peek {
        &self.peek
    }

    /// Whether its schema may turn out to be another than the most likely one.
    pub(crate) fn is_guess(&self) -> bool {
        self.peek.certain().is_none() && !self.options.format.is_columnar()
    }
}

/// Finds the files of a source, and what is known about its schema.
///
/// # Errors
/// When the pattern yields no files, or they cannot be read.
pub(crate) fn find(store: &Store, source: &Source) -> Result<FoundSource, Vec<Diagnostic>> {
    let started = Instant::now();
    let one = |error: Diagnostic| vec![error];
    let pattern = Pattern::of(source);
    let files =
        pattern.files().map_err(|error| one(Diagnostic::new(error.to_string()).at(&source.path.1, "this pattern")))?;
    let options = options(source, &files[0]).map_err(one)?;
    let digests = digests(store, &files, &source.path.1).map_err(one)?;
    let key = source_key(&files, &digests, &options);
    // The schema of text is certain when it was read before.
    let known = if options.format.is_columnar() { None } else { store.record::<SourceRecord>(&key) };
    let peek = match known {
        Some(record) => Peek::Certain(record.table.schema),
        None => reader::peek(&files, &options),
    };
    Ok(FoundSource { started, files, options, pattern, digests, key, peek })
}

/// Reads a source, at least the columns that are needed.
///
/// # Errors
/// When a file cannot be read, or there are no rows.
pub(crate) fn read(
    to: &SourceStore<'_>,
    source: &Source,
    found: &FoundSource,
    need: &Need,
    threads: &Threads,
) -> Result<Read, Vec<Diagnostic>> {
    let FoundSource { started, files, options, pattern, digests, key, .. } = found;
    let explain = |error: SourceError| error.explain(source);
    let of_files = Files { store: to, files, digests, options, need };
    let (table, cached) = match of_files.table(threads).map_err(explain)? {
        Some(read) => read,
        None => {
            // The files differ: they were read as one table before, or are now.
            let stored = to.store.record::<SourceTable>(key).map(|SourceTable(table)| table);
            match stored.filter(|table| to.store.has_all(&packs(table).into_iter().collect::<Vec<_>>())) {
                Some(table) => (table, true),
                None => (read_as_one(to, found, threads).map_err(explain)?, false),
            }
        }
    };
    if table.rows() == 0 && !source.allow_empty {
        let error =
            Diagnostic::new(format!("the source `{}` has no rows", source.name)).at(&source.path.1, "this file");
        return Err(vec![error.help("if that is intended, add `allow_empty = true`")]);
    }
    let digested = files.iter().cloned().zip(digests.iter().map(|(digest, _)| *digest));
    let inputs = Inputs { pattern: pattern.clone(), files: digested.collect() };
    Ok(Read { table: Arc::new(table), cached, wall_us: started.elapsed().as_micros() as u64, inputs })
}

/// All columns of all files, stored under the digests that the files had before.
fn read_as_one(to: &SourceStore<'_>, found: &FoundSource, threads: &Threads) -> Result<Table, SourceError> {
    let FoundSource { files, options, digests, key, .. } = found;
    let ReadTable { table, .. } = read_table(to, files, options, &Need::All, threads)?;
    if let Some(file) = changed(to.store, files, digests) {
        return Err(SourceError::Changed(file.clone()));
    }
    let table = SourceTable(table);
    to.store.put_record(key, &table)?;
    Ok(table.0)
}

#[cfg(test)]
mod tests;
