//! Whether what lies in the store is what was put there.
//!
//! What this process did not make itself is held against its digest when it is first read:
//! beside the guest that reads it, and before anything that came of it is kept. Whoever has to
//! wait for that helps. What is not as it was is removed, so that the next run makes it again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;
use millrace_store::{ObjectName, Store};
use millrace_tables::{ColumnBytes, pack};
use millrace_types::{BlobDigest, BlobRef, ColumnDigest, PackDigest, StoredChunk};
use millrace_wasm::DataError;

use crate::data::{PLACES, lock, place_of};

/// Columns that wait to be looked at; whoever reads faster looks at its own.
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
    queue: ArrayQueue<Claim>,
    /// Nobody reads any more.
    is_over: AtomicBool,
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
    /// One that looks beside the workers, if the system has one.
    thread: OnceLock<Option<Thread>>,
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(Some(thread)) = self.thread.get() {
            thread.unpark();
        }
    }
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

    /// Looks at what waits.
    fn look_at_all(&self) {
        while let Some(claim) = self.queue.pop() {
            self.look(&claim);
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
            queue: ArrayQueue::new(AHEAD),
            is_over: AtomicBool::new(false),
            known: Default::default(),
            pending: AtomicUsize::new(0),
            is_damaged: AtomicBool::new(false),
            damaged: Mutex::new(None),
            settled: Condvar::new(),
        };
        Self { shared: Arc::new(shared), thread: OnceLock::new() }
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
        let thread = self.thread.get_or_init(|| {
            let shared = self.shared.clone();
            let look = move || {
                while !shared.is_over.load(Ordering::SeqCst) {
                    shared.look_at_all();
                    std::thread::park();
                }
            };
            let thread = std::thread::Builder::new().name("verify".to_owned()).spawn(look);
            thread.ok().map(|thread| thread.thread().clone())
        });
        match (thread, self.shared.queue.push(claim)) {
            (Some(thread), Ok(())) => thread.unpark(),
            (None, Ok(())) => self.shared.look_at_all(),
            (_, Err(claim)) => self.shared.look(&claim),
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
        self.shared.look_at_all();
        let damaged = lock(&self.shared.damaged);
        let damaged = self.shared.settled.wait_while(damaged, |_| is_pending());
        let damaged = damaged.unwrap_or_else(PoisonError::into_inner);
        damaged.clone().map_or(Ok(()), |message| Err(DataError(message)))
    }
}
