//! What stops a guest: memory, fuel, time, and the wish of the user.

use std::sync::atomic::Ordering;
use std::time::Instant;

use millrace_types::Limits;
use wasmtime::ResourceLimiter;

use crate::engine::Cancel;
use crate::rewrite::{LOST, TABLE};
use crate::rounds::Seat;

/// Why a guest was stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("memory limit")]
    Memory { wanted: u64 },
    #[error("fuel limit")]
    Fuel,
    #[error("time limit")]
    Time,
    #[error("cancelled")]
    Cancelled,
    #[error("another guest of the task failed")]
    Left,
    /// It has run for so long where it cannot be stopped that it has to begin again where it can.
    #[error("it cannot be stopped")]
    Lost,
}

/// Counts the memory and the fuel of one guest.
pub(crate) struct Limiter {
    memory: u64,
    fuel: u64,
    /// All of it but what the functions that run now have used since they last told.
    pub(crate) fuel_used: u64,
    /// Bytes of all memories and tables so far.
    used: u64,
    pub(crate) peak: u64,
    pub(crate) cancel: Cancel,
    pub(crate) deadline: Option<Instant>,
    /// Where it meets the other guests of its task, if there are others.
    pub(crate) seat: Option<Seat>,
    /// Whether it may end as lost.
    begins_again: bool,
}

/// Bytes that an element of a table takes in the host.
const TABLE_ELEMENT: u64 = 16;

impl Limiter {
    /// The time that it has ends at `deadline`; if it `begins_again` it can be lost.
    pub(crate) fn new(
        limits: &Limits,
        deadline: Option<Instant>,
        cancel: Cancel,
        seat: Option<Seat>,
        begins_again: bool,
    ) -> Self {
        let (memory, fuel) = (limits.memory.0, limits.fuel.0);
        Self { memory, fuel, fuel_used: 0, used: 0, peak: 0, cancel, deadline, seat, begins_again }
    }

    /// Growth beyond the limit is a trap and never a failed `memory.grow`: a guest
    /// must not be able to choose another way by what the limit is.
    fn grow(&mut self, current: u64, desired: u64) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let own = self.used.saturating_add(more);
        // Memory never shrinks: whether all together have too much does not depend on who
        // is first.
        let together = |seat: &Seat| seat.meeting.memory.fetch_add(more, Ordering::Relaxed) + more;
        let wanted = self.seat.as_ref().map_or(own, together);
        if wanted > self.memory {
            return Err(wasmtime::Error::new(Stop::Memory { wanted }));
        }
        self.used = own;
        self.peak = self.peak.max(own);
        Ok(true)
    }

    /// A guest tells what it has used since it last did, and asks whether it may go on.
    fn burn(&mut self, fuel: u64) -> wasmtime::Result<()> {
        self.fuel_used = self.fuel_used.saturating_add(fuel);
        if self.fuel_used > self.fuel {
            return Err(wasmtime::Error::new(Stop::Fuel));
        }
        self.check().map_err(wasmtime::Error::new)?;
        self.seat.as_ref().map_or(Ok(()), Seat::goes_on)
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
        // Beyond the module's own maximum growth fails, here as everywhere.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(current as u64, desired as u64)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // No table: see `rewrite/fuel`. One of no elements is made, too.
        if maximum == Some(TABLE) && desired > 0 {
            if desired == LOST as usize && self.begins_again {
                return Err(wasmtime::Error::new(Stop::Lost));
            }
            return self.burn(desired as u64).map(|()| false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(current as u64 * TABLE_ELEMENT, desired as u64 * TABLE_ELEMENT)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // The system has no more: a trap as well, for the same reason.
        Err(error)
    }
}
