//! The threads that reading and exports may use.
//!
//! Whoever has more to do than it is about to do itself asks for help, and gets it when a
//! thread is free: so the last file is read by all, whether it is the last of many, the last
//! row group, or the only one. Who has done its own and waits for its helpers is free as long.
//! It knows nothing of what is done.

use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::Scope;

/// Threads, of which those that have nothing to do may be asked for.
#[derive(Debug)]
pub struct Threads {
    /// Less than none where one that waited goes on, and another still has its place.
    free: AtomicIsize,
}

/// A thread that was free, and is one of somebody's helpers until this is dropped.
struct Taken<'t> {
    threads: &'t Threads,
    helpers: &'t AtomicUsize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.helpers.fetch_sub(1, Ordering::Relaxed);
        self.threads.free.fetch_add(1, Ordering::Release);
    }
}

/// A thread that waits for its helpers; free until this is dropped.
struct Waiting<'t>(&'t Threads);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks for a thread that does the same as the one that asks.
pub(crate) type Help<'h> = &'h dyn Fn();

impl Threads {
    /// So many, of which the caller is one. There is always the caller.
    pub fn new(count: usize) -> Self {
        Self { free: AtomicIsize::new(isize::try_from(count.saturating_sub(1)).unwrap_or(isize::MAX)) }
    }

    fn take<'t>(&'t self, helpers: &'t AtomicUsize) -> Option<Taken<'t>> {
        let less = |free: isize| (free > 0).then(|| free - 1);
        self.free.fetch_update(Ordering::Acquire, Ordering::Relaxed, less).ok()?;
        helpers.fetch_add(1, Ordering::Relaxed);
        Some(Taken { threads: self, helpers })
    }

