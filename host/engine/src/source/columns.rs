//! The columns of sources, of which only those that a run needs are decoded and kept.
//!
//! The others stay where they are, as [`Chunk::Unread`], which is named by the bytes of the
//! files and not by what they hold. A later run that needs more reads what is missing, and a
//! column that somebody wants to look at is read then, as long as the files are as they were.
//!
//! Parquet and Arrow say themselves what their columns are, and each file is known by itself.
//! The types of text follow from all of it, so all files of a source are known together, and
//! of a column that nobody needs the type is looked at, and nothing kept.
//!
//! What a table looks like follows from the file and the need alone, never from what
//! runs before have kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_store::Store;
use millrace_tables::ColumnBytes;
use millrace_tables::Threads;
use millrace_tables::pack::PackWriter;
use millrace_tables::read::{self, PartSink, ReadError, ReadOptions, Sink, SinkError, Whole};
use millrace_types::action_record::ObjectRef;
use millrace_types::wire::Kind;
use millrace_types::{
    Chunk, ColumnDigest, ColumnName, Field, PackDigest, Part, Schema, SourceDigest, StoredChunk, Table, Unread,
};
use millrace_wasm::{Data, PackFile, keep_pack};
use serde::{Deserialize, Serialize};

use super::files::{Digested, changed};
use super::{Failed, key};
use crate::data::{StoreData, lock};

/// The columns of a table that a run needs: a step reads them, or they are written to a
/// file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    All,
    These(BTreeSet<ColumnName>),
}

impl Need {
    pub(crate) fn nothing() -> Self {
        Self::These(BTreeSet::new())
    }

    pub(crate) fn of(names: &[ColumnName]) -> Self {
        Self::These(names.iter().cloned().collect())
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::These(names) if names.is_empty())
    }

    pub(crate) fn has(&self, name: &ColumnName) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        match (&mut *self, more) {
            (Self::These(names), Self::These(more)) => names.extend(more.iter().cloned()),
            _ => *self = Self::All,
        }
    }
}

/// What is known of a file, or of the files of a source of text.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Known {
    /// Columns that a run needed are stored, the others unread.
    pub(super) table: Table,
    /// Where the parts lie.
    places: Vec<u64>,
    /// What files with this content were called, the last ones first.
    names: Vec<Vec<PathBuf>>,
    digests: Vec<SourceDigest>,
    /// How all of it would be read.
    options: ReadOptions,
}

/// The schema of files that were read as one before.
pub(super) fn schema_of(store: &Store, key: &[u8; 32]) -> Option<Schema> {
    Some(store.record::<Known>(Kind::Columns, key)?.table.schema)
}

/// Names that are remembered of a content.
const NAMES: usize = 16;

impl Known {
    /// Puts names first. Says whether they were not known.
    fn named(&mut self, names: &[PathBuf]) -> bool {
        let is_new = !self.names.iter().any(|known| known == names);
        if is_new {
            self.names.insert(0, names.to_vec());
            self.names.truncate(NAMES);
        }
        is_new
    }

    /// Files that still have this content, and what a stat says of them.
    fn files(&self, store: &Store) -> Option<(Vec<PathBuf>, Vec<Digested>)> {
        let look = |names: &Vec<PathBuf>| Some((names.clone(), store.sources(names).ok()?));
        let is_same = |(_, found): &(_, Vec<Digested>)| found.iter().map(|(digest, _)| digest).eq(&self.digests);
        self.names.iter().filter_map(look).find(is_same)
    }

    /// A column of a part.
    fn chunk(&self, part: usize, name: &ColumnName) -> Option<&Chunk> {
        let (column, _) = self.table.schema.find(name.as_str())?;
        self.table.parts.get(part)?.columns.get(column)
    }

    /// The columns that are in the store.
    fn stored(&self, store: &Store) -> Vec<bool> {
        let mut packs = HashMap::new();
        let mut is_there = |chunk: &StoredChunk| {
            let pack = ObjectRef::Pack(chunk.pack, chunk.pack_bytes);
            *packs.entry(pack).or_insert_with(|| store.has(&pack))
        };
        let mut stored = vec![true; self.table.schema.fields.len()];
        for part in &self.table.parts {
            for (stored, chunk) in stored.iter_mut().zip(&part.columns) {
                *stored &= matches!(chunk, Chunk::Stored(chunk) if is_there(chunk));
            }
        }
        stored
    }

