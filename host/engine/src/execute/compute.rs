//! Computing one task in this process: claim, run, publish.

use std::sync::Arc;

use millrace_store::Store;
use millrace_threads::Slots;
use millrace_types::{ActionRecord, Failure, Produced, TaskOutcome};
use millrace_wasm::{Cancel, Component, ComponentError, TaskContext};

use super::cache::ActionCache;
use super::job::{JobResult, Work, now};
use crate::chunks::StoreChunks;

/// What a computation needs in this process besides the task.
pub(super) struct Compute<'a> {
    pub(super) store: &'a Store,
    pub(super) chunks: Arc<StoreChunks>,
    pub(super) cancel: &'a Cancel,
    /// A thread holds one while a guest computes.
    pub(super) slots: Arc<Slots>,
}

impl Compute<'_> {
    /// Computes a task and publishes its record. `component` is called only if the task has to run.
    pub(super) fn run<'c>(
        &self,
        work: Work,
        component: impl FnOnce() -> Result<&'c Component, ComponentError>,
    ) -> JobResult {
        let Work { key, parts, spec, granted, progress, may_hit } = work;
        let Self { store, chunks, cancel, slots } = self;
        let _claim = match store.claim(&key, &|| cancel.is_cancelled()) {
            Ok(Some(claim)) if !cancel.is_cancelled() => claim,
            Ok(_) => return JobResult::failed(Failure::Cancelled),
            Err(error) => return JobResult::host(error.to_string()),
        };
        if may_hit && let Some(record) = store.lookup(&key) {
            return JobResult::Found(Box::new(record));
        }
        let component = match component() {
            Ok(component) => component,
            Err(error) => return JobResult::host(error.to_string()),
        };
        let context = TaskContext { chunks: chunks.clone(), cancel, slot: slots.take(), progress };
        let TaskOutcome { result, metrics, log, cost } = component.run(spec, context);
        let host = |message: String| Err(Failure::Host { message });
        let result = match (chunks.wait_checked(), granted.changed(store)) {
            (Err(error), _) => host(error.to_string()),
            (Ok(()), Some(name)) => host(format!("the granted folder `{name}` changed while this ran: run again")),
            (Ok(()), None) => result,
        };
        match result {
            Err(failure) => JobResult::Failed { failure, cost, log },
            Ok(Produced { outputs, partial }) => {
                let record = ActionRecord { key, parts, outputs, partial, metrics, log, cost, finished_at: now() };
                // The objects are stored by now; the record comes last.
                match store.publish(&record) {
                    Ok(()) => JobResult::Ran(Box::new(record)),
                    Err(error) => JobResult::host(error.to_string()),
                }
            }
        }
    }
}
