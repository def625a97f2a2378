//! Reads files into the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use millrace_store::Store;
use millrace_tables::chunks::SinkWriter;
use millrace_tables::pack::PackWriter;
use millrace_tables::read::{self, PartId, PartSink, ReadError, ReadOptions, Sink, SinkError};
use millrace_tables::{ColumnBytes, PackSink, keep_pack};
use millrace_threads::{Threads, lock};
use millrace_types::{Chunk, ColumnName, Part, Schema, Table};

use super::need::Need;

/// The parts of the store that sources need: records, and the sink of packs.
pub(crate) struct SourceStore<'a> {
    /// Records and file digests.
    pub(crate) store: &'a Store,
    /// The sink of packs.
    pub(crate) packs: &'a dyn PackSink,
}

/// Stores the columns that are needed.
struct StoreSink<'a> {
    store: &'a SourceStore<'a>,
    need: &'a Need,
    parts: Mutex<BTreeMap<PartId, Arc<Part>>>,
}

impl Sink for StoreSink<'_> {
    fn wants(&self, column: &str) -> bool {
        self.need.has(&ColumnName::new(column))
    }

    fn begin<'s>(&'s self, id: PartId, schema: &Schema, rows: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        if self.store.store.is_stopped() {
            return Err("stopped".into());
        }
        let rows = rows as u64;
        let pack = match schema.fields.as_slice() {
            [] => None,
            fields => Some(PackWriter::new(fields, rows, self.store.packs.new_pack()?)),
        };
        Ok(Box::new(StorePart { sink: self, id, rows, pack }))
    }

    fn restart(&self) {
        lock(&self.parts).clear();
    }
}

/// A part that is being stored.
struct StorePart<'a> {
    sink: &'a StoreSink<'a>,
    id: PartId,
    rows: u64,
    /// `None` for a part of which no column is needed.
    pack: Option<SinkWriter>,
}

impl PartSink for StorePart<'_> {
    fn column(&mut self, column: ColumnBytes) -> Result<(), SinkError> {
        self.pack.as_mut().map_or(Ok(()), |pack| Ok(pack.column(&column.as_ref())?))
    }

    fn end(self: Box<Self>) -> Result<(), SinkError> {
        let Self { sink, id, rows, pack } = *self;
        let mut columns = Vec::new();
        if let Some(pack) = pack {
            columns.extend(keep_pack(pack)?.into_iter().map(Chunk::Stored));
        }
        lock(&sink.parts).insert(id, Arc::new(Part { rows, columns }));
        Ok(())
    }
}

/// Files, read as one table.
pub(super) struct ReadTable {
    /// The schema of all columns.
    pub(super) schema: Schema,
    /// The columns that are needed.
    pub(super) table: Table,
    /// The ids of its parts.
    pub(super) ids: Vec<PartId>,
}

/// Reads files as one table.
pub(super) fn read_table(
    store: &SourceStore<'_>,
    files: &[PathBuf],
    options: &ReadOptions,
    need: &Need,
    threads: &Threads,
) -> Result<ReadTable, ReadError> {
    let sink = StoreSink { store, need, parts: Mutex::default() };
    let schema = read::read(files, options, threads, &sink)?;
    let parts = std::mem::take(&mut *lock(&sink.parts));
    let needed = schema.fields.iter().filter(|field| need.has(&field.name)).cloned().collect();
    let (ids, parts) = parts.into_iter().unzip();
    Ok(ReadTable { schema, table: Table { schema: Schema { fields: needed }, parts }, ids })
}
