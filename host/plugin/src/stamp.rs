//! Whether a crate has changed, by a stat of its sources.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// What a stat says of every source file of a crate, in the order of paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStamp {
    files: Vec<(PathBuf, u64, u128)>,
}

/// More files than this are no step.
const FILES: usize = 20_000;

/// The stamp of the sources of a crate, and of the path dependencies that lie
/// beside it in its workspace.
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
            let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            files.push((entry.path(), meta.len(), modified));
        }
    }
    // What the workspace decides for the crate.
    for above in folder.ancestors().skip(1).take(8) {
        for name in ["Cargo.lock", "Cargo.toml"] {
            if let Ok(meta) = fs::metadata(above.join(name)) {
                let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                files.push((above.join(name), meta.len(), modified));
            }
        }
    }
    files.sort();
    Ok(SourceStamp { files })
}
