//! Columns that no step reads, for display or export: decoded from their files, as long as those
//! are unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use millrace_store::Store;
use millrace_tables::ColumnBytes;
use millrace_tables::read::{self, CollectColumns, PartId, PartSink, ReadOptions, Sink, SinkError};
use millrace_threads::{Threads, lock};
use millrace_types::{Chunk, ColumnDigest, ColumnName, Schema, SourceKey, StoredChunk, Table, Unread};

use super::error::SourceError;
use super::files::{Digested, changed};
use super::key::source_key;
use super::need::Need;
use super::read::Files;
use super::record::SourceRecord;
use super::sink::SourceStore;

/// A column that was unread.
pub(crate) enum Materialized {
    /// Another run has stored it.
    Stored(Arc<StoredChunk>),
    /// It was read now, with others of that part and of parts that are decoded with it, each
    /// under the digest of the unread column; the part itself comes last.
    Read(Vec<(ColumnDigest, ColumnBytes)>),
}

/// Materializes unread columns.
#[derive(Default)]
pub(crate) struct UnreadColumns {
    records: Mutex<HashMap<SourceKey, Arc<SourceRecord>>>,
    /// Columns that are read together.
    prefetched: Mutex<HashMap<SourceKey, BTreeSet<ColumnName>>>,
}

/// Collects columns of parts by their ids.
#[derive(Default)]
struct Collected(Mutex<BTreeMap<PartId, (Schema, Vec<ColumnBytes>)>>);

impl Sink for Collected {
    fn begin<'s>(&'s self, id: PartId, schema: &Schema, _: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        let schema = schema.clone();
        Ok(Box::new(CollectColumns::new(move |columns| {
            lock(&self.0).insert(id, (schema, columns));
            Ok(())
        })))
    }

    fn restart(&self) {}
}

/// The names of the unread columns that a table derives from, by source.
fn unread_of(table: &Table) -> BTreeMap<SourceKey, BTreeSet<ColumnName>> {
    let mut found: BTreeMap<SourceKey, BTreeSet<ColumnName>> = BTreeMap::new();
    for column in table.parts.iter().flat_map(|part| &part.columns) {
        column.visit_unread(&mut |unread| {
            found.entry(unread.source).or_default().insert(unread.name.clone());
        });
    }
    found
}

/// The sources of the unread columns of a table.
pub(crate) fn sources_of(table: &Table) -> impl Iterator<Item = SourceKey> {
    unread_of(table).into_keys()
}

fn listed<'n>(names: impl IntoIterator<Item = &'n ColumnName>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [one] => format!("the column {one}"),
        [some @ .., last] if names.len() < 6 => format!("the columns {} and {last}", some.join(", ")),
        _ => format!("{} of the columns", names.len()),
    }
}

fn gone(columns: &str, why: impl Into<String>) -> SourceError {
    SourceError::Gone { columns: columns.to_owned(), why: why.into() }
}

impl UnreadColumns {
    /// Announces that all columns of a table will be read, so that those of one source are
    /// decoded together.
    pub(crate) fn prefetch(&self, table: &Table) {
        let mut prefetched = lock(&self.prefetched);
        for (source, names) in unread_of(table) {
            prefetched.entry(source).or_default().extend(names);
        }
    }

    fn record(&self, store: &Store, source: &SourceKey, columns: &str) -> Result<Arc<SourceRecord>, SourceError> {
        if let Some(record) = lock(&self.records).get(source) {
            return Ok(record.clone());
        }
        let record = store.record::<SourceRecord>(source);
        let record = Arc::new(record.ok_or_else(|| gone(columns, "its source is no longer known"))?);
        lock(&self.records).insert(*source, record.clone());
        Ok(record)
    }

    /// Finds or reads an unread column.
    ///
    /// # Errors
    /// When its file has changed.
    pub(crate) fn materialize(&self, to: &SourceStore<'_>, unread: &Unread) -> Result<Materialized, SourceError> {
        let Unread { source, part, name, .. } = unread;
        let column = listed([name]);
        let record = self.record(to.store, source, &column)?;
        let part = usize::try_from(*part).unwrap_or(usize::MAX);
        let stored = |record: &SourceRecord| match record.chunk(part, name) {
            Some(Chunk::Stored(chunk)) if to.store.has(&chunk.object()) => Some(Materialized::Stored(chunk.clone())),
            _ => None,
        };
        if let Some(stored) = stored(&record) {
            return Ok(stored);
        }
        let mut names = lock(&self.prefetched).get(source).cloned().unwrap_or_default();
        names.retain(|name| matches!(record.chunk(part, name), Some(Chunk::Unread(_))));
        names.insert(name.clone());
        if record.options.format.is_columnar() {
            let (files, digests) = record.files(to.store).ok_or_else(|| gone(&column, changed_paths(&record)))?;
            let read = read_part(to.store, &record, source, part, &names, (&files, &digests));
            return read.map(Materialized::Read);
        }
        // Text is read completely in any case.
        decode_columns(to, *source, &names)?;
        lock(&self.records).remove(source);
        let record = self.record(to.store, source, &column)?;
        stored(&record).ok_or_else(|| gone(&column, "its source does not have it"))
    }
}

