//! Errors of the store, each with the path it is about.

use std::io;
use std::path::{Path, PathBuf};

/// A file of the store that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", path.display())]
pub struct StoreError {
    /// `read`, `write`, …
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the system.
    #[source]
    pub source: io::Error,
}

impl StoreError {
    /// An error of the system at a path.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

/// The result of the functions of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why a folder cannot be opened as a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An error of the system.
    #[error(transparent)]
    Io(#[from] StoreError),
    /// The folder has files that are not those of a store.
    #[error("`{}` is not empty and not a Millrace store", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// A store of another layout.
    #[error(
        "the store `{}` has the layout `{found}`, and this program uses `{wanted}`: choose another with `--store`, or remove it; if only its file LAYOUT is damaged, remove that",
        path.display()
    )]
    Layout {
        /// The folder.
        path: PathBuf,
        /// The layout that its file names.
        found: String,
        /// The layout of this program.
        wanted: &'static str,
    },
}
