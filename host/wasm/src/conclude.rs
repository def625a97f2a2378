//! From the end of a guest to the outcome of its task.

use millrace_types::{Cost, Failure, Limits, TaskOutcome, bounds};
use wasmtime::Store;

use crate::failure::{emit_failure, failure};
use crate::state::{Running, TaskState};
use crate::text::sanitize;
use crate::world::WitFailure;

/// The outcome of a guest, from what its function returned and what the host kept for it.
pub(crate) fn conclude(
    store: Store<TaskState>,
    answer: wasmtime::Result<Result<(), WitFailure>>,
    limits: &Limits,
) -> TaskOutcome {
    // In a composed component wasmtime counts, too, and its number is the greater one.
    let counted = limits.fuel.0.saturating_sub(store.get_fuel().unwrap_or(limits.fuel.0));
    let TaskState { limiter, task, panic, wasi } = store.into_data();
    let Some(running) = task else {
        let message = "a task lost its state: please report this".to_owned();
        return TaskOutcome::failed(Failure::Host { message });
    };
    let Running { outputs, metrics, mut log, bytes_read, bytes_written, .. } = running;
    let printed = wasi.map(|wasi| wasi.into_log()).unwrap_or_default();
    let room = bounds::LOG_LINES.saturating_sub(log.len());
    log.extend(printed.into_iter().take(room));
    let result = match answer {
        Ok(Ok(())) => outputs.finish().map_err(emit_failure),
        Ok(Err(WitFailure { message, column, row })) => {
            Err(Failure::Step { message: sanitize(message, bounds::MESSAGE_BYTES), column, row })
        }
        Err(error) => Err(failure(&error, limits, panic)),
    };
    let fuel = limiter.fuel_used.max(counted).min(limits.fuel.0);
    let cost = Cost { fuel, peak_memory_bytes: limiter.peak, bytes_read, bytes_written, ..Cost::default() };
    TaskOutcome { result, metrics: metrics.into_iter().collect(), log, cost }
}
