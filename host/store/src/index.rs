//! The records that a run of one pipeline used, in one file.
//!
//! A run that finds everything reads thousands of small records. They are
//! immutable, so a copy of those that the last run used, side by side, is as good
//! as the files and costs one `open`. It is a copy only: without it, or with a
//! harmed one, the files are read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::SegQueue;
use millrace_types::wire::{self, Kind};
use millrace_types::{Hex, bounds};

use crate::bundle::{self, Bundle, Name, name};
use crate::object;
use crate::{Result, Store, TableFile};

#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    records: Bundle,
    /// What this run used of it.
    used: Vec<AtomicBool>,
    /// What this run read from files, or made.
    fresh: SegQueue<(Name, Vec<u8>)>,
}

/// Kinds that never change under a name, and so may be copied.
const KINDS: [Kind; 4] = [Kind::Action, Kind::Source, Kind::Manifest, Kind::Plan];

impl Index {
    fn read(path: PathBuf) -> Self {
        let records = Bundle::new(object::map_all(&path, bounds::INDEX_BYTES).unwrap_or_default());
        let used = (0..records.len()).map(|_| AtomicBool::new(false)).collect();
        Self { path, records, used, fresh: SegQueue::new() }
    }

    /// The place and the bytes of a record.
    pub(crate) fn find(&self, kind: Kind, of: &[u8; 32]) -> Option<(usize, &[u8])> {
        let place = self.records.find(kind, of)?;
        Some((place, self.records.bytes_of(place)))
    }

    /// Notes that a record of the index was good.
    pub(crate) fn used(&self, place: usize) {
        self.used[place].store(true, Ordering::Relaxed);
    }

    /// Notes a record that the index does not have.
    pub(crate) fn fresh(&self, kind: Kind, of: &[u8; 32], bytes: Vec<u8>) {
        if KINDS.contains(&kind) {
            self.fresh.push((name(kind, of), bytes));
        }
    }
}

/// The one list of files in an index.
const TABLES: [u8; 32] = [0; 32];

impl Index {
    /// The files that have the tables of the last run.
    pub(crate) fn tables(&self) -> Option<Vec<TableFile>> {
        wire::decode(Kind::Tables, &TABLES, self.find(Kind::Tables, &TABLES)?.1)
    }

    /// Notes those that have the tables of this one.
    pub(crate) fn keep_tables(&self, files: &[TableFile]) {
        let list = wire::encode(Kind::Tables, &TABLES, &files);
        match self.find(Kind::Tables, &TABLES) {
            Some((place, known)) if *known == *list => self.used(place),
            _ => self.fresh.push((name(Kind::Tables, &TABLES), list)),
        }
    }
}

impl Store {
    /// This store with the records that the last run of this name used at hand.
    #[must_use]
    pub fn with_index(&self, name: &[u8; 32]) -> Self {
        let path = self.sharded("index", Hex::of(name).as_str());
        Self { index: Some(Arc::new(Index::read(path))), ..self.clone() }
    }

    /// Keeps the records that were used since, if they are not those of the index; to be called
    /// once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_index(&self) -> Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        let fresh: Vec<(Name, Vec<u8>)> = std::iter::from_fn(|| index.fresh.pop()).collect();
        let is_used = |place: &usize| index.used[*place].load(Ordering::Relaxed);
        if fresh.is_empty() && (0..index.used.len()).all(|place| is_used(&place)) {
            return Ok(());
        }
        let known = (0..index.used.len()).filter(is_used);
        let known = known.map(|place| (index.records.name_of(place).as_slice(), index.records.bytes_of(place)));
        let mut all: Vec<(&[u8], &[u8])> = known.collect();
        all.extend(fresh.iter().map(|(name, bytes)| (name.as_slice(), bytes.as_slice())));
        if all.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() > bounds::INDEX_BYTES {
            return Ok(());
        }
        self.write_file(&index.path, &bundle::encode(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    const RUN: [u8; 32] = [7; 32];

    #[test]
    fn a_record_of_the_index_needs_no_file() {
        let (folder, store) = store();
        store.put_record(Kind::Plan, &[1; 32], &"one").unwrap();
        let first = store.with_index(&RUN);
        assert_eq!(first.record::<String>(Kind::Plan, &[1; 32]).as_deref(), Some("one"));
        first.put_record(Kind::Action, &[2; 32], &"two").unwrap();
        first.keep_index().unwrap();
        for kind in ["plans", "actions"] {
            std::fs::remove_dir_all(folder.path().join(kind)).unwrap();
        }
        let second = store.with_index(&RUN);
        assert_eq!(second.record::<String>(Kind::Plan, &[1; 32]).as_deref(), Some("one"));
        assert_eq!(second.record::<String>(Kind::Action, &[2; 32]).as_deref(), Some("two"));
        assert_eq!(second.record::<String>(Kind::Action, &[1; 32]), None);
        // What changes under its name is never copied.
        second.put_record(Kind::Memo, &[3; 32], &"old").unwrap();
        second.keep_index().unwrap();
        store.put_record(Kind::Memo, &[3; 32], &"new").unwrap();
        assert_eq!(store.with_index(&RUN).record::<String>(Kind::Memo, &[3; 32]).as_deref(), Some("new"));
    }

    #[test]
    fn what_is_not_used_any_more_leaves_the_index() {
        let (folder, store) = store();
        let first = store.with_index(&RUN);
        first.put_record(Kind::Plan, &[1; 32], &"one").unwrap();
        first.put_record(Kind::Plan, &[2; 32], &"two").unwrap();
        first.keep_index().unwrap();
        let second = store.with_index(&RUN);
        assert!(second.record::<String>(Kind::Plan, &[1; 32]).is_some());
        second.keep_index().unwrap();
        assert!(!folder.path().join("plans").exists(), "a plan has no file of its own");
        let third = store.with_index(&RUN);
        assert!(third.record::<String>(Kind::Plan, &[1; 32]).is_some());
        assert_eq!(third.record::<String>(Kind::Plan, &[2; 32]), None);
    }

    #[test]
    fn a_harmed_index_gives_what_is_true_or_nothing() {
        let (_folder, store) = store();
        let first = store.with_index(&RUN);
        first.put_record(Kind::Plan, &[1; 32], &"one").unwrap();
        first.put_record(Kind::Plan, &[2; 32], &"two").unwrap();
        first.keep_index().unwrap();
        let path = first.index.as_ref().unwrap().path.clone();
        let whole = std::fs::read(&path).unwrap();
        let found = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let store = store.with_index(&RUN);
            [1, 2].map(|name| store.record::<String>(Kind::Plan, &[name; 32]))
        };
        let truth = [Some("one".to_owned()), Some("two".to_owned())];
        assert_eq!(found(&whole), truth);
        // Each record is whole, and has the other's name.
        let place = |name: u8| whole.windows(32).position(|window| window == [name; 32]).unwrap();
        let mut swapped = whole.clone();
        (0..32).for_each(|byte| swapped.swap(place(1) + byte, place(2) + byte));
        assert_eq!(found(&swapped), [None, None]);
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&whole[..at], &flipped] {
                found(bytes)
                    .into_iter()
                    .zip(&truth)
                    .for_each(|(found, truth)| assert!(found.is_none() || found == *truth));
            }
        }
    }
}
