//! Where tasks are computed.

use std::sync::Arc;

use millrace_store::Store;
use millrace_threads::Slots;
use millrace_types::{ActionRecord, Failure, Produced, TaskOutcome};
use millrace_wasm::{Cancel, TaskContext};

use super::cache::ActionCache;
use super::job::{JobResult, PreparedTask, now};
use crate::chunks::StoreChunks;
use crate::components::Components;

/// Computes tasks. Every failure is a result: there is no error besides.
pub(crate) trait TaskExecutor: Send + Sync {
    /// Computes a task and publishes its record, unless another process does so first.
    fn execute(&self, task: PreparedTask) -> JobResult;
}

/// Computes tasks in this process.
pub(crate) struct LocalExecutor<'a> {
    pub(crate) store: &'a Store,
    pub(crate) chunks: Arc<StoreChunks>,
    pub(crate) components: &'a Components,
    pub(crate) cancel: &'a Cancel,
    /// A worker holds one while a guest computes.
    pub(crate) slots: Arc<Slots>,
}

impl TaskExecutor for LocalExecutor<'_> {
    fn execute(&self, task: PreparedTask) -> JobResult {
        let PreparedTask { key, parts, spec, used, granted, progress, may_hit } = task;
        let Self { store, chunks, components, cancel, slots } = self;
        let _claim = match store.claim(&key, &|| cancel.is_cancelled()) {
            Ok(Some(claim)) if !cancel.is_cancelled() => claim,
            Ok(_) => return JobResult::failed(Failure::Cancelled),
            Err(error) => return JobResult::host(error.to_string()),
        };
        if may_hit && let Some(record) = store.lookup(&key) {
            return JobResult::Found(Box::new(record));
        }
        let component = match components.component(&used) {
            Ok(component) => component,
            Err(error) => return JobResult::host(format!("`{}` cannot be used: {error}", used.uses)),
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
