//! Tables by digest, for `host show`.
//!
//! The tables of a run are in one file, named by its content: a file for each table would cost
//! more than many tasks do. A pipeline's index lists the files of its last run, so that the next
//! run writes only new tables, and checks a few files instead of all tables.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use millrace_types::wire::{self, Kind};
use millrace_types::{Digest, Table, TableDigest, TableFileDigest};

use crate::bundle::{self, Bundle, EntryName, entry_name};
use crate::error::Result;
use crate::store::Store;
use crate::table_file::TableFile;

/// Maximum number of files for the tables of a pipeline; beyond that they are merged into one.
const MAX_FILES: usize = 16;

/// Bytes of records in a file, after which the next one is begun.
const FILE_BYTES: usize = 64 << 20;

impl Store {
    fn table_path(&self, file: &TableFile) -> PathBuf {
        self.folder.sharded("tables", &file.contents.hex())
    }

    /// The bytes of a file of tables, if they match its name.
    fn table_bytes(&self, file: &TableFile) -> Option<Bytes> {
        let path = self.table_path(file);
        let bytes = self.object_bytes(&path).filter(|bytes| bytes.len() as u64 == file.size)?;
        (TableFileDigest::of(&bytes) == file.contents).then_some(bytes)
    }

    /// Whether a file of tables is present and intact.
    pub fn has_tables(&self, file: &TableFile) -> bool {
        self.table_bytes(file).is_some()
    }

