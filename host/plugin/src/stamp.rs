//! Whether a crate has changed, by a stat of its sources.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What a stat says of a file: size, when it was written, and when anything of it changed,
/// which nobody can set, and what file it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct FileStamp {
    path: PathBuf,
    size: u64,
    modified_ns: u128,
    changed_ns: i128,
    inode: u64,
}

/// What a stat says of every source file of a crate, in the order of paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStamp {
    files: Vec<FileStamp>,
}

impl SourceStamp {
    /// The stamp with these files in it, too: those that the compiler said it read.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn with(mut self, read: &[PathBuf]) -> io::Result<Self> {
        for path in read {
            self.files.push(of_file(path, &fs::metadata(path)?)?);
        }
        self.files.sort();
        self.files.dedup();
        Ok(self)
    }

    /// Whether a source may have been written since: then nobody knows what a build that
    /// began at that time has read. Cargo writes its lock file itself.
    pub fn is_newer_than(&self, began: SystemTime) -> bool {
        let began = (began.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(TICK)).as_nanos();
        let sources = self.files.iter().filter(|file| !file.path.ends_with("Cargo.lock"));
        sources.into_iter().any(|file| file.modified_ns >= began || file.changed_ns >= began.cast_signed())
    }

    /// Whether the same files are as they were.
    pub fn is_current(&self, folder: &Path) -> bool {
        let read: Vec<PathBuf> = self.files.iter().map(|file| file.path.clone()).collect();
        stamp(folder).and_then(|stamp| stamp.with(&read)).is_ok_and(|stamp| stamp == *self)
    }
}

fn of_file(path: &Path, meta: &fs::Metadata) -> io::Result<FileStamp> {
    let modified_ns = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let (inode, changed_ns) = identity(meta);
    Ok(FileStamp { path: path.to_owned(), size: meta.len(), modified_ns, changed_ns, inode })
}

#[cfg(unix)]
fn identity(meta: &fs::Metadata) -> (u64, i128) {
    use std::os::unix::fs::MetadataExt;
    (meta.ino(), i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()))
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> (u64, i128) {
    (0, 0)
}

/// Ticks of the clock by which files are stamped are no longer than this.
const TICK: Duration = Duration::from_millis(20);

/// More files than this are no step.
const FILES: usize = 20_000;

/// The stamp of the files in the folder of a crate, and of what its workspace decides. What
/// else the compiler read, of other crates or by `include_str!`, is known after a build:
/// [`SourceStamp::with`].
///
/// # Errors
/// When a folder cannot be read, or has too many files.
pub fn stamp(folder: &Path) -> io::Result<SourceStamp> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
                continue;
            }
            if files.len() >= FILES {
                return Err(io::Error::other(format!("more than {FILES} files")));
            }
            files.push(of_file(&entry.path(), &meta)?);
        }
    }
    // What the workspace decides for the crate.
    for above in folder.ancestors().skip(1).take(8) {
        for name in ["Cargo.lock", "Cargo.toml"] {
            if let Ok(meta) = fs::metadata(above.join(name)) {
                files.push(of_file(&above.join(name), &meta)?);
            }
        }
    }
    files.sort();
    files.dedup();
    Ok(SourceStamp { files })
}
