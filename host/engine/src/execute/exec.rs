//! A task as a record of the store, which any process can run: `host exec KEY`.
//!
//! The record of a task is everything that the task receives; its action record is the result. So a
//! scheduler passes a key and a store, and looks for the action record afterwards.

use std::sync::Arc;

use millrace_store::{Store, StoreError};
use millrace_threads::Slots;
use millrace_types::wire::Kind;
use millrace_types::{
    ActionKey, BlobRef, ComponentDigest, Cost, Failure, InputItem, KeyParts, LogLine, ObjectRef, Record, Reference,
    TaskSpec,
};
use millrace_wasm::{Cancel, ComponentError, Engine};
use serde::{Deserialize, Serialize};

use super::compute::Compute;
use super::job::{JobResult, Work};
use crate::chunks::StoreChunks;
use crate::components::shipped_code;
use crate::grants::{Granted, variables};

/// A task that any process can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskFile {
    /// The bytes of its component.
    component: BlobRef,
    /// The parts of its key.
    parts: KeyParts,
    /// Its inputs, params and limits.
    spec: TaskSpec,
}

impl Record for TaskFile {
    const KIND: Kind = Kind::Task;
    type Name = ActionKey;

    fn references(&self) -> Vec<Reference> {
        let mut objects: Vec<ObjectRef> = vec![self.component.object()];
        objects.extend(self.spec.partials.iter().map(BlobRef::object));
        for item in self.spec.inputs.iter().flat_map(|input| &input.items) {
            match item {
                InputItem::Blob { blob, .. } => objects.push(blob.object()),
                InputItem::Table { parts, .. } => {
                    for chunk in parts.iter().flat_map(|part| &part.columns) {
                        chunk.visit_stored(&mut |chunk| objects.push(chunk.object()));
                    }
                }
            }
        }
        objects.sort_unstable();
        objects.dedup();
        objects.into_iter().map(Reference::Object).collect()
    }
}

/// Why a task cannot be run from its record.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no record of the task.
    #[error("the store has no task {0}; `host run --executor process` writes the tasks of a run")]
    NoTask(ActionKey),
    /// The record does not belong to the key.
    #[error("the record of the task {0} does not belong to its key")]
    Key(ActionKey),
    /// The component of the task is missing or corrupt.
    #[error("the component of the task cannot be read: {0}")]
    Bytes(String),
    /// The component cannot be used.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// A granted folder has changed since the task was made.
    #[error("the granted folder `{0}` has changed since the task was made")]
    Granted(String),
    /// A granted variable does not have the value that the key of the task covers.
    #[error("the granted variable `{0}` does not have the value that it had when the task was made")]
    Variable(String),
}

/// The task ran.
pub const EXEC_RAN: &str = "ran";
/// Its action record existed.
pub const EXEC_CACHED: &str = "cached";
/// It did not finish.
pub const EXEC_FAILED: &str = "failed";

/// The result of a task that was run from its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecReport {
    /// Always `task-executed`.
    pub event: String,
    /// Its key.
    pub key: ActionKey,
    /// [`EXEC_RAN`], [`EXEC_CACHED`] or [`EXEC_FAILED`].
    pub status: String,
    /// What it used.
    pub cost: Cost,
    /// The lines that it logged.
    pub log: Vec<LogLine>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The digests of its outputs: by port, of each part the computed columns in order, or of the
    /// blob.
    pub outputs: Vec<(String, Vec<String>)>,
}

/// Stores a task, so that any process can run it.
///
/// # Errors
/// When it cannot be stored.
pub(super) fn prepare(store: &Store, work: &Work, component: &[u8]) -> Result<(), StoreError> {
    let component = store.put_blob(component)?;
    let mut spec = work.spec.clone();
    // A granted variable may be a secret: its value is never stored, nor uploaded.
    spec.grants.env.clear();
    store.put_record(&work.key, &TaskFile { component, parts: work.parts.clone(), spec })
}

/// Runs a task from its record, and publishes its action record. With `again` it runs even if
/// there is one.
///
/// # Errors
/// When it cannot be begun. A task that fails is not an error: the report has the failure.
pub fn exec(store: &Store, key: &ActionKey, again: bool, cancel: &Cancel) -> Result<ExecReport, ExecError> {
    let file = store.record::<TaskFile>(key).ok_or(ExecError::NoTask(*key))?;
    let TaskFile { component, parts, mut spec } = file;
    if parts.key() != *key || spec.key != *key {
        return Err(ExecError::Key(*key));
    }
    spec.grants.env = variables(&parts.grants).map_err(|name| ExecError::Variable(name.to_owned()))?;
    let granted = Granted { grants: spec.grants.clone(), digests: parts.grants.clone() };
    if let Some(name) = granted.changed(store) {
        return Err(ExecError::Granted(name.to_owned()));
    }
    let digest = parts.component;
    let bytes = store.blob(&component).map_err(|error| ExecError::Bytes(error.to_string()))?;
    if ComponentDigest::of(&bytes) != digest {
        store.discard_blob(&component.digest);
        return Err(ExecError::Bytes("it does not match its digest".to_owned()));
    }
    let engine = Engine::new().map_err(|error| ComponentError::Link { reason: format!("{error:#}") })?;
    let compiled = store.compiled_path(engine.fingerprint(), &digest);
    let component = engine.component(bytes.to_vec(), shipped_code(&digest), Some(compiled))?;
    let work = Work { key: *key, parts, spec, granted: Arc::new(granted), progress: None, may_hit: !again };
    let chunks = StoreChunks::shared(store);
    let compute = Compute { store, chunks, cancel, slots: Slots::new(store.threads()) };
    let report = |status: &str, cost: Cost, log: Vec<LogLine>| ExecReport {
        event: "task-executed".to_owned(),
        key: *key,
        status: status.to_owned(),
        cost,
        log,
        failure: None,
        outputs: Vec::new(),
    };
    Ok(match compute.run(work, || Ok(&component)) {
        JobResult::Ran(record) => ExecReport { outputs: digests(&record), ..report(EXEC_RAN, record.cost, record.log) },
        JobResult::Found(record) => {
            ExecReport { outputs: digests(&record), ..report(EXEC_CACHED, record.cost, record.log) }
        }
        JobResult::Failed { failure, cost, log } => {
            ExecReport { failure: Some(failure), ..report(EXEC_FAILED, cost, log) }
        }
    })
}

/// The digests of the outputs of a record.
fn digests(record: &millrace_types::ActionRecord) -> Vec<(String, Vec<String>)> {
    use millrace_types::OutputRecord;
    let of = |output: &OutputRecord| match output {
        OutputRecord::Blob(blob) => vec![blob.digest.to_string()],
        OutputRecord::Table { parts, .. } => {
            let columns = parts.iter().flat_map(|part| &part.columns);
            columns.map(|(_, chunk)| chunk.digest.to_string()).collect()
        }
    };
    let mut outputs: Vec<_> = record.outputs.iter().map(|(port, output)| (port.to_string(), of(output))).collect();
    outputs.extend(record.partial.map(|partial| ("partial".to_owned(), vec![partial.digest.to_string()])));
    outputs
}
