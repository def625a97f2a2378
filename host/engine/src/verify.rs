//! Whether what lies in the store is what was put there.
//!
//! What this process did not make itself is held against its digest when it is first read:
//! beside the guest that reads it, and before anything that came of it is kept. What is
//! not as it was is removed, so that the next run makes it again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use millrace_store::{ObjectName, Store};
use millrace_tables::{ColumnBytes, pack};
use millrace_types::{BlobDigest, BlobRef, ColumnDigest, PackDigest, StoredChunk};
use millrace_wasm::DataError;

use crate::data::{PLACES, lock, place_of};

/// Columns that wait to be looked at; whoever reads faster waits.
const AHEAD: usize = 32;

struct Claim {
    pack: PackDigest,
    digest: ColumnDigest,
    column: ColumnBytes,
}

/// What was looked at, is about to be, or was made here.
#[derive(Default)]
struct Known {
    /// By pack: equal columns may lie in several, and one of them be harmed.
    columns: HashSet<(PackDigest, ColumnDigest)>,
    blobs: HashSet<BlobDigest>,
}

struct Shared {
    store: Store,
    known: [Mutex<Known>; PLACES],
    /// What is known and not yet looked at: it counts before anybody else can find it known.
    pending: AtomicUsize,
    is_damaged: AtomicBool,
    damaged: Mutex<Option<String>>,
    /// For those who wait until nothing is pending.
    settled: Condvar,
}

/// Looks at what is read.
pub(crate) struct Verifier {
    shared: Arc<Shared>,
    queue: OnceLock<Option<SyncSender<Claim>>>,
}

impl Shared {
    fn known(&self, digest: &[u8; 32]) -> MutexGuard<'_, Known> {
        lock(place_of(&self.known, digest))
    }

    /// Takes away everything that is not what it is called: where one object was harmed
    /// others were, and each would cost a run.
    fn sweep(&self) {
        for (path, name) in self.store.objects() {
            let is_whole = self.store.object_bytes(&path).is_some_and(|bytes| match name {
                ObjectName::Pack(digest) => pack::is_whole(&bytes, &digest),
                ObjectName::Blob(digest) => BlobDigest::from(blake3::hash(&bytes)) == digest,
            });
            if !is_whole {
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }

    fn look(&self, Claim { pack, digest, column }: &Claim) {
        let is_as_it_was = column.digest() == *digest;
        if !is_as_it_was {
            self.store.discard_pack(pack);
            self.harmed("pack", pack);
        }
        self.looked();
    }

    /// Notes harm; the first time the whole store is looked at.
    fn harmed(&self, what: &str, digest: &dyn std::fmt::Display) -> String {
        let message = damaged(what, digest);
        let is_first = lock(&self.damaged).replace(message.clone()).is_none();
        self.is_damaged.store(true, Ordering::SeqCst);
        if is_first {
            self.sweep();
        }
        message
    }

    fn looked(&self) {
        if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Who waits has looked at the number under this lock.
            drop(lock(&self.damaged));
            self.settled.notify_all();
        }
    }
}

fn damaged(what: &str, digest: &dyn std::fmt::Display) -> String {
    format!("the {what} {digest} in the store was damaged; all that is, is removed: run again, and it is made anew")
}

/// Hears of what this process has just written, and need not look at.
pub(crate) struct Made(Arc<Shared>);

impl Made {
    /// Notes columns.
    pub(crate) fn note<'a>(&self, chunks: impl Iterator<Item = &'a StoredChunk>) {
        chunks.for_each(|chunk| {
            self.0.known(chunk.pack.as_bytes()).columns.insert((chunk.pack, chunk.digest));
        });
    }
}

impl Verifier {
    pub(crate) fn new(store: Store) -> Self {
        let shared = Shared {
            store,
            known: Default::default(),
            pending: AtomicUsize::new(0),
            is_damaged: AtomicBool::new(false),
            damaged: Mutex::new(None),
            settled: Condvar::new(),
        };
        Self { shared: Arc::new(shared), queue: OnceLock::new() }
    }

    /// For somebody who writes columns.
    pub(crate) fn made(&self) -> Made {
        Made(self.shared.clone())
    }

    /// Has a column looked at, if it is the first time that it is read.
    pub(crate) fn column(&self, chunk: &StoredChunk, column: &ColumnBytes) {
        {
            let mut known = self.shared.known(chunk.pack.as_bytes());
            if !known.columns.insert((chunk.pack, chunk.digest)) {
                return;
            }
            self.shared.pending.fetch_add(1, Ordering::SeqCst);
        }
        let claim = Claim { pack: chunk.pack, digest: chunk.digest, column: column.clone() };
        let queue = self.queue.get_or_init(|| {
            let (send, receive) = sync_channel::<Claim>(AHEAD);
            let shared = self.shared.clone();
            let look = move || receive.iter().for_each(|claim| shared.look(&claim));
            std::thread::Builder::new().name("verify".to_owned()).spawn(look).ok().map(|_| send)
        });
        match queue {
            Some(queue) => {
                if let Err(unsent) = queue.send(claim) {
                    self.shared.look(&unsent.0);
                }
            }
            None => self.shared.look(&claim),
        }
    }

    /// Looks at a blob, if it is the first time that it is read.
    pub(crate) fn blob(&self, blob: &BlobRef, bytes: &[u8]) -> Result<(), DataError> {
        {
            let mut known = self.shared.known(blob.digest.as_bytes());
            if !known.blobs.insert(blob.digest) {
                return Ok(());
            }
            // Whoever reads it meanwhile does not settle before this is known.
            self.shared.pending.fetch_add(1, Ordering::SeqCst);
        }
        let mut found = Ok(());
        if BlobDigest::from(blake3::hash(bytes)) != blob.digest {
            self.shared.store.discard_blob(&blob.digest);
            found = Err(DataError(self.shared.harmed("blob", &blob.digest)));
        }
        self.shared.looked();
        found
    }

    /// Waits until everything read so far was looked at.
    ///
    /// # Errors
    /// When something was not as it should be.
    pub(crate) fn settle(&self) -> Result<(), DataError> {
        let is_pending = || self.shared.pending.load(Ordering::SeqCst) > 0;
        if !is_pending() && !self.shared.is_damaged.load(Ordering::SeqCst) {
            return Ok(());
        }
        let damaged = lock(&self.shared.damaged);
        let damaged = self.shared.settled.wait_while(damaged, |_| is_pending());
        let damaged = damaged.unwrap_or_else(PoisonError::into_inner);
        damaged.clone().map_or(Ok(()), |message| Err(DataError(message)))
    }
}
