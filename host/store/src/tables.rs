//! Tables by digest, so that they can be shown.
//!
//! The tables that a run made lie in one file, named by what is in it: a file for each
//! would cost more than many a task. A pipeline's index knows the files of its last run,
//! so that the next adds what is new, and looks for a few files and not for all tables.

use std::path::PathBuf;

use millrace_types::wire::{self, Kind};
use millrace_types::{Hex, Table, TableDigest};
use serde::{Deserialize, Serialize};

use crate::bundle::{self, Bundle, Name, name};
use crate::{Result, Store, object};

/// Files that the tables of a pipeline lie in at most; then they are put together in one.
const FILES: usize = 16;

/// Bytes of records in a file, after which another is begun.
const FILE_BYTES: usize = 64 << 20;

/// A file of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFile {
    contents: [u8; 32],
    size: u64,
}

impl Store {
    fn table_path(&self, file: &TableFile) -> PathBuf {
        self.sharded("tables", Hex::of(&file.contents).as_str())
    }

    fn tables_in(&self, file: &TableFile) -> Option<Bundle> {
        let path = self.table_path(file);
        let tables = Bundle::new(object::map(&path, file.size).ok()?);
        if tables.contents() != Some(file.contents) {
            let _ = std::fs::remove_file(&path);
            return None;
        }
        Some(tables)
    }

    /// Whether a file of tables is there, by its size.
    pub fn has_tables(&self, file: &TableFile) -> bool {
        object::is_file_of(&self.table_path(file), file.size)
    }

    /// Keeps those of the tables of a pipeline that the files of its last run do not have.
    /// In the files that this returns are all of them.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_tables(&self, tables: &[(TableDigest, &Table)]) -> Result<Vec<TableFile>> {
        let known = self.index.as_ref().and_then(|index| index.tables()).unwrap_or_default();
        let mut files: Vec<(TableFile, Bundle, bool)> =
            known.iter().filter_map(|file| Some((*file, self.tables_in(file)?, false))).collect();
        let mut is_new = |digest: &TableDigest| {
            let found = files.iter_mut().find(|(_, tables, _)| tables.find(Kind::Table, digest.as_bytes()).is_some());
            found.map(|(_, _, is_used)| *is_used = true).is_none()
        };
        let mut new: Vec<&(TableDigest, &Table)> = tables.iter().filter(|(digest, _)| is_new(digest)).collect();
        let mut kept: Vec<TableFile> = files.iter().filter(|(_, _, used)| *used).map(|(file, ..)| *file).collect();
        if kept.len() >= FILES && !new.is_empty() {
            kept.clear();
            new = tables.iter().collect();
        }
        let mut records: Vec<(Name, Vec<u8>)> = Vec::with_capacity(new.len());
        let mut bytes = 0;
        for (digest, table) in new {
            let record = wire::encode(Kind::Table, digest.as_bytes(), table);
            bytes += record.len();
            records.push((name(Kind::Table, digest.as_bytes()), record));
            if bytes > FILE_BYTES {
                kept.push(self.put_tables(&std::mem::take(&mut records))?);
                bytes = 0;
            }
        }
        if !records.is_empty() {
            kept.push(self.put_tables(&records)?);
        }
        if let Some(index) = &self.index {
            index.keep_tables(&kept);
        }
        Ok(kept)
    }

    fn put_tables(&self, records: &[(Name, Vec<u8>)]) -> Result<TableFile> {
        let records = records.iter().map(|(name, bytes)| (name.as_slice(), bytes.as_slice()));
        let (bytes, contents) = bundle::encode(records.collect());
        let file = TableFile { contents, size: bytes.len() as u64 };
        self.write_file(&self.table_path(&file), &bytes)?;
        Ok(file)
    }

    /// Looks for a table in all files. One that was harmed is taken away: its tables are
    /// kept anew by the next run that has them.
    pub fn table(&self, digest: &TableDigest) -> Option<Table> {
        self.files_in("tables").find_map(|path| {
            let found = self.object_bytes(&path).and_then(|bytes| {
                let tables = Bundle::new(bytes);
                let is_named = Hex::of(&tables.contents()?).as_str() == path.file_name()?.to_str()?;
                is_named.then_some(tables)
            });
            let decoded = found.map(|tables| {
                let place = tables.find(Kind::Table, digest.as_bytes())?;
                Some(wire::decode(Kind::Table, digest.as_bytes(), tables.bytes_of(place)))
            });
            match decoded {
                Some(None) => None,
                Some(Some(Some(table))) => Some(table),
                None | Some(Some(None)) => {
                    let _ = std::fs::remove_file(&path);
                    None
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: [u8; 32] = [7; 32];

    fn table(fields: u32) -> (TableDigest, Table) {
        let parts = (0..fields).map(|rows| millrace_types::Part { rows: rows.into(), columns: Vec::new() }.into());
        let table = Table { parts: parts.collect(), ..Table::default() };
        (table.digest(), table)
    }

    fn keep(store: &Store, tables: &[u32]) -> Vec<TableFile> {
        let tables: Vec<_> = tables.iter().map(|fields| table(*fields)).collect();
        let store = store.with_index(&RUN);
        let files = store.keep_tables(&tables.iter().map(|(digest, table)| (*digest, table)).collect::<Vec<_>>());
        store.keep_index().unwrap();
        files.unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn only_what_is_new_is_written_and_all_is_found() {
        let (_folder, store) = store();
        let first = keep(&store, &[1, 2, 3]);
        assert_eq!(keep(&store, &[3, 2, 1]), first);
        let second = keep(&store, &[1, 2, 4, 4]);
        assert_eq!((first.len(), second.len(), second[0]), (1, 2, first[0]));
        assert!(second[1].size < first[0].size);
        assert_eq!(keep(&store, &[4]), second[1..]);
        for fields in 1..=4 {
            let (digest, table) = table(fields);
            assert_eq!(store.table(&digest), Some(table));
        }
        assert_eq!(store.table(&table(5).0), None);
    }

    #[test]
    fn many_files_become_one() {
        let (_folder, store) = store();
        let mut most = 0;
        for last in 1..100 {
            let files = keep(&store, &(1..=last).collect::<Vec<_>>());
            assert!(files.iter().all(|file| store.has_tables(file)));
            most = most.max(files.len());
        }
        assert_eq!(most, FILES);
        (1..100).for_each(|fields| assert_eq!(store.table(&table(fields).0), Some(table(fields).1)));
    }

    #[test]
    fn what_was_harmed_is_never_believed_and_is_made_again() {
        let (_folder, store) = store();
        let files = keep(&store, &[1, 2]);
        let path = store.table_path(&files[0]);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&whole[..at], &flipped] {
                std::fs::write(&path, bytes).unwrap();
                for fields in [1, 2] {
                    let (digest, table) = table(fields);
                    assert!(store.table(&digest).is_none_or(|found| found == table));
                }
                assert!(!path.exists(), "a file that is harmed at {at} is taken away");
                assert_eq!(keep(&store, &[1, 2]), files);
                assert_eq!(store.table(&table(2).0), Some(table(2).1));
            }
        }
        // Whole, and in the place of another.
        let others = keep(&store, &[8, 9]);
        std::fs::copy(&path, store.table_path(&others[0])).unwrap();
        assert_eq!(store.table(&table(8).0), None);
        assert_eq!(keep(&store, &[8, 9]), others);
        assert_eq!(store.table(&table(8).0), Some(table(8).1));
    }
}
