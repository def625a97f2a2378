//! Where tasks get their columns from: the store, and what follows from it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use millrace_store::{NewFile, Store};
use millrace_tables::pack;
use millrace_tables::{ColumnBytes, rows};
use millrace_types::action_record::ObjectRef;
use millrace_types::wire::Kind;
use millrace_types::{
    BlobRef, Chunk, ColumnDigest, ColumnName, Field, Gather, PackDigest, Selection, StoredChunk, Table, Unread,
};
use millrace_wasm::{Data, DataError, PackFile};

use crate::source::{self, Lifted, Lifts};
use crate::verify::{Made, Verifier};

/// Bytes of packs that are mapped at a time; others are mapped again when needed.
const MAPPED: usize = 96 << 20;

/// Bytes of derived columns that are kept for the steps that read them next.
const DERIVED: usize = 64 << 20;

/// Values of a limited size together; the oldest go first. They lie in several places, each
/// with a lock of its own, and nothing is given back under one.
struct Recent<K, V> {
    limit: usize,
    size: AtomicUsize,
    places: [Mutex<Place<K, V>>; PLACES],
    /// How many there ever were.
    count: AtomicUsize,
}

struct Place<K, V> {
    values: HashMap<K, (V, usize)>,
    /// With the number of each among all.
    order: VecDeque<(usize, K)>,
}

impl<K: Hash + Eq + Copy + AsRef<[u8; 32]>, V: Clone> Recent<K, V> {
    fn new(limit: usize) -> Self {
        let places = std::array::from_fn(|_| Mutex::new(Place { values: HashMap::new(), order: VecDeque::new() }));
        Self { limit, size: AtomicUsize::new(0), places, count: AtomicUsize::new(0) }
    }

    fn get(&self, key: &K) -> Option<V> {
        lock(place_of(&self.places, key.as_ref())).values.get(key).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, size: usize) {
        if size > self.limit {
            return;
        }
        {
            let mut place = lock(place_of(&self.places, key.as_ref()));
            if place.values.contains_key(&key) {
                return;
            }
            place.values.insert(key, (value, size));
            place.order.push_back((self.count.fetch_add(1, Ordering::Relaxed), key));
        }
        let mut all = self.size.fetch_add(size, Ordering::Relaxed) + size;
        while all > self.limit {
            let gone = self.take_oldest().map_or(0, |(_, size)| size);
            all = self.size.fetch_sub(gone, Ordering::Relaxed) - gone;
        }
    }

    fn take_oldest(&self) -> Option<(V, usize)> {
        let oldest = |place: &&Mutex<Place<K, V>>| lock(place).order.front().map_or(usize::MAX, |(number, _)| *number);
        let Place { values, order } = &mut *lock(self.places.iter().min_by_key(oldest)?);
        let (_, key) = order.pop_front()?;
        values.remove(&key)
    }
}

/// Places of what all workers look things up in, by digest: a power of two.
pub(crate) const PLACES: usize = 16;

/// The place of what has this digest.
pub(crate) fn place_of<'a, T>(places: &'a [T; PLACES], digest: &[u8; 32]) -> &'a T {
    &places[usize::from(digest[0]) % PLACES]
}

/// A lock whose holder may have died: what it holds is a cache, or is looked at again.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store as tasks see it.
pub(crate) struct StoreData {
    store: Store,
    mapped: Recent<PackDigest, Bytes>,
    derived: Recent<ColumnDigest, ColumnBytes>,
    verifier: Verifier,
    lifts: Lifts,
}

fn error(error: impl std::fmt::Display) -> DataError {
    DataError(error.to_string())
}

/// Of an object that is not there, or not whole.
fn lost(error: impl std::fmt::Display) -> DataError {
    DataError(format!("{error}; run the pipeline again, and what the store has lost is made anew"))
}

impl StoreData {
    pub(crate) fn new(store: Store) -> Self {
        let verifier = Verifier::new(store.clone());
        Self { store, mapped: Recent::new(MAPPED), derived: Recent::new(DERIVED), verifier, lifts: Lifts::default() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn stored(&self, chunk: &StoredChunk) -> Result<ColumnBytes, DataError> {
        let known = self.mapped.get(&chunk.pack);
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let bytes = self.store.pack(&chunk.pack, chunk.pack_bytes).map_err(lost)?;
                self.mapped.put(chunk.pack, bytes.clone(), bytes.len());
                bytes
            }
        };
        let column = pack::column(&bytes, chunk).map_err(error)?;
        self.verifier.column(chunk, &column);
        Ok(column)
    }

    /// Waits until everything that was read is known to be as it was made.
    ///
    /// # Errors
    /// When it is not: then nothing that came of it may be kept.
    pub(crate) fn settle(&self) -> Result<(), DataError> {
        self.verifier.settle()
    }