    /// The columns to read, together those that come into one pack: what is needed and was
    /// never read, and all of a pack that is lost. So it is made as it was, and whatever
    /// else names it finds it again.
    fn lacking(&self, need: &Need, stored: &[bool]) -> Vec<Vec<ColumnName>> {
        let pack_of = |place: usize| match self.table.parts.first()?.columns.get(place)? {
            Chunk::Stored(chunk) => Some(chunk.pack),
            Chunk::Gather(_) | Chunk::Unread(_) => None,
        };
        let fields = || self.table.schema.fields.iter().enumerate();
        let is_lacking = |place: usize, field: &Field| need.has(&field.name) && !stored[place];
        let lost: BTreeSet<_> =
            fields().filter(|(place, field)| is_lacking(*place, field)).map(|(place, _)| pack_of(place)).collect();
        let of_pack = |pack: &Option<PackDigest>| {
            let is_meant = |(place, field): &(usize, &Field)| {
                pack_of(*place) == *pack && (pack.is_some() || is_lacking(*place, field))
            };
            fields().filter(is_meant).map(|(_, field)| field.name.clone()).collect()
        };
        lost.iter().map(of_pack).collect()
    }

    /// The table, with such columns as are not needed unread.
    fn view(self, key: &[u8; 32], need: &Need) -> Table {
        let Table { schema, mut parts } = self.table;
        for (place, part) in (0u64..).zip(&mut parts) {
            let Part { rows, columns } = Arc::make_mut(part);
            for (field, chunk) in schema.fields.iter().zip(columns) {
                if !need.has(&field.name) {
                    *chunk = Chunk::unread(*key, place, field, *rows);
                }
            }
        }
        Table { schema, parts }
    }

    /// Takes columns that were read besides. Says no when they are not of the same rows.
    fn take(&mut self, read: Table, places: &[u64]) -> bool {
        let rows = |table: &Table| table.parts.iter().map(|part| part.rows).collect::<Vec<_>>();
        if self.places != places || rows(&self.table) != rows(&read) {
            return false;
        }
        for (place, field) in read.schema.fields.iter().enumerate() {
            let Some((own, _)) = self.table.schema.find(field.name.as_str()).filter(|(_, own)| *own == field) else {
                return false;
            };
            for (part, read) in self.table.parts.iter_mut().zip(&read.parts) {
                Arc::make_mut(part).columns[own] = read.columns[place].clone();
            }
        }
        true
    }
}

/// Puts what is read into the store, as far as it is needed.
struct StoreSink<'a> {
    data: &'a StoreData,
    need: &'a Need,
    parts: Mutex<BTreeMap<u64, Arc<Part>>>,
}

impl StoreSink<'_> {
    fn parts(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for StoreSink<'_> {
    fn wants(&self, column: &str) -> bool {
        self.need.has(&ColumnName::new(column))
    }

    fn begin<'s>(&'s self, place: u64, schema: &Schema, rows: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        if self.data.store().is_stopped() {
            return Err("stopped".into());
        }
        let rows = rows as u64;
        let pack = match schema.fields.as_slice() {
            [] => None,
            fields => Some(PackWriter::new(fields, rows, self.data.new_pack()?)),
        };
        Ok(Box::new(StorePart { sink: self, place, rows, pack }))
    }

    fn restart(&self) {
        self.parts().clear();
    }
}

/// A part on its way into the store.
struct StorePart<'a> {
    sink: &'a StoreSink<'a>,
    place: u64,
    rows: u64,
    /// None for a part of which no column is needed.
    pack: Option<PackWriter<Box<dyn PackFile>>>,
}

impl PartSink for StorePart<'_> {
    fn column(&mut self, column: ColumnBytes) -> Result<(), SinkError> {
        self.pack.as_mut().map_or(Ok(()), |pack| Ok(pack.column(&column.as_ref())?))
    }

    fn end(self: Box<Self>) -> Result<(), SinkError> {
        let Self { sink, place, rows, pack } = *self;
        let mut columns = Vec::new();
        if let Some(pack) = pack {
            columns.extend(keep_pack(pack.finish()?)?.into_iter().map(Chunk::Stored));
        }
        sink.parts().insert(place, Arc::new(Part { rows, columns }));
        Ok(())
    }
}

/// What was read of files, as one table.
pub(super) struct ReadTable {
    /// Of all columns.
    pub(super) schema: Schema,
    /// Of those that are needed.
    pub(super) table: Table,
    /// Where the parts lie.
    pub(super) places: Vec<u64>,
}

