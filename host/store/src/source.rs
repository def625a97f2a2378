//! Digests of source files, with a memo by path, size, mtime and inode, so that
//! a file that did not change costs a `stat`, however large it is.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_platform::{Identity, open_regular};
use millrace_types::wire::Kind;
use millrace_types::{MemoName, Record, Reference, SourceDigest};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::hash_file;
use crate::store::Store;

/// The result of a stat of a file: while the stamp stays the same, so does the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    size: u64,
    modified_ns: u128,
    /// The time of the last change of the inode, which no program can set: it reveals a
    /// file that was written and then given its old times.
    changed_ns: i128,
    inode: u64,
    device: u64,
}

impl FileStamp {
    /// The stamp of a file.
    pub fn new(meta: &Metadata) -> Self {
        let modified = meta.modified().unwrap_or(UNIX_EPOCH);
        let Identity { inode, device, changed_ns } = Identity::new(meta);
        Self { size: meta.len(), modified_ns: since_epoch(modified), changed_ns, inode, device }
    }

    /// Whether the file could have been written again within the same tick of
    /// the clock, so that equal stamps prove nothing (git calls it racily clean).
    pub fn is_racy(&self, at: SystemTime) -> bool {
        const TICK: Duration = Duration::from_millis(20);
        self.modified_ns + TICK.as_nanos() >= since_epoch(at)
    }
}

fn since_epoch(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// The digest that a file had when it had a stamp.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileMemo {
    path: PathBuf,
    stamp: FileStamp,
    digest: SourceDigest,
}

impl Record for FileMemo {
    const KIND: Kind = Kind::Memo;
    type Name = MemoName;

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}

impl Store {
    /// The digest of a file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn source_digest(&self, path: &Path) -> Result<SourceDigest> {
        self.source(path).map(|(digest, _)| digest)
    }

    /// Whether a file has not been written since it had this digest and this stamp.
    pub fn is_unchanged(&self, path: &Path, (digest, stamp): &(SourceDigest, FileStamp)) -> bool {
        let now = std::fs::metadata(path).map(|meta| FileStamp::new(&meta));
        // Equal digests do not suffice: it may have been another file in between.
        now.is_ok_and(|now| now == *stamp) && self.source(path).is_ok_and(|(found, _)| found == *digest)
    }

    /// The digest of a file's content, and its stamp before it was read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn source(&self, path: &Path) -> Result<(SourceDigest, FileStamp)> {
        self.sources(&[path]).map(|mut one| one.swap_remove(0))
    }

    /// The digests and stamps of several files, in their order. Files without a valid memo
    /// are read by as many threads as the store may use.
    ///
    /// # Errors
    /// When one cannot be read, or the run is cancelled.
    pub fn sources(&self, paths: &[impl AsRef<Path>]) -> Result<Vec<(SourceDigest, FileStamp)>> {
        let mut known = Vec::with_capacity(paths.len());
        let mut unknown = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            let file = Stat::of(path.as_ref())?;
            known.push(self.known(&file).map(|digest| (digest, file.stamp)));
            if known[index].is_none() {
                unknown.push((index, file));
            }
        }
        let size = |(_, file): &(usize, Stat<'_>)| file.stamp.size;
        let open = |(_, file): &(usize, Stat<'_>)| open_regular(file.path);
        let done = |(index, file): &(usize, Stat<'_>), hash: io::Result<blake3::Hash>| {
            let what = |error: io::Error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other("it changed while it was read: run again"),
                _ => error,
            };
            let digest = hash.map_err(|error| StoreError::new("read", file.path, what(error)))?.into();
            self.remember(file, digest).map(|()| (*index, (digest, file.stamp)))
        };
        let by = hash_file::Readers::new(self.threads(), &self.stop);
        for found in hash_file::digests(&unknown, &by, size, open, done) {
            let (index, found) = found?;
            known[index] = Some(found);
        }
        Ok(known.into_iter().flatten().collect())
    }

    /// The digest that a file had with this stamp.
    fn known(&self, file: &Stat<'_>) -> Option<SourceDigest> {
        let memo = self.record::<FileMemo>(&file.name())?;
        (memo.stamp == file.stamp && memo.path == file.absolute).then_some(memo.digest)
    }

    /// Stores the memo of a file, unless it changed while it was read.
    fn remember(&self, file: &Stat<'_>, digest: SourceDigest) -> Result<()> {
        let Stat { path, absolute, stamp, at } = file;
        let after = std::fs::metadata(path).map_err(|error| StoreError::new("read", path, error))?;
        if FileStamp::new(&after) != *stamp || stamp.is_racy(*at) {
            return Ok(());
        }
        self.put_record(&file.name(), &FileMemo { path: absolute.clone(), stamp: *stamp, digest })
    }
}

/// A file and its stat.
struct Stat<'p> {
    path: &'p Path,
    absolute: PathBuf,
    stamp: FileStamp,
    at: SystemTime,
}

impl<'p> Stat<'p> {
    fn of(path: &'p Path) -> Result<Self> {
        let read = |source| StoreError::new("read", path, source);
        let absolute = std::path::absolute(path).map_err(read)?;
        let meta = std::fs::metadata(path).map_err(read)?;
        if !meta.is_file() {
            // A pipe has no content that could be digested twice.
            return Err(read(io::Error::other("it is not a regular file")));
        }
        Ok(Self { path, absolute, stamp: FileStamp::new(&meta), at: SystemTime::now() })
    }

    /// The name of its memo.
    fn name(&self) -> MemoName {
        MemoName::of(self.absolute.as_os_str().as_encoded_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that was changed for a moment is not unchanged, even if its bytes, its size and
    /// its times are restored.
    #[test]
    fn a_file_that_was_written_is_not_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let path = folder.path().join("rows.csv");
        std::fs::write(&path, "one").unwrap();
        let before = store.source(&path).unwrap();
        assert!(store.is_unchanged(&path, &before));
        std::thread::sleep(Duration::from_millis(30));
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "two").unwrap();
        std::fs::write(&path, "one").unwrap();
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(store.source(&path).unwrap().0, before.0);
        assert!(!store.is_unchanged(&path, &before));
        std::fs::remove_file(&path).unwrap();
        assert!(!store.is_unchanged(&path, &before));
    }
}
