//! Detects whether a crate has changed, by a `stat` of its sources.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_platform::Identity;
use serde::{Deserialize, Serialize};

/// The `stat` of a file: its size, its times, of which that of the inode cannot be set, and its
/// inode.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct FileStamp {
    path: PathBuf,
    size: u64,
    modified_ns: u128,
    changed_ns: i128,
    inode: u64,
}

/// The `stat` of every source file of a crate, in the order of paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStamp {
    files: Vec<FileStamp>,
}

impl SourceStamp {
    /// Adds to the stamp the files that the compiler reported as read.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn with(mut self, read: &[PathBuf]) -> io::Result<Self> {
        for path in read {
            self.files.push(of_file(path, &fs::metadata(path)?)?);
        }
        self.files.sort();
        self.files.dedup();
        Ok(self)
    }

    /// Whether a source may have been written since `began`: then it is unknown what a build
    /// that began at that time has read. `Cargo.lock` does not count: Cargo writes it itself.
    pub fn is_newer_than(&self, began: SystemTime) -> bool {
        let began = (began.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(TICK)).as_nanos();
        let sources = self.files.iter().filter(|file| !file.path.ends_with("Cargo.lock"));
        sources.into_iter().any(|file| file.modified_ns >= began || file.changed_ns >= began.cast_signed())
    }

    /// Whether the same files are unchanged.
    pub fn is_current(&self, folder: &Path) -> bool {
        let read: Vec<PathBuf> = self.files.iter().map(|file| file.path.clone()).collect();
        stamp(folder).and_then(|stamp| stamp.with(&read)).is_ok_and(|stamp| stamp == *self)
    }
}

fn of_file(path: &Path, meta: &fs::Metadata) -> io::Result<FileStamp> {
    let modified_ns = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let Identity { inode, changed_ns, .. } = Identity::new(meta);
    Ok(FileStamp { path: path.to_owned(), size: meta.len(), modified_ns, changed_ns, inode })
}

/// File timestamps are at least this precise.
const TICK: Duration = Duration::from_millis(20);

/// The maximum number of files of a step.
const MAX_FILES: usize = 20_000;

/// The stamp of the files in the folder of a crate, and of the files of its workspace that
/// affect it. The other files that the compiler reads, of other crates or by `include_str!`,
/// are known after a build: [`SourceStamp::with`].
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
            if files.len() >= MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files")));
            }
            files.push(of_file(&entry.path(), &meta)?);
        }
    }
    // The files of the workspace that affect the crate.
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
