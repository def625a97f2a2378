//! Facts of a run in the form in which events carry them.

use millrace_types::Cost;

use crate::diagnostic::{Diagnostic, Place};
use crate::event::NearLimit;
use crate::graph::Node;

/// Limits that a task used nine tenths of.
pub(super) fn near_limits(cost: &Cost, limits: &millrace_types::Limits) -> Vec<NearLimit> {
    let percent = |used: u64, limit: u64| used.saturating_mul(100).checked_div(limit).unwrap_or(0);
    let all = [
        ("memory", percent(cost.peak_memory_bytes, limits.memory.0)),
        ("fuel", percent(cost.fuel, limits.fuel.0)),
        ("time", percent(cost.wall_us, limits.time.as_micros() as u64)),
    ];
    let near = all.into_iter().filter(|(_, percent)| *percent >= 90);
    near.map(|(limit, percent)| NearLimit { limit, percent }).collect()
}

/// A problem that a step found, where it is written.
pub(super) fn explain(node: &Node, step: &crate::pipeline::Step, problem: millrace_wasm::Problem) -> Diagnostic {
    let place: Place = match &problem.param {
        Some(path) => step.params.place(path).unwrap_or(&step.place).clone(),
        None => step.place.clone(),
    };
    let place = match problem.span {
        Some((start, end)) => crate::source::narrow(&place, (start as usize, end as usize)),
        None => place,
    };
    let error = Diagnostic::new(format!("{}: {}", node.step, problem.message)).at(&place, "here");
    match &problem.missing {
        Some(missing) => error.suggest(missing, problem.candidates.iter().map(String::as_str)),
        None => error,
    }
}