/// Reads files as one table.
pub(super) fn read_table(
    data: &StoreData,
    files: &[PathBuf],
    options: &ReadOptions,
    need: &Need,
    threads: &Threads,
) -> Result<ReadTable, ReadError> {
    let sink = StoreSink { data, need, parts: Mutex::default() };
    let schema = read::read(files, options, threads, &sink)?;
    let parts = std::mem::take(&mut *sink.parts());
    let needed = schema.fields.iter().filter(|field| need.has(&field.name)).cloned().collect();
    let (places, parts) = parts.into_iter().unzip();
    Ok(ReadTable { schema, table: Table { schema: Schema { fields: needed }, parts }, places })
}

/// The files of a source.
pub(super) struct Files<'a> {
    pub(super) store: &'a Store,
    pub(super) data: &'a StoreData,
    pub(super) files: &'a [PathBuf],
    pub(super) digests: &'a [Digested],
    pub(super) options: &'a ReadOptions,
    pub(super) need: &'a Need,
}

impl Files<'_> {
    /// Their tables one after the other, and whether nothing was read for them. None where
    /// they are at odds: whoever reads them as one can say in what.
    pub(super) fn table(&self, threads: &Threads) -> Result<Option<(Table, bool)>, Failed> {
        if self.files.len() == 1 || !self.options.format.is_columnar() {
            // Nothing is at odds with it.
            return self.of_files(0..self.files.len(), threads).map(Some);
        }
        let found = match threads.each(0..self.files.len(), |place| self.of_files(place..place + 1, threads)) {
            Ok(found) => found,
            Err(Failed::Read(_)) => return Ok(None),
            Err(failed) => return Err(failed),
        };
        let mut whole: Option<(Table, bool)> = None;
        for (table, is_cached) in found {
            match &mut whole {
                None => whole = Some((table, is_cached)),
                Some((whole, all_cached)) if whole.schema == table.schema => {
                    whole.parts.extend(table.parts);
                    *all_cached &= is_cached;
                }
                Some(_) => return Ok(None),
            }
        }
        Ok(whole)
    }

    /// The table of a file, or of all, and whether nothing was read for it.
    fn of_files(&self, places: Range<usize>, threads: &Threads) -> Result<(Table, bool), Failed> {
        let Self { store, data, options, need, .. } = *self;
        let (files, digests) = (&self.files[places.clone()], &self.digests[places]);
        let key = key(files, digests, options);
        let absolute = |file: &PathBuf| std::path::absolute(file).unwrap_or_else(|_| file.clone());
        let names: Vec<PathBuf> = files.iter().map(absolute).collect();
        let mut known = store.record::<Known>(Kind::Columns, &key);
        let (schema, lacking) = match &known {
            Some(known) => (Some(known.table.schema.clone()), known.lacking(need, &known.stored(store))),
            None => {
                let schema = certain(files, options);
                let fields = schema.iter().flat_map(|schema| &schema.fields).map(|field| &field.name);
                let needed = fields.filter(|name| need.has(name)).cloned().collect();
                (schema, vec![needed])
            }
        };
        if lacking.is_empty()
            && let Some(mut known) = known.take()
        {
            // It is looked for under its names when somebody wants to see more of it.
            if known.named(&names) {
                self.keep(&key, &known)?;
            }
            return Ok((known.view(&key, need), true));
        }
        let read =
            |options: &ReadOptions, need: &Need| read_table(data, files, options, need, threads).map_err(Failed::Read);
        let whole = |table, places| Known {
            table,
            places,
            names: vec![names.clone()],
            digests: digests.iter().map(|(digest, _)| *digest).collect(),
            options: options.clone(),
        };
        let mut taken = known.take();
        // Of text that was never read nothing is known yet, not even what there is.
        let is_first = taken.is_none();
        let mut fits = schema.is_some() || !options.format.is_columnar();
        for columns in lacking {
            if !fits {
                break;
            }
            let (options, need) = match options.format.is_columnar() {
                true => {
                    let columns = Some(columns.iter().map(ToString::to_string).collect());
                    (&ReadOptions { columns, ..options.clone() }, &Need::All)
                }
                false if is_first => (options, need),
                false => (options, &Need::of(&columns)),
            };
            let ReadTable { schema: found, table, places } = read(options, need)?;
            let schema = schema.clone().unwrap_or(found);
            let known = taken.get_or_insert_with(|| whole(unread(&key, schema, &table.parts), places.clone()));
            known.named(&names);
            fits = known.take(table, &places);
        }
        taken = taken.filter(|_| fits);
        let known = match taken {
            Some(known) => known,
            None => {
                // It is not what its beginning says, or nobody can tell: all of it, as it is.
                let ReadTable { table, places, .. } = read(options, &Need::All)?;
                whole(table, places)
            }
        };
        // What was read is kept under what the files were before.
        if let Some(file) = changed(store, files, digests) {
            return Err(Failed::Changed(file.clone()));
        }
        self.keep(&key, &known)?;
        Ok((known.view(&key, need), false))
    }

    fn keep(&self, key: &[u8; 32], known: &Known) -> Result<(), Failed> {
        self.store.put_record(Kind::Columns, key, known).map_err(Failed::Store)
    }
}

