//! The threads that reading and exports may use.
//!
//! Whoever has more to do than it is about to do itself asks for help, and gets it when a
//! thread is free: so the last file is read by all, whether it is the last of many, the last
//! row group, or the only one. It knows nothing of what is done.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::Scope;

/// Threads, of which those that have nothing to do may be asked for.
#[derive(Debug)]
pub struct Threads {
    free: AtomicUsize,
}

/// A thread that was free; free again when this is dropped.
struct Taken<'t>(&'t Threads);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Release);
    }
}

/// Asks for a thread that does the same as the one that asks.
pub(crate) type Help<'h> = &'h dyn Fn();

impl Threads {
    /// So many, of which the caller is one. There is always the caller.
    pub fn new(count: usize) -> Self {
        Self { free: AtomicUsize::new(count.saturating_sub(1)) }
    }

    fn take(&self) -> Option<Taken<'_>> {
        let less = |free: usize| free.checked_sub(1);
        self.free.fetch_update(Ordering::Acquire, Ordering::Relaxed, less).ok().map(|_| Taken(self))
    }

    /// Does `work` on this thread, and on one more each time that it asks and one is free.
    /// Comes back when all have.
    pub(crate) fn work(&self, work: impl Fn(Help<'_>) + Sync) {
        std::thread::scope(|scope| begin(self, scope, &work));
    }

    /// As [`Self::work`], and on one thread more than there are: of those that take turns at a
    /// file and wait for it, as many compute as there are.
    pub(crate) fn work_and_one_more(&self, work: impl Fn(Help<'_>) + Sync) {
        std::thread::scope(|scope| {
            started(scope, || begin(self, scope, &work));
            begin(self, scope, &work);
        });
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

fn begin<'scope>(threads: &'scope Threads, scope: &'scope Scope<'scope, '_>, work: &'scope (impl Fn(Help<'_>) + Sync)) {
    work(&|| {
        if let Some(taken) = threads.take() {
            started(scope, move || {
                let _taken = taken;
                begin(threads, scope, work);
            });
        }
    });
}

/// Starts a thread. Where the system has none more, those that are there do all.
fn started<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) {
    let _ = std::thread::Builder::new().spawn_scoped(scope, work);
}
