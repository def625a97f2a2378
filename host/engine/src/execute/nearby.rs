//! Limits that a task came close to.

use millrace_types::{Cost, Limits};

use crate::event::{LimitKind, NearLimit};

/// Per cent of a limit from which a task is close to it.
const CLOSE: u64 = 90;

/// The limits of which a task used at least nine tenths.
pub(super) fn near_limits(cost: &Cost, limits: &Limits) -> Vec<NearLimit> {
    let percent = |used: u64, limit: u64| used.saturating_mul(100).checked_div(limit).unwrap_or(0);
    let all = [
        (LimitKind::Memory, percent(cost.peak_memory_bytes, limits.memory.0)),
        (LimitKind::Fuel, percent(cost.fuel, limits.fuel.0)),
        (LimitKind::Time, percent(cost.wall_us, limits.time.as_micros() as u64)),
    ];
    let near = all.into_iter().filter(|(_, percent)| *percent >= CLOSE);
    near.map(|(limit, percent)| NearLimit { limit, percent }).collect()
}
