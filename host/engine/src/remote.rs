//! A remote store by its URL.

use std::path::PathBuf;

use millrace_store::{Folder, OpenError, Store};
use millrace_tables::pack;

/// Why a remote store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No kind of remote store has such a URL.
    #[error("`{url}` is not the URL of a remote store: expected `file:///FOLDER`, with an absolute path")]
    Url {
        /// The URL.
        url: String,
    },
    /// It is the folder of the local store.
    #[error("the remote store `{url}` is the store of this run itself: name another folder")]
    Same {
        /// The URL.
        url: String,
    },
    /// The folder cannot be opened.
    #[error("cannot open the remote store `{url}`: {error}")]
    Open {
        /// The URL.
        url: String,
        /// Why.
        error: OpenError,
    },
}

/// What a run exchanged with its remote store.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct RemoteReport {
    /// Objects and records that were fetched.
    pub fetched: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Objects and records that were uploaded.
    pub uploaded: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// The first failure; after it the run went on without the remote store, or without the object
    /// that failed.
    pub error: Option<String>,
}

/// A store that reads through the remote store at `url` and writes what it publishes back to
/// it. The only URLs are `file:///FOLDER`, without escapes.
///
/// # Errors
/// When the URL is not understood or the remote store cannot be opened.
pub fn with_remote(store: Store, url: &str) -> Result<Store, RemoteError> {
    let invalid = || RemoteError::Url { url: url.to_owned() };
    let path = url.strip_prefix("file://").map(PathBuf::from).ok_or_else(invalid)?;
    // An escape could mean two folders: it is refused rather than guessed.
    if !path.is_absolute() || url.contains(['%', '?', '#']) {
        return Err(invalid());
    }
    let folder = Folder::open(&path).map_err(|error| RemoteError::Open { url: url.to_owned(), error })?;
    let is_same = match (path.canonicalize(), store.root().canonicalize()) {
        (Ok(remote), Ok(local)) => remote == local,
        _ => path == store.root(),
    };
    if is_same {
        return Err(RemoteError::Same { url: url.to_owned() });
    }
    Ok(store.with_remote(url, Box::new(folder), pack::is_intact))
}

/// Waits until everything is uploaded; `None` without a remote store.
pub fn finish_remote(store: &Store) -> Option<RemoteReport> {
    let (traffic, error) = store.finish_remote()?;
    Some(RemoteReport {
        fetched: traffic.fetched,
        fetched_bytes: traffic.fetched_bytes,
        uploaded: traffic.uploaded,
        uploaded_bytes: traffic.uploaded_bytes,
        error,
    })
}
