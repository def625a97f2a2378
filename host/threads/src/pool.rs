//! A count of free threads, from which work in progress asks for help.
//!
//! Work asks for help when more is left than the caller is about to do itself, and gets a thread if
//! one is free: so all threads read the last file, whether it is the last of many, the last row
//! group of one, or the only one. A caller that waits for its helpers counts as free while it
//! waits.

use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::Scope;

use crate::lock::lock;
use crate::spawn::spawn_helper;

/// A number of threads, of which the idle ones can be asked for help.
#[derive(Debug)]
pub struct Threads {
    /// Negative while a caller that waited has resumed and its helper has not ended yet.
    free: AtomicIsize,
}

/// A thread that helps one caller until this is dropped.
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

/// Marks a caller that waits for its helpers: it counts as free until this is dropped.
struct Waiting<'t>(&'t Threads);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks for another thread to do the same work.
pub type Help<'h> = &'h dyn Fn();

impl Threads {
    /// `count` threads, of which the caller is one.
    pub fn new(count: usize) -> Self {
        Self { free: AtomicIsize::new(isize::try_from(count.saturating_sub(1)).unwrap_or(isize::MAX)) }
    }

    fn take<'t>(&'t self, helpers: &'t AtomicUsize) -> Option<Taken<'t>> {
        let less = |free: isize| (free > 0).then(|| free - 1);
        self.free.fetch_update(Ordering::Acquire, Ordering::Relaxed, less).ok()?;
        helpers.fetch_add(1, Ordering::Relaxed);
        Some(Taken { threads: self, helpers })
    }

