//! What a task needs besides its spec.

use std::sync::Arc;

use millrace_tables::ChunkStore;
use millrace_threads::Slot;

use crate::cancel::Cancel;

/// Receives the progress of a task: units done, and in all.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What a task needs besides its spec. None of it can influence the result.
pub struct TaskContext<'c> {
    /// Where its columns and blobs come from and go to.
    pub chunks: Arc<dyn ChunkStore>,
    /// Set when it should stop.
    pub cancel: &'c Cancel,
    /// The slot that it computes in. A task in rounds takes more from where it came.
    pub slot: Slot,
    /// Receives its progress.
    pub progress: Option<Progress>,
}