    /// Stores those tables of a pipeline that the files of its last run do not hold. Returns
    /// the files that together hold all of them.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_tables(&self, tables: &[(TableDigest, &Table)]) -> Result<Vec<TableFile>> {
        let known = self.index.as_ref().and_then(|index| index.tables()).unwrap_or_default();
        let mut files: Vec<(TableFile, Bundle, bool)> =
            known.iter().filter_map(|file| Some((*file, Bundle::new(self.table_bytes(file)?), false))).collect();
        let mut is_new = |digest: &TableDigest| {
            let found =
                files.iter_mut().find(|(_, tables, _)| tables.find(Kind::Table, &digest.record_name()).is_some());
            found.map(|(_, _, is_used)| *is_used = true).is_none()
        };
        let mut new: Vec<&(TableDigest, &Table)> = tables.iter().filter(|(digest, _)| is_new(digest)).collect();
        let mut kept: Vec<TableFile> = files.iter().filter(|(_, _, used)| *used).map(|(file, ..)| *file).collect();
        if kept.len() >= MAX_FILES && !new.is_empty() {
            kept.clear();
            new = tables.iter().collect();
        }
        let mut records: Vec<(EntryName, Vec<u8>)> = Vec::with_capacity(new.len());
        let mut bytes = 0;
        for (digest, table) in new {
            let record = wire::encode(Kind::Table, digest.as_bytes(), table);
            bytes += record.len();
            records.push((entry_name(Kind::Table, &digest.record_name()), record));
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

    fn put_tables(&self, records: &[(EntryName, Vec<u8>)]) -> Result<TableFile> {
        let records = records.iter().map(|(name, bytes)| (name.as_slice(), bytes.as_slice()));
        let bytes = bundle::encode(records.collect());
        let file = TableFile { contents: TableFileDigest::of(&bytes), size: bytes.len() as u64 };
        self.folder.write_file(&self.table_path(&file), &bytes)?;
        Ok(file)
    }

    /// Looks for a table in all files. A corrupt file is removed, and its intact records are
    /// moved to another.
    pub fn table(&self, digest: &TableDigest) -> Option<Table> {
        self.folder.files_in("tables").find_map(|path| {
            let Some(tables) = self.object_bytes(&path).map(Bundle::new) else {
                let _ = std::fs::remove_file(&path);
                return None;
            };
            let entry = tables.find(Kind::Table, &digest.record_name());
            let found = entry.and_then(|entry| wire::decode(Kind::Table, digest.as_bytes(), tables.bytes_of(entry)));
            if tables.len() == 0 || (entry.is_some() && found.is_none()) {
                self.salvage(&path, &tables);
            }
            found
        })
    }

    /// Moves the intact records of a corrupt file to another. Each has a checksum of its own.
    fn salvage(&self, path: &Path, tables: &Bundle) {
        let records = (0..tables.len()).map(|entry| (tables.name_of(entry), tables.bytes_of(entry)));
        let is_intact =
            |(name, bytes): &(&[u8; bundle::NAME], &[u8])| wire::body(Kind::Table, &name[1..], bytes).is_some();
        let intact: Vec<(EntryName, Vec<u8>)> =
            records.filter(is_intact).map(|(name, bytes)| (*name, bytes.to_vec())).collect();
        // If they cannot be written, the next run of the pipeline writes them.
        if !intact.is_empty() && self.put_tables(&intact).is_err() {
            return;
        }
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use millrace_types::IndexName;

    use super::*;

    const RUN: IndexName = IndexName::from_bytes([7; 32]);

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
    fn only_new_tables_are_written_and_all_are_found() {
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
    fn many_files_are_merged_into_one() {
        let (_folder, store) = store();
        let mut largest = 0;
        for last in 1..100 {
            let files = keep(&store, &(1..=last).collect::<Vec<_>>());
            assert!(files.iter().all(|file| store.has_tables(file)));
            largest = largest.max(files.len());
        }
        assert_eq!(largest, MAX_FILES);
        (1..100).for_each(|fields| assert_eq!(store.table(&table(fields).0), Some(table(fields).1)));
    }

    #[test]
    fn a_corrupt_file_is_never_used_and_is_written_again() {
        let (folder, store) = store();
        let files = keep(&store, &[1, 2]);
        let path = store.table_path(&files[0]);
        let intact = std::fs::read(&path).unwrap();
        for at in 0..intact.len() {
            let mut flipped = intact.clone();
            flipped[at] ^= 1;
            for bytes in [&intact[..at], &flipped] {
                // Whether a run comes first, or a reader of a table.
                for reads in [false, true] {
                    std::fs::write(&path, bytes).unwrap();
                    assert!(!store.has_tables(&files[0]), "a file that is corrupt at {at} is detected");
                    for fields in [1, 2].into_iter().filter(|_| reads) {
                        let (digest, table) = table(fields);
                        assert!(store.table(&digest).is_none_or(|found| found == table));
                    }
                    assert_eq!(keep(&store, &[1, 2]), files);
                    for fields in [1, 2] {
                        assert_eq!(store.table(&table(fields).0), Some(table(fields).1));
                    }
                }
            }
        }
        // A corrupt record does not affect the others in its file.
        let mut flipped = intact.clone();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        store.folder.files_in("tables").for_each(|file| std::fs::remove_file(file).unwrap());
        std::fs::write(&path, flipped).unwrap();
        let found = [1, 2].map(|fields| store.table(&table(fields).0).is_some());
        assert_eq!(found.into_iter().filter(|found| *found).count(), 1);
        let found = [1, 2].map(|fields| store.table(&table(fields).0).is_some());
        assert_eq!(found.into_iter().filter(|found| *found).count(), 1, "the record that was moved is found");
        assert!(!path.exists());
        // A link to the file does not count as the file.
        assert_eq!(keep(&store, &[1, 2]), files);
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("moved"), &path).unwrap();
        assert!(!store.has_tables(&files[0]));
        assert_eq!(keep(&store, &[1, 2]), files);
        assert!(store.has_tables(&files[0]));
        // An intact file under the name of another.
        let others = keep(&store, &[8, 9]);
        std::fs::copy(&path, store.table_path(&others[0])).unwrap();
        assert!(!store.has_tables(&others[0]));
        assert_eq!(store.table(&table(8).0), None);
        assert_eq!(keep(&store, &[8, 9]), others);
        assert_eq!(store.table(&table(8).0), Some(table(8).1));
    }
}
