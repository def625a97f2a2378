//! The records that a run of one pipeline used, in one file.
//!
//! A run that finds everything reads thousands of small records. They are
//! immutable, so a copy of those that the last run used, side by side, is as good
//! as the files and costs one `open`. It is a copy only: without it, or with a
//! harmed one, the files are read.
//!
//! ```text
//! "MLRI" version:u8  count:u32  checksum:16 of the entries
//! entries, in order: kind:u8 name:32 length:u32
//! records, as they lie in their files, each with a checksum of its own
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_types::wire::Kind;
use millrace_types::{Hex, bounds};

use crate::{Result, Store};

const MAGIC: &[u8; 5] = b"MLRI\x02";
const HEADER: usize = MAGIC.len() + 4 + 16;
const NAME: usize = 1 + 32;
const ENTRY: usize = NAME + 4;

/// The number of a kind, then the name of the record.
type Name = [u8; NAME];

#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where each record begins, and at last where they all end.
    starts: Vec<usize>,
    /// What this run used of it.
    used: Vec<AtomicBool>,
    /// What this run read from files, or made.
    fresh: Mutex<Vec<(Name, Vec<u8>)>>,
}

/// Kinds that never change under a name, and so may be copied.
const KINDS: [Kind; 4] = [Kind::Action, Kind::Source, Kind::Manifest, Kind::Plan];

fn name(kind: Kind, name: &[u8; 32]) -> Name {
    let mut full = [kind.number(); NAME];
    full[1..].copy_from_slice(name);
    full
}

impl Index {
    fn read(path: PathBuf) -> Self {
        let bytes = crate::read_file(&path, bounds::INDEX_BYTES).unwrap_or_default();
        let starts = starts(&bytes).unwrap_or_default();
        let used = (1..starts.len()).map(|_| AtomicBool::new(false)).collect();
        Self { path, bytes, starts, used, fresh: Mutex::default() }
    }

    fn fresh_ones(&self) -> MutexGuard<'_, Vec<(Name, Vec<u8>)>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name_of(&self, place: usize) -> &[u8] {
        &self.bytes[HEADER + place * ENTRY..][..NAME]
    }

    /// The place of a record. Entries are in order; in a file in which they are not,
    /// some are not found.
    pub(crate) fn find(&self, kind: Kind, of: &[u8; 32]) -> Option<usize> {
        let wanted = name(kind, of);
        let (mut from, mut to) = (0, self.used.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.name_of(middle).cmp(wanted.as_slice()) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The bytes of a record; fewer, or none, if the file was cut.
    pub(crate) fn bytes_of(&self, place: usize) -> &[u8] {
        self.bytes.get(self.starts[place]..self.starts[place + 1]).unwrap_or_default()
    }

    /// Notes that a record of the index was good.
    pub(crate) fn used(&self, place: usize) {
        self.used[place].store(true, Ordering::Relaxed);
    }

    /// Notes a record that the index does not have.
    pub(crate) fn fresh(&self, kind: Kind, of: &[u8; 32], bytes: Vec<u8>) {
        if KINDS.contains(&kind) {
            self.fresh_ones().push((name(kind, of), bytes));
        }
    }
}

/// Where the records begin, if the entries are whole.
fn starts(bytes: &[u8]) -> Option<Vec<usize>> {
    let header = bytes.get(..HEADER)?;
    if &header[..MAGIC.len()] != MAGIC {
        return None;
    }
    let count = u32::from_le_bytes(header[5..9].try_into().ok()?) as usize;
    let end = HEADER.checked_add(count.checked_mul(ENTRY)?)?;
    let entries = bytes.get(HEADER..end)?;
    if header[9..] != blake3::hash(entries).as_bytes()[..16] {
        return None;
    }
    let mut at = end;
    let mut starts = Vec::with_capacity(count + 1);
    starts.push(at);
    for entry in entries.chunks_exact(ENTRY) {
        at += u32::from_le_bytes(entry[NAME..].try_into().ok()?) as usize;
        starts.push(at);
    }
    Some(starts)
}

impl Store {
    /// This store with the records that the last run of this name used at hand.
    #[must_use]
    pub fn with_index(&self, name: &[u8; 32]) -> Self {
        let path = self.sharded("index", Hex::of(name).as_str());
        Self { root: self.root.clone(), index: Some(Arc::new(Index::read(path))) }
    }

    /// Keeps the records that were used since, if they are not those of the index.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_index(&self) -> Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        let fresh = index.fresh_ones();
        let is_used = |place: &usize| index.used[*place].load(Ordering::Relaxed);
        if fresh.is_empty() && (0..index.used.len()).all(|place| is_used(&place)) {
            return Ok(());
        }
        let known = (0..index.used.len()).filter(is_used);
        let known = known.map(|place| (index.name_of(place), index.bytes_of(place)));
        let mut all: Vec<(&[u8], &[u8])> = known.collect();
        all.extend(fresh.iter().map(|(name, bytes)| (name.as_slice(), bytes.as_slice())));
        // Two runs of entries that are in order, or nearly.
        all.sort_by_key(|(name, _)| *name);
        all.dedup_by_key(|(name, _)| *name);
        let mut entries = Vec::with_capacity(all.len() * ENTRY);
        for (name, bytes) in &all {
            entries.extend_from_slice(name);
            entries.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        }
        let records: usize = all.iter().map(|(_, bytes)| bytes.len()).sum();
        if records as u64 > bounds::INDEX_BYTES {
            return Ok(());
        }
        let mut out = Vec::with_capacity(HEADER + entries.len() + records);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(all.len() as u32).to_le_bytes());
        out.extend_from_slice(&blake3::hash(&entries).as_bytes()[..16]);
        out.extend_from_slice(&entries);
        all.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
        self.write_file(&index.path, &out)
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
        let mut swapped = whole.clone();
        let (first, second) = (HEADER + 1, HEADER + ENTRY + 1);
        (0..32).for_each(|byte| swapped.swap(first + byte, second + byte));
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
