//! What stops a guest: memory, fuel, time, and the wish of the user.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use wasmtime::ResourceLimiter;

use crate::engine::Cancel;

/// Why a guest was stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("memory limit")]
    Memory { wanted: u64 },
    #[error("time limit")]
    Time,
    #[error("cancelled")]
    Cancelled,
    #[error("another guest of the task failed")]
    Left,
}

/// Counts the linear memory of one guest.
pub(crate) struct Limiter {
    memory: u64,
    /// Bytes of all memories and tables so far.
    used: u64,
    pub(crate) peak: u64,
    pub(crate) cancel: Cancel,
    pub(crate) deadline: Option<Instant>,
    /// Bytes of all guests of the task, where there are several.
    together: Option<Arc<AtomicU64>>,
}

/// Bytes that an element of a table takes in the host.
const TABLE_ELEMENT: u64 = 16;

impl Limiter {
    pub(crate) fn new(
        memory: u64,
        deadline: Option<Instant>,
        cancel: Cancel,
        together: Option<Arc<AtomicU64>>,
    ) -> Self {
        Self { memory, used: 0, peak: 0, cancel, deadline, together }
    }

    /// Growth beyond the limit is a trap and never a failed `memory.grow`: a guest
    /// must not be able to choose another way by what the limit is.
    fn grow(&mut self, current: u64, desired: u64) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let own = self.used.saturating_add(more);
        // Memory never shrinks: whether all together have too much does not depend on who
        // is first.
        let wanted = self.together.as_ref().map_or(own, |all| all.fetch_add(more, Ordering::Relaxed) + more);
        if wanted > self.memory {
            return Err(wasmtime::Error::new(Stop::Memory { wanted }));
        }
        self.used = own;
        self.peak = self.peak.max(own);
        Ok(true)
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
