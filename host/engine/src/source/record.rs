//! The record of a source in the store: its table, of which some columns are stored and the others
//! are unread.
//!
//! A table follows from the files and the columns that are needed, never from the columns that
//! earlier runs have stored.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use millrace_store::{Presence, Store};
use millrace_tables::read::{PartId, ReadOptions};
use millrace_types::wire::Kind;
use millrace_types::{
    Chunk, ColumnName, Field, ObjectRef, PackDigest, Part, Record, Reference, Schema, SourceDigest, SourceKey,
    StoredChunk, Table,
};
use serde::{Deserialize, Serialize};

use super::files::Digested;
use super::need::Need;

/// The record of a file, or of all files of a source of text.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SourceRecord {
    /// Columns that a run needed are stored, the others unread.
    pub(super) table: Table,
    /// The ids of the parts.
    pub(super) ids: Vec<PartId>,
    /// The paths that files with this content had, the latest first.
    pub(super) paths: Vec<Vec<PathBuf>>,
    pub(super) digests: Vec<SourceDigest>,
    /// The options for reading all columns.
    pub(super) options: ReadOptions,
}

/// Maximum number of paths in a record.
const MAX_PATHS: usize = 16;

impl Record for SourceRecord {
    const KIND: Kind = Kind::Columns;
    type Name = SourceKey;

    fn portable(&self) -> Option<Self> {
        // Paths are those of this machine: another machine adds its own.
        Some(Self { paths: Vec::new(), ..self.clone() })
    }

    fn references(&self) -> Vec<Reference> {
        // Unread columns refer to this very record.
        let stored = self.table.references().into_iter();
        stored.filter(|reference| matches!(reference, Reference::Object(_))).collect()
    }
}

/// The table of files that differ, so that they were read as one.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SourceTable(pub(super) Table);

impl Record for SourceTable {
    const KIND: Kind = Kind::Source;
    type Name = SourceKey;

    fn references(&self) -> Vec<Reference> {
        self.0.references()
    }
}

impl SourceRecord {
    /// Adds paths. Returns whether they are new.
    pub(super) fn add_paths(&mut self, paths: &[PathBuf]) -> bool {
        let is_new = !self.paths.iter().any(|known| known == paths);
        if is_new {
            self.paths.insert(0, paths.to_vec());
            self.paths.truncate(MAX_PATHS);
        }
        is_new
    }

    /// Files that still have this content, with their digests and stamps.
    pub(super) fn files(&self, store: &Store) -> Option<(Vec<PathBuf>, Vec<Digested>)> {
        let digest = |paths: &Vec<PathBuf>| Some((paths.clone(), store.sources(paths).ok()?));
        let is_same = |(_, found): &(_, Vec<Digested>)| found.iter().map(|(digest, _)| digest).eq(&self.digests);
        self.paths.iter().filter_map(digest).find(is_same)
    }

    /// A column of a part.
    pub(super) fn chunk(&self, part: usize, name: &ColumnName) -> Option<&Chunk> {
        let (column, _) = self.table.schema.find(name.as_str())?;
        self.table.parts.get(part)?.columns.get(column)
    }

    /// Whether each column is in the store.
    pub(super) fn stored(&self, store: &Store) -> Vec<bool> {
        let all: Vec<ObjectRef> = packs(&self.table).into_iter().collect();
        let present = store.presence(&all).into_iter().map(|presence| presence != Presence::Missing);
        let packs: HashMap<ObjectRef, bool> = all.iter().copied().zip(present).collect();
        let is_present = |chunk: &StoredChunk| packs.get(&chunk.object()).is_some_and(|is_present| *is_present);
        let mut stored = vec![true; self.table.schema.fields.len()];
        for part in &self.table.parts {
            for (stored, chunk) in stored.iter_mut().zip(&part.columns) {
                *stored &= matches!(chunk, Chunk::Stored(chunk) if is_present(chunk));
            }
        }
        stored
    }

    /// The columns to read, grouped by the pack that they go into: columns that are needed and were
    /// never read, and all columns of a lost pack, which is thus rewritten unchanged, so that
    /// references to it are valid again.
    pub(super) fn missing(&self, need: &Need, stored: &[bool]) -> Vec<Vec<ColumnName>> {
        let pack_of = |index: usize| match self.table.parts.first()?.columns.get(index)? {
            Chunk::Stored(chunk) => Some(chunk.pack),
            Chunk::Gather(_) | Chunk::Unread(_) => None,
        };
        let fields = || self.table.schema.fields.iter().enumerate();
        let is_missing = |index: usize, field: &Field| need.has(&field.name) && !stored[index];
        let lost: BTreeSet<_> =
            fields().filter(|(index, field)| is_missing(*index, field)).map(|(index, _)| pack_of(index)).collect();
        let of_pack = |pack: &Option<PackDigest>| {
            let is_in = |(index, field): &(usize, &Field)| {
                pack_of(*index) == *pack && (pack.is_some() || is_missing(*index, field))
            };
            fields().filter(is_in).map(|(_, field)| field.name.clone()).collect()
        };
        lost.iter().map(of_pack).collect()
    }

    /// The table, in which columns that are not needed are unread.
    pub(super) fn view(self, key: &SourceKey, need: &Need) -> Table {
        let Table { schema, mut parts } = self.table;
        for (number, part) in (0u64..).zip(&mut parts) {
            let Part { rows, columns } = Arc::make_mut(part);
            for (field, chunk) in schema.fields.iter().zip(columns) {
                if !need.has(&field.name) {
                    *chunk = Chunk::unread(*key, number, field, *rows);
                }
            }
        }
        Table { schema, parts }
    }

    /// Adds columns. Returns false if they do not have the same parts.
    pub(super) fn add_columns(&mut self, read: Table, ids: &[PartId]) -> bool {
        let rows = |table: &Table| table.parts.iter().map(|part| part.rows).collect::<Vec<_>>();
        if self.ids != ids || rows(&self.table) != rows(&read) {
            return false;
        }
        for (index, field) in read.schema.fields.iter().enumerate() {
            let Some((own, _)) = self.table.schema.find(field.name.as_str()).filter(|(_, own)| *own == field) else {
                return false;
            };
            for (part, read) in self.table.parts.iter_mut().zip(&read.parts) {
                Arc::make_mut(part).columns[own] = read.columns[index].clone();
            }
        }
        true
    }
}

/// A table of unread columns, over parts with these rows.
pub(super) fn unread_table(key: &SourceKey, schema: Schema, parts: &[Arc<Part>]) -> Table {
    let part = |(number, part): (u64, &Arc<Part>)| {
        let columns = schema.fields.iter().map(|field| Chunk::unread(*key, number, field, part.rows)).collect();
        Arc::new(Part { rows: part.rows, columns })
    };
    let parts = (0..).zip(parts).map(part).collect();
    Table { schema, parts }
}

/// The packs of a table, each once.
pub(crate) fn packs(table: &Table) -> HashSet<ObjectRef> {
    let mut packs = HashSet::new();
    for column in table.parts.iter().flat_map(|part| &part.columns) {
        column.visit_stored(&mut |chunk| {
            packs.insert(chunk.object());
        });
    }
    packs
}
