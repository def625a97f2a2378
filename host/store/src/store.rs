//! The store as one run uses it: a folder, an index of records, claims, and the number of threads
//! that may work for it.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_types::{ActionKey, ComponentDigest, IndexName};

use crate::backend::Backend;
use crate::claim::{Claim, Claims};
use crate::error::{OpenError, Result};
use crate::folder::Folder;
use crate::index::Index;
use crate::remote::{Remote, Traffic, VerifyPack};

/// A store in a folder. Cheap to clone, and shared by threads and processes.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) folder: Folder,
    pub(crate) index: Option<Arc<Index>>,
    pub(crate) remote: Option<Arc<Remote>>,
    claims: Claims,
    threads: Option<NonZero<usize>>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Store {
    /// Opens the store in a folder, creating it if there is none.
    ///
    /// # Errors
    /// When the folder belongs to something else or cannot be written.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            folder: Folder::open(root)?,
            index: None,
            remote: None,
            claims: Claims::default(),
            threads: None,
            stop: Arc::default(),
        })
    }

    /// This store, with a remote one as its second level. `verify_pack` checks the packs that are
    /// fetched.
    #[must_use]
    pub fn with_remote(self, url: &str, backend: Box<dyn Backend>, verify_pack: VerifyPack) -> Self {
        let remote = Remote::new(url.to_owned(), backend, self.folder.clone(), verify_pack);
        Self { remote: Some(Arc::new(remote)), ..self }
    }

    /// The URL of the remote store.
    pub fn remote_url(&self) -> Option<&str> {
        self.remote.as_ref().map(|remote| remote.url())
    }

    /// Waits until everything is uploaded to the remote store. Returns what was exchanged with
    /// it and, if it failed, why; `None` without one.
    pub fn finish_remote(&self) -> Option<(Traffic, Option<String>)> {
        self.remote.as_ref().map(|remote| remote.finish())
    }

    /// This store, for a run that uses at most `threads` threads and stops long work when
    /// `stop` is set.
    #[must_use]
    pub fn used_by(self, threads: usize, stop: Arc<AtomicBool>) -> Self {
        Self { threads: NonZero::new(threads.max(1)), stop, ..self }
    }

    /// Whether the run that uses it is cancelled.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Threads that may read and digest at once: those of the run, or all of this machine.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    /// The path of its folder.
    pub fn root(&self) -> &Path {
        self.folder.root()
    }

    /// The file for the compiled code of a component, by an engine with this fingerprint.
    pub fn compiled_path(&self, fingerprint: &str, component: &ComponentDigest) -> PathBuf {
        self.root().join("compiled").join(fingerprint).join(component.hex())
    }

    /// The folder of the history.
    pub fn runs(&self) -> PathBuf {
        self.root().join("runs")
    }

    /// Writes a complete file at once: a reader sees its old content or the new one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.folder.write_file(path, bytes)
    }

    /// Waits until no other process computes this key; `None` if `gives_up` returns true
    /// first. Afterwards the caller looks for the record again: the other process may have
    /// written it. Within one process the caller claims each key once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn claim(&self, key: &ActionKey, gives_up: &dyn Fn() -> bool) -> Result<Option<Claim>> {
        self.claims.claim(&self.folder, key, gives_up)
    }

    /// This store, with the index of the records that the last run of this name used.
    #[must_use]
    pub fn with_index(&self, name: &IndexName) -> Self {
        let path = self.folder.sharded("index", &name.hex());
        Self { index: Some(Arc::new(Index::read(path))), ..self.clone() }
    }

    /// Writes the index, if this run used other records than the last one. To be called once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_index(&self) -> Result<()> {
        match self.index.as_ref().and_then(|index| index.changed()) {
            Some((path, bytes)) => self.folder.write_file(path, &bytes),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
