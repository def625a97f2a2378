//! How many guests compute at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often somebody who waits looks whether it should stop.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// So many may compute at a time. Guests that wait for others of their task do not count:
/// whoever can go on does so in their place.
#[derive(Debug)]
pub struct Slots {
    free: Mutex<usize>,
    changed: Condvar,
    /// Who waits for one.
    wanted: AtomicUsize,
}

/// The right to compute, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    count: usize,
}

impl Slots {
    /// So many.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(count), changed: Condvar::new(), wanted: AtomicUsize::new(0) })
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one.
    pub fn take(self: &Arc<Self>) -> Slot {
        let mut free = self.free();
        if *free == 0 {
            self.wanted.fetch_add(1, Ordering::Relaxed);
            free = self.changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
            self.wanted.fetch_sub(1, Ordering::Relaxed);
        }
        *free -= 1;
        Slot { slots: self.clone(), count: 1 }
    }

    /// One, if it can be had and nobody waits for it.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let mut free = self.free();
        *free = free.checked_sub(1).filter(|_| !self.is_wanted())?;
        Some(Slot { slots: self.clone(), count: 1 })
    }

    /// Whether somebody waits for one.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Waits for several at once, as long as `goes_on` says so.
    pub(crate) fn take_many<E>(self: &Arc<Self>, count: usize, goes_on: impl Fn() -> Result<(), E>) -> Result<Slot, E> {
        let mut free = self.free();
        while *free < count {
            goes_on()?;
            (free, _) = self.changed.wait_timeout(free, LOOK).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= count;
        Ok(Slot { slots: self.clone(), count })
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
        *self.slots.free() += self.count;
        // Whoever waits for several looks by itself.
        if self.count == 1 {
            self.slots.changed.notify_one();
        } else {
            self.slots.changed.notify_all();
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
