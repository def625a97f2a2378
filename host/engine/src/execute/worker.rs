//! Where tasks are computed: threads that are made when there is something to do.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use millrace_store::Store;
use millrace_types::wire::Kind;
use millrace_types::{ActionKey, ActionRecord, Cost, KeyParts, LogLine};
use millrace_wasm::{Cancel, Data, Failure, Produced, TaskOutcome, TaskSpec};

use crate::components::{Components, Used};
use crate::data::StoreData;

/// A task to compute.
pub(super) struct Job {
    pub(super) task: usize,
    pub(super) key: ActionKey,
    pub(super) parts: KeyParts,
    pub(super) spec: TaskSpec,
    pub(super) used: Arc<Used>,
    /// Whether a record that somebody else makes meanwhile will do.
    pub(super) may_hit: bool,
}

/// What became of it.
pub(super) enum Outcome {
    /// It ran; the record is kept.
    Ran(Box<ActionRecord>),
    /// Another process made the record while this one waited.
    Found(Box<ActionRecord>),
    /// It did not finish.
    Failed { failure: Failure, cost: Cost, log: Vec<LogLine> },
}

/// A record that can be used: all that it names is there.
pub(super) fn lookup(store: &Store, key: &ActionKey) -> Option<ActionRecord> {
    let record = store.record::<ActionRecord>(Kind::Action, key.as_bytes())?;
    (record.key == *key && record.objects().iter().all(|object| store.has(object))).then_some(record)
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Computes a task and keeps its record.
pub(super) fn compute(
    job: Job,
    store: &Store,
    data: &Arc<StoreData>,
    components: &Components,
    cancel: &Cancel,
) -> Outcome {
    let started = Instant::now();
    let host = |message: String| Outcome::Failed {
        failure: Failure::Host { message },
        cost: Cost::default(),
        log: Vec::new(),
    };
    let Job { key, parts, spec, used, may_hit, .. } = job;
    let _claim = match store.claim(&key) {
        Ok(claim) => claim,
        Err(error) => return host(error.to_string()),
    };
    if cancel.is_cancelled() {
        return Outcome::Failed { failure: Failure::Cancelled, cost: Cost::default(), log: Vec::new() };
    }
    if may_hit && let Some(record) = lookup(store, &key) {
        return Outcome::Found(Box::new(record));
    }
    let component = match components.component(&used) {
        Ok(component) => component,
        Err(error) => return host(format!("`{}` cannot be used: {error}", used.uses)),
    };
    let data: Arc<dyn Data> = data.clone();
    let TaskOutcome { result, metrics, log, mut cost } = component.run(spec, data, cancel);
    cost.wall_us = started.elapsed().as_micros() as u64;
    match result {
        Err(failure) => Outcome::Failed { failure, cost, log },
        Ok(Produced { outputs, partial }) => {
            let record = ActionRecord { key, parts, outputs, partial, metrics, log, cost, finished_at: now() };
            // The objects are there by now; the record comes last.
            match store.put_record(Kind::Action, key.as_bytes(), &record) {
                Ok(()) => Outcome::Ran(Box::new(record)),
                Err(error) => host(error.to_string()),
            }
        }
    }
}
