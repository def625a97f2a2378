//! How many guests compute at a time.
//!
//! There is a lock for those who wait, and who finds what it wants does without.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often somebody who waits looks whether it should stop.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// So many may compute at a time. Guests that wait for others of their task do not count:
/// whoever can go on does so in their place.
#[derive(Debug)]
pub struct Slots {
    free: AtomicUsize,
    /// Who waits for one.
    wanted: AtomicUsize,
    /// Who waits for one or for several.
    waiting: AtomicUsize,
    wait: Mutex<()>,
    changed: Condvar,
}

/// The right to compute, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    count: usize,
}

/// Counts as long as it is there.
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
    /// So many.
    pub fn new(count: usize) -> Arc<Self> {
        let none = || AtomicUsize::new(0);
        let (wanted, waiting) = (none(), none());
        Arc::new(Self { free: count.into(), wanted, waiting, wait: Mutex::new(()), changed: Condvar::new() })
    }

    fn wait(&self) -> MutexGuard<'_, ()> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn some(self: &Arc<Self>, count: usize) -> Option<Slot> {
        let less = |free: usize| free.checked_sub(count);
        self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok()?;
        Some(Slot { slots: self.clone(), count })
    }

    /// Waits for one.
    pub fn take(self: &Arc<Self>) -> Slot {
        if let Some(slot) = self.some(1) {
            return slot;
        }
        let mut waits = self.wait();
        // Who gives one back looks afterwards whether somebody waits.
        let _waiting = Counted::new(&self.waiting);
        let _wanted = Counted::new(&self.wanted);
        loop {
            match self.some(1) {
                Some(slot) => return slot,
                None => waits = self.changed.wait(waits).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// One, if it can be had and nobody waits for it.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        if self.is_wanted() { None } else { self.some(1) }
    }

    /// Whether somebody waits for one.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Waits for several at once, as long as `goes_on` says so.
    pub(crate) fn take_many<E>(self: &Arc<Self>, count: usize, goes_on: impl Fn() -> Result<(), E>) -> Result<Slot, E> {
        let mut waits = self.wait();
        let _waiting = Counted::new(&self.waiting);
        loop {
            if let Some(slot) = self.some(count) {
                return Ok(slot);
            }
            goes_on()?;
            (waits, _) = self.changed.wait_timeout(waits, LOOK).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Slot {
    /// Gives it back; others can be taken from where it came.
    pub(crate) fn give_back(self) -> Arc<Slots> {
        self.slots.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &*self.slots;
        slots.free.fetch_add(self.count, Ordering::SeqCst);
        if slots.waiting.load(Ordering::SeqCst) > 0 {
            drop(slots.wait());
            // One alone may be called who waits for several.
            slots.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_missing_until_it_is_given_back() {
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
    fn nobody_helps_while_somebody_waits() {
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
