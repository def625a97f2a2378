//! The limits of one guest: memory, fuel, time, cancellation.

use std::sync::atomic::Ordering;
use std::time::Instant;

use millrace_types::Limits;
use wasmtime::ResourceLimiter;

use crate::cancel::Cancel;
use crate::collective::Rank;
use crate::rewrite::{LOST, TABLE};
use crate::trap::Stop;

/// Counts the memory and the fuel of one guest.
pub(crate) struct Limiter {
    memory: u64,
    fuel: u64,
    /// Fuel reported so far: without what the running functions have used since their last
    /// report.
    pub(crate) fuel_used: u64,
    /// Bytes of all memories and tables so far.
    used: u64,
    pub(crate) peak: u64,
    pub(crate) cancel: Cancel,
    pub(crate) deadline: Option<Instant>,
    /// Its rank among the guests of its task, if there are several.
    pub(crate) rank: Option<Rank>,
    /// Whether it may end with [`Stop::NeedsLoopChecks`].
    may_restart: bool,
}

/// Bytes that an element of a table takes in the host.
const TABLE_ELEMENT: u64 = 16;

impl Limiter {
    /// Limits for a guest that must end by `deadline`.
    pub(crate) fn new(
        limits: &Limits,
        deadline: Option<Instant>,
        cancel: Cancel,
        rank: Option<Rank>,
        may_restart: bool,
    ) -> Self {
        let (memory, fuel) = (limits.memory.0, limits.fuel.0);
        Self { memory, fuel, fuel_used: 0, used: 0, peak: 0, cancel, deadline, rank, may_restart }
    }

    /// Growth beyond the limit is a trap, never a failed `memory.grow`: a guest must not be
    /// able to branch on its limit.
    fn grow(&mut self, current: u64, desired: u64) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let own = self.used.saturating_add(more);
        // Memory never shrinks, so whether the sum exceeds the limit does not depend on the
        // order in which guests grow.
        let together = |rank: &Rank| rank.collective.memory.fetch_add(more, Ordering::Relaxed) + more;
        let wanted = self.rank.as_ref().map_or(own, together);
        if wanted > self.memory {
            return Err(wasmtime::Error::new(Stop::Memory { wanted }));
        }
        self.used = own;
        self.peak = self.peak.max(own);
        Ok(true)
    }

    /// Adds the fuel that a guest reports, and checks whether it may continue.
    fn burn(&mut self, fuel: u64) -> wasmtime::Result<()> {
        self.fuel_used = self.fuel_used.saturating_add(fuel);
        if self.fuel_used > self.fuel {
            return Err(wasmtime::Error::new(Stop::Fuel));
        }
        self.check().map_err(wasmtime::Error::new)?;
        self.rank.as_ref().map_or(Ok(()), Rank::check)
    }

    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() > deadline => Err(Stop::Time),
            _ => Ok(()),
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Growth beyond the module's own maximum fails visibly, on every host alike.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(current as u64, desired as u64)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // Not a table but a report of fuel: see `rewrite/fuel`. It is created with 0 elements.
        if maximum == Some(TABLE) && desired > 0 {
            if desired == LOST as usize && self.may_restart {
                return Err(wasmtime::Error::new(Stop::NeedsLoopChecks));
            }
            return self.burn(desired as u64).map(|()| false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(current as u64 * TABLE_ELEMENT, desired as u64 * TABLE_ELEMENT)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The system is out of memory: a trap as well, for the same reason.
        Err(error)
    }
}
