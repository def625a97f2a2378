//! Copies of the records that the last run of a pipeline used, in one file.
//!
//! A run that hits the cache everywhere reads thousands of small records. They are
//! immutable, so a copy of those of the last run, side by side, serves as well as the files
//! and costs one `open`. Without the copy, or with a corrupt one, the files are read.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::SegQueue;
use millrace_types::wire::{self, Kind};
use millrace_types::{RecordName, bounds};

use crate::bundle::{self, Bundle, EntryName, entry_name};
use crate::files::map_all;
use crate::table_file::TableFile;

#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    records: Bundle,
    /// Which of its records this run used.
    used: Vec<AtomicBool>,
    /// Records that this run read from files, or stored.
    fresh: SegQueue<(EntryName, Vec<u8>)>,
}

/// Kinds that never change under a name, and so may be copied.
const KINDS: [Kind; 4] = [Kind::Action, Kind::Source, Kind::Manifest, Kind::Plan];

impl Index {
    /// Reads the index in a file; an empty one if there is none.
    pub(crate) fn read(path: PathBuf) -> Self {
        let records = Bundle::new(map_all(&path, bounds::INDEX_BYTES).unwrap_or_default());
        let used = (0..records.len()).map(|_| AtomicBool::new(false)).collect();
        Self { path, records, used, fresh: SegQueue::new() }
    }

    /// The entry and the bytes of a record.
    pub(crate) fn find(&self, kind: Kind, name: &RecordName) -> Option<(usize, &[u8])> {
        let entry = self.records.find(kind, name)?;
        Some((entry, self.records.bytes_of(entry)))
    }

    /// Retains an entry for the next run.
    pub(crate) fn mark_used(&self, entry: usize) {
        self.used[entry].store(true, Ordering::Relaxed);
    }

    /// Adds a record that the index does not have.
    pub(crate) fn add(&self, kind: Kind, name: &RecordName, bytes: Vec<u8>) {
        if KINDS.contains(&kind) {
            self.fresh.push((entry_name(kind, name), bytes));
        }
    }
}

/// The name of the one list of table files in an index.
const TABLES: RecordName = RecordName::from_bytes([0; 32]);

impl Index {
    /// The files that hold the tables of the last run.
    pub(crate) fn tables(&self) -> Option<Vec<TableFile>> {
        wire::decode(Kind::Tables, TABLES.as_bytes(), self.find(Kind::Tables, &TABLES)?.1)
    }

    /// Sets the files that hold the tables of this run.
    pub(crate) fn keep_tables(&self, files: &[TableFile]) {
        let list = wire::encode(Kind::Tables, TABLES.as_bytes(), &files);
        match self.find(Kind::Tables, &TABLES) {
            Some((entry, known)) if *known == *list => self.mark_used(entry),
            _ => self.fresh.push((entry_name(Kind::Tables, &TABLES), list)),
        }
    }
}

impl Index {
    /// The file and the content to write so that the next run finds the records of this one; `None`
    /// if the file needs no change, or would be too large. To be called once.
    pub(crate) fn changed(&self) -> Option<(&std::path::Path, Vec<u8>)> {
        let fresh: Vec<(EntryName, Vec<u8>)> = std::iter::from_fn(|| self.fresh.pop()).collect();
        let is_used = |entry: &usize| self.used[*entry].load(Ordering::Relaxed);
        if fresh.is_empty() && (0..self.used.len()).all(|entry| is_used(&entry)) {
            return None;
        }
        let known = (0..self.used.len()).filter(is_used);
        let known = known.map(|entry| (self.records.name_of(entry).as_slice(), self.records.bytes_of(entry)));
        let mut all: Vec<(&[u8], &[u8])> = known.collect();
        all.extend(fresh.iter().map(|(name, bytes)| (name.as_slice(), bytes.as_slice())));
        if all.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() > bounds::INDEX_BYTES {
            return None;
        }
        Some((&self.path, bundle::encode(all)))
    }
}