    /// Makes the bytes of a gathered column, or finds those made before, which
    /// are kept under its digest. What a mask keeps is read in one pass from front to
    /// back: that is cheaper than to write it, let alone to hash it.
    fn gathered(&self, gather: &Gather) -> Result<ColumnBytes, DataError> {
        let name = gather.digest.as_bytes();
        if let Some(column) = self.derived.get(&gather.digest) {
            return Ok(column);
        }
        let is_kept = gather.kind == Selection::Take;
        if is_kept
            && let Some(kept) = self.store.record::<StoredChunk>(Kind::Gathered, name)
            && kept.rows == gather.rows
            && kept.data_type == gather.data_type
            && let Ok(column) = self.stored(&kept)
        {
            return Ok(column);
        }
        let selection = self.stored(&gather.selection)?;
        let mut sources = gather.sources.iter().map(|source| self.column(source)).collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() {
            // Of a table without parts: rows of it are missing ones.
            sources.push(ColumnBytes::empty(&gather.data_type).map_err(error)?);
        }
        let column = rows::gather(gather.kind, &selection, &sources).map_err(error)?;
        if !is_kept {
            self.derived.put(gather.digest, column.clone(), column.bytes() as usize);
            return Ok(column);
        }
        let field = Field { name: ColumnName::new("gathered"), data_type: gather.data_type.clone(), nullable: true };
        // What is kept under the name of its sources must have been made of them.
        self.settle()?;
        let chunks = (self as &dyn Data).put_pack(&[field], std::slice::from_ref(&column))?;
        if let Some(chunk) = chunks.first() {
            self.store.put_record(Kind::Gathered, name, &**chunk).map_err(error)?;
        }
        Ok(column)
    }

    /// Says that the columns of a table are about to be looked at.
    pub(crate) fn want(&self, table: &Table) {
        self.lifts.want(table);
    }

    /// Makes sure that all columns of a table are in the store, of those too that no step reads.
    pub(crate) fn decode(&self, table: &Table) -> Result<(), DataError> {
        source::decode(self, table).map_err(error)
    }

    /// A column that no step reads, for somebody who looks at it.
    fn unread(&self, unread: &Unread) -> Result<ColumnBytes, DataError> {
        if let Some(column) = self.derived.get(&unread.digest) {
            return Ok(column);
        }
        match self.lifts.lift(self, unread).map_err(error)? {
            Lifted::Stored(chunk) => self.stored(&chunk),
            Lifted::Read(columns) => {
                let found = columns.iter().find(|(digest, _)| *digest == unread.digest);
                let column = found.map(|(_, column)| column.clone());
                for (digest, column) in columns {
                    let size = column.bytes() as usize;
                    self.derived.put(digest, column, size);
                }
                column.ok_or_else(|| error(format!("the column `{}` is not in its file", unread.name)))
            }
        }
    }

    pub(crate) fn shared(store: &Store) -> Arc<Self> {
        Arc::new(Self::new(store.clone()))
    }
}

impl Data for StoreData {
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, DataError> {
        match chunk {
            Chunk::Stored(chunk) => self.stored(chunk),
            Chunk::Gather(gather) => self.gathered(gather),
            Chunk::Unread(unread) => self.unread(unread),
        }
    }

    fn blob(&self, blob: &BlobRef) -> Result<Bytes, DataError> {
        let bytes = self.store.blob(blob).map_err(lost)?;
        self.verifier.blob(blob, &bytes)?;
        Ok(bytes)
    }

    fn new_pack(&self) -> Result<Box<dyn PackFile>, DataError> {
        let file = self.store.new_file().map_err(error)?;
        Ok(Box::new(NewPack { file, store: self.store.clone(), made: self.verifier.made() }))
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, DataError> {
        self.store.put_blob(bytes).map_err(error)
    }
}

/// A pack on its way into the store.
struct NewPack {
    file: NewFile,
    store: Store,
    made: Made,
}

impl Write for NewPack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whoever reads a source must not look for room where that lies.
        let full = |error: io::Error| {
            let root = self.store.root().display().to_string();
            io::Error::new(error.kind(), format!("cannot write to the store `{root}`: {error}"))
        };
        self.file.file().write(bytes).map_err(full)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for NewPack {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.file().seek(to)
    }
}

impl PackFile for NewPack {
    fn keep(self: Box<Self>, digest: &PackDigest, chunks: &[Arc<StoredChunk>]) -> Result<(), DataError> {
        let Self { file, store, made } = *self;
        let size = chunks.first().map_or(0, |chunk| chunk.pack_bytes);
        // One that is there may be harmed: it is looked at when it is read.
        if store.has(&ObjectRef::Pack(*digest, size)) {
            return Ok(());
        }
        store.put_pack(digest, file).map_err(error)?;
        made.note(chunks.iter().map(|chunk| &**chunk));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ColumnDigest {
        ColumnDigest::from(blake3::hash(&number.to_le_bytes()))
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let recent = Recent::new(100);
        for number in 0..50 {
            recent.put(name(number), number, 10);
            recent.put(name(number), 0, 10);
            let there: Vec<usize> = (0..50).filter_map(|number| recent.get(&name(number))).collect();
            assert_eq!(there, (number.saturating_sub(9)..=number).collect::<Vec<_>>());
        }
        // More than there is ever room for is not kept, and takes nothing away.
        recent.put(name(50), 50, 101);
        assert_eq!((recent.get(&name(50)), recent.get(&name(40))), (None, Some(40)));
        recent.put(name(51), 51, 100);
        assert_eq!((recent.get(&name(51)), recent.get(&name(49))), (Some(51), None));
    }

    #[test]
    fn many_threads_keep_to_the_limit() {
        let recent = Recent::new(100);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let recent = &recent;
                scope.spawn(move || (0..2000).for_each(|i| recent.put(name(thread * 1000 + i), i, 1 + i % 40)));
            }
        });
        let places = recent.places.iter().map(|place| lock(place).values.values().map(|(_, size)| size).sum::<usize>());
        assert_eq!(places.sum::<usize>(), recent.size.load(Ordering::Relaxed));
        assert!(recent.size.load(Ordering::Relaxed) <= 100);
    }
}