/// Reads columns of one part of a columnar file, and of the parts that are decoded with it.
fn read_part(
    store: &Store,
    record: &SourceRecord,
    source: &SourceKey,
    part: usize,
    names: &BTreeSet<ColumnName>,
    (files, digests): (&[PathBuf], &[Digested]),
) -> Result<Vec<(ColumnDigest, ColumnBytes)>, SourceError> {
    let columns = listed(names);
    let id = *record.ids.get(part).ok_or_else(|| gone(&columns, "its part is not known"))?;
    let selected = Some(names.iter().map(ToString::to_string).collect());
    let options = ReadOptions { columns: selected, ..record.options.clone() };
    let collected = Collected::default();
    read::read_part(files, &options, id, &collected)
        .map_err(|error| SourceError::Columns { columns: columns.clone(), error })?;
    if let Some(file) = changed(store, files, digests) {
        return Err(gone(&columns, format!("`{}` changed while it was read", file.display())));
    }
    let mut collected = std::mem::take(&mut *lock(&collected.0));
    let own = collected.remove(&id);
    let others = collected.into_iter().filter_map(|(id, columns)| Some((record.ids.binary_search(&id).ok()?, columns)));
    let mut read = Vec::new();
    for (part, (schema, columns)) in others.chain(own.map(|own| (part, own))) {
        let rows = record.table.parts.get(part).map(|part| part.rows);
        for (field, column) in schema.fields.iter().zip(columns) {
            let fits = record.table.schema.find(field.name.as_str()).is_some_and(|(_, own)| own == field);
            if let Some(rows) = rows.filter(|rows| fits && *rows == column.rows() as u64) {
                read.push((Chunk::unread(*source, part as u64, field, rows).digest(), column));
            }
        }
    }
    Ok(read)
}

/// Why no path of a source has the recorded content.
fn changed_paths(record: &SourceRecord) -> String {
    let listed = |paths: &Vec<PathBuf>| {
        let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
        paths.join(", ")
    };
    match record.paths.as_slice() {
        [] => "its files are on another machine".to_owned(),
        [one] if one.len() == 1 => format!("{} is missing or has changed", listed(one)),
        [one] => format!("one of {} is missing or has changed", listed(one)),
        paths => {
            format!("each of {} is missing or has changed", paths.iter().map(listed).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Decodes and stores all unread columns that a table derives from: an export needs all of them,
/// and decodes them together.
///
/// # Errors
/// When a file has changed.
pub(crate) fn decode(to: &SourceStore<'_>, table: &Table) -> Result<(), SourceError> {
    unread_of(table).into_iter().try_for_each(|(source, names)| decode_columns(to, source, &names))
}

/// Decodes and stores columns of a source.
fn decode_columns(to: &SourceStore<'_>, source: SourceKey, names: &BTreeSet<ColumnName>) -> Result<(), SourceError> {
    let columns = listed(names);
    let record = to.store.record::<SourceRecord>(&source);
    let record = record.ok_or_else(|| gone(&columns, "its source is no longer known"))?;
    let (files, digests) = record.files(to.store).ok_or_else(|| gone(&columns, changed_paths(&record)))?;
    let options = record.options;
    if source_key(&files, &digests, &options) != source {
        return Err(gone(&columns, format!("`{}` has changed", files[0].display())));
    }
    let threads = Threads::new(to.store.threads());
    let need = Need::These(names.clone());
    let files = Files { store: to, files: &files, digests: &digests, options: &options, need: &need };
    files.table(&threads).map(drop).map_err(|error| match error {
        SourceError::Read(error) => SourceError::Columns { columns, error },
        SourceError::Changed(file) => gone(&columns, format!("`{}` changed while it was read", file.display())),
        other => other,
    })
}