    /// Does `work` on this thread, and on one more each time that it asks and one is free.
    /// Comes back when all have.
    pub(crate) fn work(&self, work: impl Fn(Help<'_>) + Sync) {
        self.work_with(false, &work);
    }

    /// As [`Self::work`], and on one thread more than there are: of those that take turns at a
    /// file and wait for it, as many compute as there are.
    pub(crate) fn work_and_one_more(&self, work: impl Fn(Help<'_>) + Sync) {
        self.work_with(true, &work);
    }

    fn work_with(&self, one_more: bool, work: &(impl Fn(Help<'_>) + Sync)) {
        let helpers = AtomicUsize::new(0);
        let waiting = std::thread::scope(|scope| {
            if one_more {
                started(scope, || begin(self, scope, &helpers, work));
            }
            begin(self, scope, &helpers, work);
            (helpers.load(Ordering::Relaxed) > 0).then(|| self.wait())
        });
        drop(waiting);
    }

    fn wait(&self) -> Waiting<'_> {
        self.free.fetch_add(1, Ordering::Release);
        Waiting(self)
    }

    /// Does something with each item, by whichever thread is free; gives what came of them,
    /// in their order. After a failure nothing more is begun.
    ///
    /// # Errors
    /// That of the first item that failed.
    pub fn each<I: Send, T: Send, E: Send>(
        &self,
        items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator + Send>,
        each: impl Fn(I) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        self.each_with(items, || (), |(), item| each(item))
    }

    /// Makes something of each item, by whichever thread is free, and does something with what came
    /// of it in their order: so many things wait for their turn at most as there are threads.
    /// After a failure nothing more is begun, and nothing more done.
    ///
    /// # Errors
    /// That of the first item of which nothing could be made, or that could not be put in its turn.
    pub fn in_turn<I: Send, T: Send, E: Send>(
        &self,
        items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator + Send>,
        make: impl Fn(I) -> Result<T, E> + Sync,
        put: impl FnMut(T) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let turns = Turns { turn: Mutex::new(Turn { place: 0, is_over: false, put }), changed: Condvar::new() };
        let one = |(place, item): (usize, I)| {
            let over = Over(&turns);
            let made = make(item)?;
            let turn = turns.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let waits = |turn: &mut Turn<_>| turn.place != place && !turn.is_over;
            let mut turn = turns.changed.wait_while(turn, waits).unwrap_or_else(PoisonError::into_inner);
            if !turn.is_over {
                (turn.put)(made)?;
            }
            turn.place += 1;
            turns.changed.notify_all();
            std::mem::forget(over);
            Ok(())
        };
        self.each(items.into_iter().enumerate(), one).map(drop)
    }

    /// As [`Self::each`], with something that each thread has for itself.
    pub(crate) fn each_with<S, I: Send, T: Send, E: Send>(
        &self,
        items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator + Send>,
        begin: impl Fn() -> S + Sync,
        each: impl Fn(&mut S, I) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let items = Mutex::new(items.into_iter().enumerate());
        let has_failed = AtomicBool::new(false);
        let done: Mutex<Vec<(usize, Result<T, E>)>> = Mutex::default();
        let next = || {
            let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
            Some((items.next()?, items.len() > 0))
        };
        self.work(|help| {
            let mut state = None;
            while !has_failed.load(Ordering::Relaxed)
                && let Some(((place, item), is_more)) = next()
            {
                if is_more {
                    help();
                }
                let result = each(state.get_or_insert_with(&begin), item);
                if result.is_err() {
                    has_failed.store(true, Ordering::Relaxed);
                }
                done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_unstable_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

/// Whose turn it is, and what is done then.
struct Turn<P> {
    place: usize,
    is_over: bool,
    put: P,
}

struct Turns<P> {
    turn: Mutex<Turn<P>>,
    changed: Condvar,
}

/// Nobody waits for a turn that never comes.
struct Over<'t, P>(&'t Turns<P>);

impl<P> Drop for Over<'_, P> {
    fn drop(&mut self) {
        self.0.turn.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.0.changed.notify_all();
    }
}

/// Works, and counts who helps.
fn begin<'scope>(
    threads: &'scope Threads,
    scope: &'scope Scope<'scope, '_>,
    helpers: &'scope AtomicUsize,
    work: &'scope (impl Fn(Help<'_>) + Sync),
) {
    work(&|| {
        if let Some(taken) = threads.take(helpers) {
            started(scope, move || {
                let _taken = taken;
                begin(threads, scope, helpers, work);
            });
        }
    });
}

/// Starts a thread. Where the system has none more, those that are there do all.
fn started<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    let _ = std::thread::Builder::new().spawn_scoped(scope, work);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::Threads;

    /// Until something is so; far longer than it takes.
    fn until(is_so: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        while !is_so() {
            if begun.elapsed() > Duration::from_secs(20) {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    #[test]
    fn who_has_nothing_more_to_do_helps_its_helper() {
        let threads = Threads::new(2);
        let caller = std::thread::current().id();
        let is_begun = AtomicBool::new(false);
        let at_work = AtomicUsize::new(0);
        let helped = threads.each(0..2, |_| {
            if std::thread::current().id() == caller {
                // Of two items the other is somebody else's.
                return if until(|| is_begun.load(Ordering::Relaxed)) { Ok(true) } else { Err("nobody helped") };
            }
            is_begun.store(true, Ordering::Relaxed);
            let is_helped = AtomicBool::new(false);
            threads.work(|help| {
                if at_work.fetch_add(1, Ordering::Relaxed) == 0 {
                    let asked = || {
                        help();
                        at_work.load(Ordering::Relaxed) > 1
                    };
                    is_helped.store(until(asked), Ordering::Relaxed);
                }
            });
            Ok(is_helped.into_inner())
        });
        assert_eq!(helped, Ok(vec![true, true]));
        // Nobody is left over, and nobody is missing.
        let (begun, has_asked) = (AtomicUsize::new(0), AtomicBool::new(false));
        threads.work(|help| {
            if begun.fetch_add(1, Ordering::Relaxed) == 0 {
                (0..3).for_each(|_| help());
                has_asked.store(true, Ordering::Relaxed);
            } else {
                until(|| has_asked.load(Ordering::Relaxed));
            }
        });
        assert_eq!(begun.into_inner(), 2);
    }
}
