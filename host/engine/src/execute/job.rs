//! A task that is handed to a worker, and its result.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_types::{ActionKey, ActionRecord, Cost, Failure, KeyParts, LogLine, TaskSpec};
use millrace_wasm::{Cancel, Progress};

use super::schedule::{TaskId, Urgency};
use crate::components::Used;
use crate::event::Event;
use crate::grants::Granted;

/// A task to compute.
pub(super) struct Job {
    pub(super) task: TaskId,
    pub(super) urgency: Urgency,
    /// The event to emit when it begins.
    pub(super) started: Option<Event>,
    pub(super) prepared: PreparedTask,
}

/// A task with its component.
pub(crate) struct PreparedTask {
    pub(crate) work: Work,
    pub(crate) used: Arc<Used>,
}

/// Everything that is needed to compute a task and to publish its record, except the component.
pub(crate) struct Work {
    pub(crate) key: ActionKey,
    pub(crate) parts: KeyParts,
    pub(crate) spec: TaskSpec,
    pub(crate) granted: Arc<Granted>,
    pub(crate) progress: Option<Progress>,
    /// Whether a record that another process publishes meanwhile is accepted.
    pub(crate) may_hit: bool,
}

/// The result of a task.
pub(crate) enum JobResult {
    /// It ran; the record is published.
    Ran(Box<ActionRecord>),
    /// Another process published the record while this one waited.
    Found(Box<ActionRecord>),
    /// It did not finish.
    Failed { failure: Failure, cost: Cost, log: Vec<LogLine> },
}

impl JobResult {
    /// A failure before the guest did anything.
    pub(crate) fn failed(failure: Failure) -> Self {
        Self::Failed { failure, cost: Cost::default(), log: Vec::new() }
    }

    /// A failure of the host.
    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self::failed(Failure::Host { message: message.into() })
    }

    /// A cancellation makes reads fail, which are failures of the host: those count as cancelled.
    pub(super) fn or_cancelled(self, cancel: &Cancel) -> Self {
        match self {
            Self::Failed { failure: Failure::Host { .. }, cost, log } if cancel.is_cancelled() => {
                Self::Failed { failure: Failure::Cancelled, cost, log }
            }
            other => other,
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
