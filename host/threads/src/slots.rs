//! A bound on how many guests compute at a time.
//!
//! Only threads that have to wait take the lock; a slot that is free is taken with an
//! atomic operation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::lock::lock;

/// How often a waiting thread checks whether it should stop.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A number of slots. A guest that waits for the others of its task holds none: another that
/// can continue takes its slot.
#[derive(Debug)]
pub struct Slots {
    free: AtomicUsize,
    /// Threads that wait for one slot.
    wanted: AtomicUsize,
    /// Threads that wait for one slot or several.
    waiting: AtomicUsize,
    wait: Mutex<()>,
    changed: Condvar,
}

/// The right to compute, returned when it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    count: usize,
}

/// Adds one to a counter until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slots {
    /// `count` slots.
    pub fn new(count: usize) -> Arc<Self> {
        let none = || AtomicUsize::new(0);
        let (wanted, waiting) = (none(), none());
        Arc::new(Self { free: count.into(), wanted, waiting, wait: Mutex::new(()), changed: Condvar::new() })
    }

    fn wait(&self) -> MutexGuard<'_, ()> {
        lock(&self.wait)
    }

    fn try_acquire(self: &Arc<Self>, count: usize) -> Option<Slot> {
        let less = |free: usize| free.checked_sub(count);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok()?;
        Some(Slot { slots: self.clone(), count })
    }

    /// Waits for a slot.
    pub fn take(self: &Arc<Self>) -> Slot {
        if let Some(slot) = self.try_acquire(1) {
            return slot;
        }
        let mut waits = self.wait();
        // A thread that returns a slot checks `waiting` afterwards: no wake-up is lost.
        let _waiting = Counted::new(&self.waiting);
        let _wanted = Counted::new(&self.wanted);
        loop {
            match self.try_acquire(1) {
                Some(slot) => return slot,
                None => waits = self.changed.wait(waits).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// A slot, if one is free and no thread waits for it.
    pub fn try_take(self: &Arc<Self>) -> Option<Slot> {
        if self.is_wanted() { None } else { self.try_acquire(1) }
    }

    /// Whether a thread waits for a slot.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Waits for several slots at once, as long as `goes_on` returns `Ok`.
    ///
    /// # Errors
    /// That of `goes_on`.
    pub fn take_many<E>(self: &Arc<Self>, count: usize, goes_on: impl Fn() -> Result<(), E>) -> Result<Slot, E> {
        let mut waits = self.wait();
        let _waiting = Counted::new(&self.waiting);
        loop {
            if let Some(slot) = self.try_acquire(count) {
                return Ok(slot);
            }
            goes_on()?;
            (waits, _) = self.changed.wait_timeout(waits, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Slot {
    /// Returns the slot, and the slots it came from.
    pub fn release(self) -> Arc<Slots> {
        self.slots.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &*self.slots;
        slots.free.fetch_add(self.count, Ordering::SeqCst);
        if slots.waiting.load(Ordering::SeqCst) > 0 {
            drop(slots.wait());
            // All are woken: one alone might be a thread that waits for several.
            slots.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_taken_until_it_is_returned() {
        let slots = Slots::new(3);
        let (one, two) = (slots.take(), slots.take());
        let stop = || Err("stopped");
        assert_eq!(slots.take_many(2, stop).err(), Some("stopped"));
        let three = slots.try_take();
        assert!(three.is_some() && slots.try_take().is_none());
        drop((one, three));
        assert_eq!(slots.take_many(3, stop).err(), Some("stopped"));
        let both = slots.take_many(2, stop).unwrap();
        assert!(slots.try_take().is_none());
        drop((both, two));
        assert!(slots.take_many(3, stop).is_ok());
    }

    #[test]
    fn no_slot_is_lent_while_a_thread_waits() {
        let slots = Slots::new(1);
        let one = slots.take();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(slots.take()));
            while !slots.is_wanted() {
                std::thread::yield_now();
            }
            assert!(slots.try_take().is_none());
            drop(one);
            waiting.join().unwrap();
        });
        assert!(!slots.is_wanted() && slots.try_take().is_some());
    }
}
