//! The records that a run of one pipeline used, in one file.
//!
//! A run that finds everything reads thousands of small records. They are
//! immutable, so a copy of those that the last run used, side by side, is as good
//! as the files and costs one `open`. It is a copy only: without it, or with a
//! harmed one, the files are read.
//!
//! ```text
//! "MLRI" version:u8  count:u32  checksum:16 of the entries
//! entries: kind:u8 name:32 length:u32
//! records, as they lie in their files, each with a checksum of its own
//! ```

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_types::bounds;
use millrace_types::wire::Kind;

use crate::{Result, Store};

const MAGIC: &[u8; 5] = b"MLRI\x01";
const HEADER: usize = MAGIC.len() + 4 + 16;
const ENTRY: usize = 1 + 32 + 4;

type Name = (Kind, [u8; 32]);

#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    bytes: Vec<u8>,
    places: HashMap<Name, Range<usize>>,
    state: Mutex<Used>,
}

/// What this run used.
#[derive(Debug, Default)]
struct Used {
    /// Of the index.
    known: Vec<Name>,
    /// Read from files, or made.
    fresh: Vec<(Name, Vec<u8>)>,
}

/// Kinds that never change under a name, and so may be copied.
const KINDS: [Kind; 4] = [Kind::Action, Kind::Source, Kind::Manifest, Kind::Plan];

impl Index {
    fn read(path: PathBuf) -> Self {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let places = places(&bytes).unwrap_or_default();
        Self { path, bytes, places, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, Used> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a record.
    pub(crate) fn get(&self, kind: Kind, name: &[u8; 32]) -> Option<&[u8]> {
        self.bytes.get(self.places.get(&(kind, *name))?.clone())
    }

    /// Notes that a record of the index was good.
    pub(crate) fn used(&self, kind: Kind, name: &[u8; 32]) {
        self.state().known.push((kind, *name));
    }

    /// Notes a record that the index does not have.
    pub(crate) fn fresh(&self, kind: Kind, name: &[u8; 32], bytes: Vec<u8>) {
        if KINDS.contains(&kind) {
            self.state().fresh.push(((kind, *name), bytes));
        }
    }
}

fn places(bytes: &[u8]) -> Option<HashMap<Name, Range<usize>>> {
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
    let mut places = HashMap::with_capacity(count);
    for entry in entries.chunks_exact(ENTRY) {
        let kind = KINDS.into_iter().find(|kind| kind.number() == entry[0])?;
        let length = u32::from_le_bytes(entry[33..].try_into().ok()?) as usize;
        places.insert((kind, entry[1..33].try_into().ok()?), at..at + length);
        at += length;
    }
    Some(places)
}

impl Store {
    /// This store with the records that the last run of this name used at hand.
    #[must_use]
    pub fn with_index(&self, name: &[u8; 32]) -> Self {
        let path = self.sharded("index", blake3::Hash::from_bytes(*name).to_hex().as_str());
        Self { root: self.root.clone(), index: Some(Arc::new(Index::read(path))) }
    }

    /// Keeps the records that were used since, if they are not those of the index.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_index(&self) -> Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        let mut used = index.state();
        used.known.sort_unstable_by_key(|(kind, name)| (kind.number(), *name));
        used.known.dedup();
        if used.fresh.is_empty() && used.known.len() == index.places.len() {
            return Ok(());
        }
        let mut all: HashMap<Name, &[u8]> = HashMap::new();
        all.extend(used.known.iter().filter_map(|name| Some((*name, index.get(name.0, &name.1)?))));
        all.extend(used.fresh.iter().map(|(name, bytes)| (*name, bytes.as_slice())));
        let mut all: Vec<(Name, &[u8])> = all.into_iter().collect();
        all.sort_unstable_by_key(|((kind, name), _)| (kind.number(), *name));
        let mut entries = Vec::with_capacity(all.len() * ENTRY);
        for ((kind, name), bytes) in &all {
            entries.push(kind.number());
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
