//! A task in several guests, each with some of the parts, that exchange reductions and must
//! produce the same result.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millrace_types::action_key::WORLD_VERSION;
use millrace_types::{Cost, Failure, Fuel, InputItem, OutputRecord, PortName, TaskOutcome, TaskSpec, bounds};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};

use crate::cancel::Cancel;
use crate::collective::{Collective, Guest, MAX_RANKS, Rank, not_collective};
use crate::component::{Code, Component};
use crate::conclude::conclude;
use crate::context::TaskContext;
use crate::error::one_line;
use crate::failure::{needs_loop_checks, not_instantiated};
use crate::rewrite::FuelChecks;
use crate::state::{Running, TaskState};
use crate::world::{TaskRep, WitFailure, WitReduction};

/// The least number of rows of a guest, where there are several: with fewer, exchanging
/// numbers costs more than it saves.
const MIN_ROWS: u64 = 32_768;

/// Redefines `all-reduce` as an async function: a guest that waits holds no thread.
fn link(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut host = linker.instance(&format!("millrace:step/host@{WORLD_VERSION}"))?;
    host.func_wrap_async(
        "[method]task.all-reduce",
        |cx: StoreContextMut<'_, TaskState>, (_, how, values): (Resource<TaskRep>, WitReduction, Vec<f64>)| {
            Box::new(async move {
                let limiter = &cx.data().limiter;
                let Some(rank) = &limiter.rank else { return Err(not_collective()) };
                let used = limiter.fuel_used;
                let combined = rank.all_reduce(how.into(), values, used, || limiter.check()).await?;
                Ok((combined.to_vec(),))
            })
        },
    )
}

/// The parts of the mapped port that a rank has.
fn parts_of(rank: usize, ranks: usize, parts: usize) -> Range<usize> {
    rank * parts / ranks..(rank + 1) * parts / ranks
}

/// The spec of each guest: consecutive parts of the mapped port.
fn divide(spec: TaskSpec) -> Vec<TaskSpec> {
    let Some((input, parts)) = spec.mapped_parts().map(|(input, parts)| (input, parts.to_vec())) else {
        return vec![spec];
    };
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    let ranks = usize::try_from(rows.div_ceil(MIN_ROWS)).unwrap_or(MAX_RANKS).min(parts.len()).clamp(1, MAX_RANKS);
    let one = |rank: usize| {
        let mut spec = spec.clone();
        if let Some(InputItem::Table { parts: own, .. }) = spec.inputs[input].items.first_mut() {
            *own = parts[parts_of(rank, ranks, parts.len())].to_vec();
        }
        spec
    };
    (0..ranks).map(one).collect()
}

/// Runs the guests of a task to their end.
pub(crate) fn run(component: &Component, spec: TaskSpec, context: TaskContext<'_>) -> TaskOutcome {
    let TaskContext { chunks, cancel, slot, progress } = context;
    let limits = spec.limits;
    let parts = spec.mapped_parts().map_or(1, |(_, parts)| parts.len());
    let specs = divide(spec);
    // A task that waits for room for its guests holds no slot.
    let slots = slot.release();
    let check = || if cancel.is_cancelled() { Err(Failure::Cancelled) } else { Ok(()) };
    let _room = match component.engine.guests.take_many(specs.len(), check) {
        Ok(room) => room,
        Err(failure) => return TaskOutcome::failed(failure),
    };
    // The time spent waiting does not count.
    let (mut slot, mut began) = (slots.take(), Instant::now());
    let mut deadline = began.checked_add(limits.time);
    let (mut wall, mut cpu_us, mut checks) = (Duration::ZERO, 0, FuelChecks::AtCalls);
    loop {
        let asked = Instant::now();
        let code = match in_rounds(component, checks) {
            Ok(code) => code,
            Err(error) => return TaskOutcome::failed(Failure::Host { message: format!("{error:#}") }),
        };
        // Compiling does not count as time of the task.
        deadline = deadline.and_then(|deadline| deadline.checked_add(asked.elapsed()));
        let collective = Arc::new(Collective::new(specs.len(), &limits, deadline));
        let guest = |(number, spec): (usize, &TaskSpec)| -> (usize, Guest) {
            let rank = Rank { collective: collective.clone(), number };
            let (component, code, spec) = (component.clone(), code.clone(), spec.clone());
            let (chunks, cancel) = (chunks.clone(), cancel.clone());
            let progress = progress.clone().filter(|_| number == 0);
            let running = Running::new(spec, chunks, progress, number == 0);
            (number, Box::pin(async move { run_guest(&component, &code, checks, running, &cancel, rank).await }))
        };
        collective.start(specs.iter().enumerate().map(guest));
        std::thread::scope(|scope| collective.work(scope, &slots, slot, true));
        let (outcomes, used) = collective.finish();
        wall += began.elapsed();
        cpu_us += used;
        if checks == FuelChecks::AtCalls && collective.needs_loop_checks.load(Ordering::Relaxed) {
            checks = FuelChecks::AtLoops;
            (slot, began) = (slots.take(), Instant::now());
            continue;
        }
        let mut outcome = merge_outcomes(outcomes, limits.fuel, parts);
        outcome.cost.cpu_us = cpu_us;
        outcome.cost.wall_us = wall.as_micros() as u64;
        return outcome;
    }
}

