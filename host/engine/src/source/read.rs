//! Reads the columns of a source that a run needs, and no others.
//!
//! The other columns stay in their files, as [`Chunk::Unread`](millrace_types::Chunk), identified
//! by the bytes of the files and not by their values. A later run that needs more columns reads the
//! missing ones.
//!
//! Parquet and Arrow files declare their columns, so each file has its own record. The types of
//! text follow from all of it, so all files of a source share one record.

use std::ops::Range;
use std::path::PathBuf;

use millrace_tables::read::{self, Peek, ReadOptions};
use millrace_threads::Threads;
use millrace_types::{ColumnName, Schema, SourceKey, Table};

use super::error::SourceError;
use super::files::{Digested, changed};
use super::key::source_key;
use super::need::Need;
use super::record::{SourceRecord, unread_table};
use super::sink::{ReadTable, SourceStore, read_table};

/// The files of a source, and the columns of them that are needed.
pub(super) struct Files<'a> {
    pub(super) store: &'a SourceStore<'a>,
    pub(super) files: &'a [PathBuf],
    pub(super) digests: &'a [Digested],
    pub(super) options: &'a ReadOptions,
    pub(super) need: &'a Need,
}

/// A table, and whether no file had to be read for it.
type Cached = (Table, bool);

impl Files<'_> {
    /// The tables of the files, concatenated. `None` if their schemas differ: reading them as one
    /// reports how.
    ///
    /// # Errors
    /// When a file cannot be read, or changed meanwhile.
    pub(super) fn table(&self, threads: &Threads) -> Result<Option<Cached>, SourceError> {
        if self.files.len() == 1 || !self.options.format.is_columnar() {
            // With one group of files, schemas cannot differ.
            return self.of_files(0..self.files.len(), threads).map(Some);
        }
        let found = match threads.each(0..self.files.len(), |file| self.of_files(file..file + 1, threads)) {
            Ok(found) => found,
            Err(SourceError::Read(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut all: Option<Cached> = None;
        for (table, is_cached) in found {
            match &mut all {
                None => all = Some((table, is_cached)),
                Some((all, all_cached)) if all.schema == table.schema => {
                    all.parts.extend(table.parts);
                    *all_cached &= is_cached;
                }
                Some(_) => return Ok(None),
            }
        }
        Ok(all)
    }

    /// The table of one file, or of all files together.
    fn of_files(&self, range: Range<usize>, threads: &Threads) -> Result<Cached, SourceError> {
        let (files, digests) = (&self.files[range.clone()], &self.digests[range]);
        let key = source_key(files, digests, self.options);
        let absolute = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
        let group = Group { files, digests, key, paths: files.iter().map(absolute).collect() };
        match self.store.store.record::<SourceRecord>(&key) {
            Some(record) => self.complete(&group, record, threads),
            None => self.first(&group, threads),
        }
    }

    /// The table of files that have a record: reads the columns that are needed and missing.
    fn complete(&self, group: &Group<'_>, mut record: SourceRecord, threads: &Threads) -> Result<Cached, SourceError> {
        let missing = record.missing(self.need, &record.stored(self.store.store));
        let is_new_path = record.add_paths(&group.paths);
        if missing.is_empty() {
            if is_new_path {
                self.keep(&group.key, &record)?;
            }
            return Ok((record.view(&group.key, self.need), true));
        }
        for columns in missing {
            let ReadTable { table, ids, .. } = self.read_columns(group, &columns, threads)?;
            if !record.add_columns(table, &ids) {
                return self.read_all(group, threads);
            }
        }
        self.finish(group, record)
    }

    /// The table of files that were never read.
    fn first(&self, group: &Group<'_>, threads: &Threads) -> Result<Cached, SourceError> {
        let is_columnar = self.options.format.is_columnar();
        let declared = if is_columnar { declared(group.files, self.options) } else { None };
        let ReadTable { schema, table, ids } = match &declared {
            Some(schema) => {
                let names = schema.fields.iter().map(|field| &field.name);
                let needed: Vec<ColumnName> = names.filter(|name| self.need.has(name)).cloned().collect();
                self.read_columns(group, &needed, threads)?
            }
            None if is_columnar => return self.read_all(group, threads),
            // The columns of text are known once all of it is read.
            None => read_table(self.store, group.files, self.options, self.need, threads)?,
        };
        let schema = declared.unwrap_or(schema);
        let mut record = self.record(group, unread_table(&group.key, schema, &table.parts), ids.clone());
        // A file that does not match its declaration is read completely.
        if record.add_columns(table, &ids) { self.finish(group, record) } else { self.read_all(group, threads) }
    }

    fn read_columns(
        &self,
        group: &Group<'_>,
        columns: &[ColumnName],
        threads: &Threads,
    ) -> Result<ReadTable, SourceError> {
        let read = if self.options.format.is_columnar() {
            let columns = Some(columns.iter().map(ToString::to_string).collect());
            let options = ReadOptions { columns, ..self.options.clone() };
            read_table(self.store, group.files, &options, &Need::All, threads)
        } else {
            read_table(self.store, group.files, self.options, &Need::of(columns), threads)
        };
        Ok(read?)
    }

    /// Reads all columns.
    fn read_all(&self, group: &Group<'_>, threads: &Threads) -> Result<Cached, SourceError> {
        let ReadTable { table, ids, .. } = read_table(self.store, group.files, self.options, &Need::All, threads)?;
        self.finish(group, self.record(group, table, ids))
    }

    fn record(&self, group: &Group<'_>, table: Table, ids: Vec<read::PartId>) -> SourceRecord {
        SourceRecord {
            table,
            ids,
            paths: vec![group.paths.clone()],
            digests: group.digests.iter().map(|(digest, _)| *digest).collect(),
            options: self.options.clone(),
        }
    }

    /// Stores what was read, under the digests that the files had before.
    fn finish(&self, group: &Group<'_>, record: SourceRecord) -> Result<Cached, SourceError> {
        if let Some(file) = changed(self.store.store, group.files, group.digests) {
            return Err(SourceError::Changed(file.clone()));
        }
        self.keep(&group.key, &record)?;
        Ok((record.view(&group.key, self.need), false))
    }

    fn keep(&self, key: &SourceKey, record: &SourceRecord) -> Result<(), SourceError> {
        Ok(self.store.store.put_record(key, record)?)
    }
}

/// Files that share one record.
struct Group<'a> {
    files: &'a [PathBuf],
    digests: &'a [Digested],
    key: SourceKey,
    /// Their absolute paths.
    paths: Vec<PathBuf>,
}

/// The schema that files declare; `None` if they declare none, or an error occurs, which reading
/// reports.
fn declared(files: &[PathBuf], options: &ReadOptions) -> Option<Schema> {
    match read::peek(files, options) {
        Peek::Certain(schema) => Some(schema),
        Peek::Candidates(_) | Peek::Guess(_) | Peek::Unknown => None,
    }
}