/// The table of which nothing was read yet, over parts of so many rows.
fn unread(key: &[u8; 32], schema: Schema, parts: &[Arc<Part>]) -> Table {
    let part = |(place, part): (u64, &Arc<Part>)| {
        let columns = schema.fields.iter().map(|field| Chunk::unread(*key, place, field, part.rows)).collect();
        Arc::new(Part { rows: part.rows, columns })
    };
    let parts = (0..).zip(parts).map(part).collect();
    Table { schema, parts }
}

/// The schema that a file says it has; none when something is wrong with it, which is left
/// to the reading.
pub(super) fn certain(files: &[PathBuf], options: &ReadOptions) -> Option<Schema> {
    if !options.format.is_columnar() {
        return None;
    }
    let mut names = BTreeSet::new();
    let schema = read::peek(files, options).pop()?;
    schema.fields.iter().all(|field| names.insert(&field.name)).then_some(())?;
    Some(schema)
}

/// Where columns lie that no step reads, for somebody who looks at them.
#[derive(Default)]
pub(crate) struct Lifts {
    known: Mutex<HashMap<[u8; 32], Arc<Known>>>,
    /// Columns that are looked at together.
    wanted: Mutex<HashMap<[u8; 32], BTreeSet<ColumnName>>>,
}

/// A column that was unread.
pub(crate) enum Lifted {
    /// Another run has kept it.
    Stored(Arc<StoredChunk>),
    /// As it was read now, with others of that part and parts that came along, each under its
    /// digest as unread; the part itself last.
    Read(Vec<(ColumnDigest, ColumnBytes)>),
}

/// Columns of parts by their places.
#[derive(Default)]
struct Held(Mutex<BTreeMap<u64, (Schema, Vec<ColumnBytes>)>>);

impl Sink for Held {
    fn begin<'s>(&'s self, place: u64, schema: &Schema, _: usize) -> Result<Box<dyn PartSink + 's>, SinkError> {
        let schema = schema.clone();
        Ok(Box::new(Whole::new(move |columns| {
            lock(&self.0).insert(place, (schema, columns));
            Ok(())
        })))
    }

    fn restart(&self) {}
}

/// The unread columns that a table is made of: by source, their names.
fn unread_of(table: &Table) -> BTreeMap<[u8; 32], BTreeSet<ColumnName>> {
    let mut found: BTreeMap<[u8; 32], BTreeSet<ColumnName>> = BTreeMap::new();
    for column in table.parts.iter().flat_map(|part| &part.columns) {
        column.visit_unread(&mut |unread| {
            found.entry(unread.source).or_default().insert(unread.name.clone());
        });
    }
    found
}

/// The sources that unread columns of a table lie in.
pub(crate) fn sources_of(table: &Table) -> impl Iterator<Item = [u8; 32]> {
    unread_of(table).into_keys()
}

fn gone(names: &str, why: &str) -> String {
    format!("no step reads {names}, and {why}: run the pipeline again")
}

fn listed<'n>(names: impl IntoIterator<Item = &'n ColumnName>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [one] => format!("the column {one}"),
        [some @ .., last] if names.len() < 6 => format!("the columns {} and {last}", some.join(", ")),
        _ => format!("{} of the columns", names.len()),
    }
}

impl Lifts {
    /// Says that all columns of a table are about to be looked at, so that those which lie
    /// together are read together.
    pub(crate) fn want(&self, table: &Table) {
        let mut wanted = lock(&self.wanted);
        for (source, names) in unread_of(table) {
            wanted.entry(source).or_default().extend(names);
        }
    }

    fn known(&self, store: &Store, source: &[u8; 32], names: &str) -> Result<Arc<Known>, String> {
        if let Some(known) = lock(&self.known).get(source) {
            return Ok(known.clone());
        }
        let known = store.record::<Known>(Kind::Columns, source);
        let known = Arc::new(known.ok_or_else(|| gone(names, "its source is no longer known"))?);
        lock(&self.known).insert(*source, known.clone());
        Ok(known)
    }