/// The code of a component, linked for guests that exchange numbers.
fn in_rounds(component: &Component, checks: FuelChecks) -> wasmtime::Result<Code> {
    let code = component.code(checks)?;
    let compiled = code.pre.component();
    let mut linker = component.linker(compiled)?;
    link(&mut linker)?;
    code.linked(&linker)
}

/// Runs one of the guests of a task. Its wall and processor time are counted by the caller.
async fn run_guest(
    component: &Component,
    code: &Code,
    checks: FuelChecks,
    running: Running,
    cancel: &Cancel,
    rank: Rank,
) -> TaskOutcome {
    let limits = running.spec.limits;
    if rank.check().is_err() {
        return TaskOutcome::failed(Failure::Cancelled);
    }
    let collective = rank.collective.clone();
    let mut store = match component.store(&limits, collective.deadline, cancel, Some(running), Some(rank), checks) {
        Ok(store) => store,
        Err(error) => return TaskOutcome::failed(Failure::Host { message: one_line(&error) }),
    };
    let answer = async {
        let instance = code.pre.instantiate_async(&mut store).await.map_err(not_instantiated)?;
        let function = instance.get_typed_func::<_, (Result<(), WitFailure>,)>(&mut store, &code.run)?;
        Ok(function.call_async(&mut store, (Resource::<TaskRep>::new_borrow(0),)).await?.0)
    };
    let answer = answer.await;
    if needs_loop_checks(&answer) {
        collective.needs_loop_checks.store(true, Ordering::Relaxed);
    }
    conclude(store, answer, &limits)
}

/// The outcome of the task, from those of its guests.
fn merge_outcomes(outcomes: Vec<TaskOutcome>, fuel: Fuel, parts: usize) -> TaskOutcome {
    let mut cost = Cost::default();
    let mut log = Vec::new();
    for outcome in &outcomes {
        let Cost { fuel, peak_memory_bytes, bytes_read, .. } = outcome.cost;
        cost.fuel = cost.fuel.saturating_add(fuel);
        cost.peak_memory_bytes += peak_memory_bytes;
        cost.bytes_read += bytes_read;
        // A line that several guests log is kept once.
        let mut logged = log.clone();
        for line in &outcome.log {
            match logged.iter().position(|other| other == line) {
                Some(index) => drop(logged.swap_remove(index)),
                None if log.len() < bounds::LOG_LINES => log.push(line.clone()),
                None => {}
            }
        }
    }
    cost.bytes_written = outcomes.first().map_or(0, |outcome| outcome.cost.bytes_written);
    let failures = || outcomes.iter().enumerate().filter_map(|(i, outcome)| Some((i, outcome.result.as_ref().err()?)));
    // A guest that was stopped because another failed has nothing to report.
    let failure = failures().find(|(_, failure)| **failure != Failure::Cancelled).or_else(|| failures().next());
    let many = outcomes.len();
    if let Some((rank, failure)) = failure {
        let mut failure = failure.clone();
        if let Failure::Step { message, row: Some(_), .. } = &mut failure
            && parts > 1
        {
            let own = parts_of(rank, many, parts);
            let text = match own.len() {
                1 => format!(", in part {}", own.start),
                _ => format!(", in one of the parts {} to {}", own.start, own.end - 1),
            };
            message.push_str(&text);
        }
        return TaskOutcome { result: Err(failure), metrics: Vec::new(), log, cost };
    }
    let mut outcomes = outcomes.into_iter();
    let Some(TaskOutcome { mut result, metrics, .. }) = outcomes.next() else {
        return TaskOutcome::failed(Failure::Host { message: "a task without a guest: please report this".to_owned() });
    };
    // A guest may leave its outputs to the first one; what it produces must be the same.
    let agrees = |other: TaskOutcome| {
        let known = |found: &(PortName, OutputRecord)| result.as_ref().is_ok_and(|first| first.outputs.contains(found));
        other.result.is_ok_and(|other| other.outputs.iter().all(known)) && other.metrics == metrics
    };
    if !outcomes.all(agrees) {
        let message = "its guests do not agree: they produced different blobs or metrics";
        result = Err(Failure::Misuse { message: message.to_owned() });
    } else if cost.fuel > fuel.0 {
        result = Err(Failure::Fuel { limit: fuel, backtrace: Vec::new() });
    }
    TaskOutcome { result, metrics, log, cost }
}