    /// Runs `work` on this thread, and on another each time that it asks for help and one is
    /// free. Returns when all of them have returned.
    pub fn work(&self, work: impl Fn(Help<'_>) + Sync) {
        self.work_with(false, &work);
    }

    /// As [`Self::work`], with one thread more than there are: where threads take turns at
    /// a file, one of them waits, and the others keep all processors busy.
    pub fn work_and_one_more(&self, work: impl Fn(Help<'_>) + Sync) {
        self.work_with(true, &work);
    }

    fn work_with(&self, one_more: bool, work: &(impl Fn(Help<'_>) + Sync)) {
        let helpers = AtomicUsize::new(0);
        let waiting = std::thread::scope(|scope| {
            if one_more {
                spawn_helper(scope, || begin(self, scope, &helpers, work));
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

    /// Applies `each` to every item on the free threads. The results are in the order of the
    /// items. After a failure no further item is begun.
    ///
    /// # Errors
    /// That of the first item, in their order, that failed.
    pub fn each<I: Send, T: Send, E: Send>(
        &self,
        items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator + Send>,
        each: impl Fn(I) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        self.each_with(items, || (), |(), item| each(item))
    }

    /// Applies `make` to every item on the free threads, and `put` to the results in the order
    /// of the items: at most one result per thread waits for its turn. After a failure no
    /// further item is begun.
    ///
    /// # Errors
    /// That of the first item, in their order, for which `make` or `put` failed.
    pub fn in_turn<I: Send, T: Send, E: Send>(
        &self,
        items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator + Send>,
        make: impl Fn(I) -> Result<T, E> + Sync,
        put: impl FnMut(T) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let turns = Turns { turn: Mutex::new(Turn { index: 0, is_over: false, put }), changed: Condvar::new() };
        let one = |(index, item): (usize, I)| {
            let over = Over(&turns);
            let made = make(item)?;
            let turn = lock(&turns.turn);
            let waits = |turn: &mut Turn<_>| turn.index != index && !turn.is_over;
            let mut turn = turns.changed.wait_while(turn, waits).unwrap_or_else(PoisonError::into_inner);
            if !turn.is_over {
                (turn.put)(made)?;
            }
            turn.index += 1;
            turns.changed.notify_all();
            std::mem::forget(over);
            Ok(())
        };
        self.each(items.into_iter().enumerate(), one).map(drop)
    }

    /// As [`Self::each`], with a state that each thread makes for itself.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub fn each_with<S, I: Send, T: Send, E: Send>(
        &self,
        items: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator + Send>,
        begin: impl Fn() -> S + Sync,
        each: impl Fn(&mut S, I) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let items = Mutex::new(items.into_iter().enumerate());
        let has_failed = AtomicBool::new(false);
        let done: Mutex<Vec<(usize, Result<T, E>)>> = Mutex::default();
        let next = || {
            let mut items = lock(&items);
            Some((items.next()?, items.len() > 0))
        };
        self.work(|help| {
            let mut state = None;
            while !has_failed.load(Ordering::Relaxed)
                && let Some(((index, item), is_more)) = next()
            {
                if is_more {
                    help();
                }
                let result = each(state.get_or_insert_with(&begin), item);
                if result.is_err() {
                    has_failed.store(true, Ordering::Relaxed);
                }
                lock(&done).push((index, result));
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

/// The index of the item whose turn it is, and the function that receives its result.
struct Turn<P> {
    index: usize,
    is_over: bool,
    put: P,
}

struct Turns<P> {
    turn: Mutex<Turn<P>>,
    changed: Condvar,
}

/// Ends all turns when an item fails or panics, so that no thread waits for a turn that
/// never comes.
struct Over<'t, P>(&'t Turns<P>);

impl<P> Drop for Over<'_, P> {
    fn drop(&mut self) {
        lock(&self.0.turn).is_over = true;
        self.0.changed.notify_all();
    }
}

/// Runs `work`, with helpers counted in `helpers`.
fn begin<'scope>(
    threads: &'scope Threads,
    scope: &'scope Scope<'scope, '_>,
    helpers: &'scope AtomicUsize,
    work: &'scope (impl Fn(Help<'_>) + Sync),
) {
    work(&|| {
        if let Some(taken) = threads.take(helpers) {
            spawn_helper(scope, move || {
                let _taken = taken;
                begin(threads, scope, helpers, work);
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::Threads;

    /// Waits until a condition holds, for far longer than it takes.
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
    fn a_caller_that_waits_for_its_helper_counts_as_free() {
        let threads = Threads::new(2);
        let caller = std::thread::current().id();
        let is_begun = AtomicBool::new(false);
        let at_work = AtomicUsize::new(0);
        let helped = threads.each(0..2, |_| {
            if std::thread::current().id() == caller {
                // The other of the two items is the helper's.
                return if until(|| is_begun.load(Ordering::Relaxed)) { Ok(true) } else { Err("no helper") };
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
        // Afterwards exactly one thread is free again.
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

    /// All threads work on the last item, and never more than `count` at a time.
    #[test]
    fn threads_help_where_work_is_left() {
        for count in [1, 2, 5] {
            let threads = Threads::new(count);
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let inner = |item: usize| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, usize>(item)
            };
            let outer = |file: usize| threads.each(file * 100..file * 100 + 20, inner);
            let done = threads.each(0..3, outer).unwrap();
            assert_eq!(done.concat().len(), 60);
            assert!(done.concat().is_sorted());
            assert_eq!(most.into_inner(), count);
            let failed = threads.each(0..100, |item| if item % 7 == 6 { Err(item) } else { Ok(()) });
            assert_eq!(failed, Err(6));
        }
    }

    /// Results are put in order, and no thread waits for a turn that never comes.
    #[test]
    fn results_of_many_threads_are_put_in_order() {
        for count in [1, 2, 7] {
            let threads = Threads::new(count);
            let in_turn = |fails: usize, refuses: usize| {
                let mut put = Vec::new();
                let make = |item: u64| {
                    std::thread::sleep(Duration::from_micros(item * 7919 % 300));
                    if item as usize == fails { Err(item) } else { Ok(item) }
                };
                let done = threads.in_turn((0..60).collect::<Vec<_>>(), make, |item| {
                    put.push(item);
                    if item as usize == refuses { Err(item + 100) } else { Ok(()) }
                });
                (done, put)
            };
            assert_eq!(in_turn(99, 99), (Ok(()), (0..60).collect()));
            let (failed, put) = in_turn(20, 99);
            assert!(failed == Err(20) && put.len() <= 20 && put.iter().copied().eq(0..put.len() as u64));
            assert_eq!(in_turn(99, 30), (Err(130), (0..=30).collect()));
        }
        let panics = |item: usize| if item == 5 { panic!("as it should") } else { Ok::<_, ()>(item) };
        let caught = std::panic::catch_unwind(|| Threads::new(4).in_turn(0..100usize, panics, |_| Ok(())));
        assert!(caught.is_err());
    }
}