    /// Finds or reads a column that no step has asked for.
    ///
    /// # Errors
    /// When its file is not as it was, in words that say so.
    pub(crate) fn lift(&self, data: &StoreData, unread: &Unread) -> Result<Lifted, String> {
        let store = data.store();
        let Unread { source, part, name, .. } = unread;
        let named = listed([name]);
        let known = self.known(store, source, &named)?;
        let place = usize::try_from(*part).unwrap_or(usize::MAX);
        let chunk_of = |name: &ColumnName| known.chunk(place, name);
        let stored = |known: &Known| match known.chunk(place, name) {
            Some(Chunk::Stored(chunk)) if store.has(&ObjectRef::Pack(chunk.pack, chunk.pack_bytes)) => {
                Some(Lifted::Stored(chunk.clone()))
            }
            _ => None,
        };
        if let Some(stored) = stored(&known) {
            return Ok(stored);
        }
        let mut names = lock(&self.wanted).get(source).cloned().unwrap_or_default();
        names.retain(|name| matches!(chunk_of(name), Some(Chunk::Unread(_))));
        names.insert(name.clone());
        if !known.options.format.is_columnar() {
            // All of it is read in any case.
            decode_columns(data, *source, &names)?;
            lock(&self.known).remove(source);
            let known = self.known(store, source, &named)?;
            return stored(&known).ok_or_else(|| gone(&named, "its source does not have it"));
        }
        let (files, digests) = known.files(store).ok_or_else(|| gone(&named, &missing(&known)))?;
        let at = *known.places.get(place).ok_or_else(|| gone(&named, "its part is not known"))?;
        let columns = Some(names.iter().map(ToString::to_string).collect());
        let options = ReadOptions { columns, ..known.options.clone() };
        let held = Held::default();
        read::read_place(&files, &options, at, &held).map_err(|error| format!("{}: {error}", listed(&names)))?;
        if let Some(file) = changed(store, &files, &digests) {
            return Err(gone(&named, &format!("`{}` changed while it was read", file.display())));
        }
        let mut held = held.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let own = held.remove(&at);
        let others =
            held.into_iter().filter_map(|(at, columns)| Some((known.places.binary_search(&at).ok()?, columns)));
        let mut read = Vec::new();
        for (place, (schema, columns)) in others.chain(own.map(|own| (place, own))) {
            let rows = known.table.parts.get(place).map(|part| part.rows);
            for (field, column) in schema.fields.iter().zip(columns) {
                let fits = known.table.schema.find(field.name.as_str()).is_some_and(|(_, own)| own == field);
                if let Some(rows) = rows.filter(|rows| fits && *rows == column.rows() as u64) {
                    read.push((Chunk::unread(*source, place as u64, field, rows).digest(), column));
                }
            }
        }
        Ok(Lifted::Read(read))
    }
}

fn missing(known: &Known) -> String {
    let listed = |names: &Vec<PathBuf>| {
        let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.display())).collect();
        names.join(", ")
    };
    match known.names.as_slice() {
        [one] if one.len() == 1 => format!("{} is not there, or not as it was", listed(one)),
        [one] => format!("one of {} is not there, or not as it was", listed(one)),
        names => format!("none of {} is there as it was", names.iter().map(listed).collect::<Vec<_>>().join(", ")),
    }
}

/// Makes sure that all columns that a table is made of are kept: what is written as a whole is
/// read as a whole.
///
/// # Errors
/// When a file is not as it was, in words that say so.
pub(crate) fn decode(data: &StoreData, table: &Table) -> Result<(), String> {
    unread_of(table).into_iter().try_for_each(|(source, names)| decode_columns(data, source, &names))
}

/// Decodes and keeps columns of a source.
fn decode_columns(data: &StoreData, source: [u8; 32], names: &BTreeSet<ColumnName>) -> Result<(), String> {
    let store = data.store();
    let named = listed(names);
    let known = store.record::<Known>(Kind::Columns, &source);
    let known = known.ok_or_else(|| gone(&named, "its source is no longer known"))?;
    let (files, digests) = known.files(store).ok_or_else(|| gone(&named, &missing(&known)))?;
    let options = known.options;
    if key(&files, &digests, &options) != source {
        return Err(gone(&named, &format!("`{}` is not as it was", files[0].display())));
    }
    let threads = Threads::new(store.threads());
    let need = Need::These(names.clone());
    let files = Files { store, data, files: &files, digests: &digests, options: &options, need: &need };
    files.table(&threads).map(drop).map_err(|failed| match failed {
        Failed::Read(error) => format!("{named}: {error}"),
        Failed::Changed(file) => gone(&named, &format!("`{}` changed while it was read", file.display())),
        Failed::Store(error) => error.to_string(),
    })
}
