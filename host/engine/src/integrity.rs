//! Whether the bytes in the store match their digests.
//!
//! Objects that this process did not write itself are checked when they are first read: on another
//! thread than the guest that reads them, and before any result derived from them is stored. A
//! thread that waits for checks does some of them. A corrupt object is removed, and the next run
//! recomputes it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;
use millrace_store::{ObjectName, Store};
use millrace_tables::{ChunkError, ColumnBytes, pack};
use millrace_threads::lock;
use millrace_types::{BlobDigest, BlobRef, ColumnDigest, PackDigest, StoredChunk};

use crate::shards::Shards;

/// Columns that wait to be checked, at most; when the queue is full, the reader checks its own.
const QUEUE: usize = 32;

/// A column that was read and is not checked yet.
struct Unchecked {
    pack: PackDigest,
    digest: ColumnDigest,
    column: ColumnBytes,
}

/// Objects that are checked, are about to be, or were written by this process.
#[derive(Default)]
struct Checked {
    /// By pack: equal columns may be in several packs, of which one is corrupt.
    columns: HashSet<(PackDigest, ColumnDigest)>,
    blobs: HashSet<BlobDigest>,
}

struct VerifierState {
    store: Store,
    queue: ArrayQueue<Unchecked>,
    /// Whether no reader is left.
    is_over: AtomicBool,
    checked: Shards<Mutex<Checked>>,
    /// Checks that are due: counted before another reader can find them marked as checked.
    pending: AtomicUsize,
    is_corrupt: AtomicBool,
    error: Mutex<Option<String>>,
    /// Notified when no check is pending.
    settled: Condvar,
}

/// Checks objects when they are read.
pub(crate) struct Verifier {
    shared: Arc<VerifierState>,
    /// A thread that checks in parallel to the workers, if the system has one.
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

impl VerifierState {
    /// Removes every corrupt object: if one is corrupt others probably are, and finding each would
    /// cost a run.
    fn sweep(&self) {
        for (path, name) in self.store.objects() {
            let is_intact = self.store.object_bytes(&path).is_some_and(|bytes| match name {
                ObjectName::Pack(digest) => pack::is_intact(&bytes, &digest),
                ObjectName::Blob(digest) => BlobDigest::from(blake3::hash(&bytes)) == digest,
            });
            if !is_intact {
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }

    /// Checks the queued columns.
    fn check_queue(&self) {
        while let Some(unchecked) = self.queue.pop() {
            self.check(&unchecked);
        }
    }

    fn check(&self, Unchecked { pack, digest, column }: &Unchecked) {
        if column.digest() != *digest {
            self.store.discard_pack(pack);
            self.report("pack", pack);
        }
        self.done();
    }

    /// Records a corrupt object. The first time the whole store is checked.
    fn report(&self, what: &str, digest: &dyn std::fmt::Display) -> String {
        let message = corrupt(what, digest);
        let is_first = lock(&self.error).replace(message.clone()).is_none();
        self.is_corrupt.store(true, Ordering::SeqCst);
        if is_first {
            self.sweep();
        }
        message
    }

    fn done(&self) {
        if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            // A waiting thread has read the counter under this lock.
            drop(lock(&self.error));
            self.settled.notify_all();
        }
    }
}

fn corrupt(what: &str, digest: &dyn std::fmt::Display) -> String {
    format!("the {what} {digest} in the store was corrupt and has been removed; run again to recompute it")
}

/// Marks objects that this process has just written as checked.
#[derive(Clone)]
pub(crate) struct Written(Arc<VerifierState>);

impl Written {
    /// Marks columns.
    pub(crate) fn note<'a>(&self, chunks: impl Iterator<Item = &'a StoredChunk>) {
        chunks.for_each(|chunk| {
            lock(self.0.checked.of(&chunk.pack)).columns.insert((chunk.pack, chunk.digest));
        });
    }
}

impl Verifier {
    pub(crate) fn new(store: Store) -> Self {
        let shared = VerifierState {
            store,
            queue: ArrayQueue::new(QUEUE),
            is_over: AtomicBool::new(false),
            checked: Shards::default(),
            pending: AtomicUsize::new(0),
            is_corrupt: AtomicBool::new(false),
            error: Mutex::new(None),
            settled: Condvar::new(),
        };
        Self { shared: Arc::new(shared), thread: OnceLock::new() }
    }

    /// The marker for a writer of columns.
    pub(crate) fn written(&self) -> Written {
        Written(self.shared.clone())
    }

    /// Has a column checked when it is first read.
    pub(crate) fn column(&self, chunk: &StoredChunk, column: &ColumnBytes) {
        {
            let mut checked = lock(self.shared.checked.of(&chunk.pack));
            if !checked.columns.insert((chunk.pack, chunk.digest)) {
                return;
            }
            self.shared.pending.fetch_add(1, Ordering::SeqCst);
        }
        let unchecked = Unchecked { pack: chunk.pack, digest: chunk.digest, column: column.clone() };
        let thread = self.thread.get_or_init(|| {
            let shared = self.shared.clone();
            let check = move || {
                while !shared.is_over.load(Ordering::SeqCst) {
                    shared.check_queue();
                    std::thread::park();
                }
            };
            let thread = std::thread::Builder::new().name("verify".to_owned()).spawn(check);
            thread.ok().map(|thread| thread.thread().clone())
        });
        match (thread, self.shared.queue.push(unchecked)) {
            (Some(thread), Ok(())) => thread.unpark(),
            (None, Ok(())) => self.shared.check_queue(),
            (_, Err(unchecked)) => self.shared.check(&unchecked),
        }
    }

    /// Checks a blob when it is first read.
    ///
    /// # Errors
    /// When its bytes do not match its digest.
    pub(crate) fn blob(&self, blob: &BlobRef, bytes: &[u8]) -> Result<(), ChunkError> {
        {
            let mut checked = lock(self.shared.checked.of(&blob.digest));
            if !checked.blobs.insert(blob.digest) {
                return Ok(());
            }
            // A concurrent reader waits until this check is done.
            self.shared.pending.fetch_add(1, Ordering::SeqCst);
        }
        let mut found = Ok(());
        if BlobDigest::from(blake3::hash(bytes)) != blob.digest {
            self.shared.store.discard_blob(&blob.digest);
            found = Err(ChunkError::Corrupt(self.shared.report("blob", &blob.digest)));
        }
        self.shared.done();
        found
    }

    /// Waits until everything that was read is checked.
    ///
    /// # Errors
    /// When something is corrupt.
    pub(crate) fn wait_checked(&self) -> Result<(), ChunkError> {
        let is_pending = || self.shared.pending.load(Ordering::SeqCst) > 0;
        if !is_pending() && !self.shared.is_corrupt.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.shared.check_queue();
        let error = lock(&self.shared.error);
        let error = self.shared.settled.wait_while(error, |_| is_pending());
        let error = error.unwrap_or_else(PoisonError::into_inner);
        error.clone().map_or(Ok(()), |message| Err(ChunkError::Corrupt(message)))
    }
}
