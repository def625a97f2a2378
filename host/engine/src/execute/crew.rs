//! Workers of whom one at a time decides for all, and nobody waits for the one who does.
//!
//! Who has computed something leaves what came of it, and decides if nobody else is at it.
//! Otherwise it takes one of the few jobs that were decided on in advance, leaves word of that,
//! and goes on; where there is none it waits to be called, as who has nothing to do. Two things keep anything from being forgotten. Who lets go of the state looks
//! afterwards whether something was left there meanwhile, and takes it in. And who finds nothing
//! to do looks once more after it is known to wait, while who has decided looks afterwards
//! whether somebody waits.
//!
//! It knows nothing of tasks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError, TryLockError};

use crossbeam_queue::SegQueue;

use crate::data::lock;

/// A state out of which jobs come, and to which their outcomes come back.
pub(super) trait Decide {
    /// What is to be computed.
    type Job;
    /// What came of it.
    type Outcome;
    /// Word that it begins.
    type Word;
    /// What goes first, the greater the sooner.
    type Urgency: Ord;

    /// Takes in what came of a job.
    fn ended(&mut self, outcome: Self::Outcome);
    /// The next job, if it is more urgent than another.
    fn next(&mut self, than: Option<Self::Urgency>) -> Option<Self::Job>;
    /// How urgent a job is.
    fn urgency(job: &Self::Job) -> Self::Urgency;
    /// What is to be said when somebody begins a job.
    fn word(job: &mut Self::Job) -> Self::Word;
    /// Somebody has begun a job, before what came of it.
    fn began(&mut self, word: Self::Word);
    /// Takes back a job that nobody has begun.
    fn never_began(&mut self, job: Self::Job);
    /// Whether nothing is to begin any more.
    fn is_stopping(&self) -> bool;
    /// Whether there are no jobs that were given out.
    fn is_idle(&self) -> bool;
    /// Whether there are jobs that were not.
    fn has_ready(&self) -> bool;
    /// Called when somebody has decided, and before anybody else does.
    fn decided(&mut self);
}

/// What the workers share.
pub(super) struct Crew<D: Decide> {
    state: Mutex<D>,
    /// What happened, until somebody takes it in.
    left: SegQueue<Left<D>>,
    /// Jobs for those who find somebody deciding.
    spare: SegQueue<D::Job>,
    most: usize,
    hired: AtomicUsize,
    waiting: AtomicUsize,
    /// So many of those who wait are called, and have not come yet.
    called: Mutex<usize>,
    changed: Condvar,
    /// Nothing will be ready any more.
    is_over: AtomicBool,
}

/// What a worker leaves for whoever decides.
enum Left<D: Decide> {
    Ended(D::Outcome),
    Began(D::Word),
}

/// What came of a look for something to do.
enum Found<J> {
    /// A job, and whether there is more to do.
    Job(J, bool),
    /// Nothing until one of the others is done.
    Nothing,
    /// Nothing, and so it stays.
    Over,
}

/// Sends everybody home when a worker leaves, however it does.
pub(super) struct Leaving<'c, D: Decide>(&'c Crew<D>);

impl<D: Decide> Drop for Leaving<'_, D> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        drop(lock(&self.0.called));
        self.0.changed.notify_all();
    }
}

impl<D: Decide> Crew<D> {
    /// One worker, who has a job, and at most so many in all.
    pub(super) fn new(state: D, job: D::Job, most: usize) -> Self {
        let spare = SegQueue::new();
        spare.push(job);
        Self {
            state: Mutex::new(state),
            left: SegQueue::new(),
            spare,
            most,
            hired: AtomicUsize::new(1),
            waiting: AtomicUsize::new(0),
            called: Mutex::new(0),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        }
    }

    /// To be held by a worker as long as it works.
    pub(super) fn leaving(&self) -> Leaving<'_, D> {
        Leaving(self)
    }

    /// Leaves what came of a job.
    pub(super) fn ended(&self, outcome: D::Outcome) {
        self.left.push(Left::Ended(outcome));
    }

    /// A job, waited for if need be; none when there will be no more. `hire` brings in a
    /// worker, if it can; `wait` is called by who is about to wait.
    pub(super) fn next(&self, hire: impl FnOnce() -> bool, wait: impl Fn()) -> Option<D::Job> {
        loop {
            let mut found = self.find();
            if let Found::Nothing = found {
                wait();
                self.waiting.fetch_add(1, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                found = self.find();
                if let Found::Nothing = found {
                    self.wait();
                }
                self.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            match found {
                Found::Job(job, has_more) => {
                    // One more, who calls the next if there is still something left.
                    if has_more && !self.call() {
                        self.hire(hire);
                    }
                    return Some(job);
                }
                // Somebody left for good, and be it that it died with what others wait for.
                Found::Nothing if self.is_over.load(Ordering::SeqCst) => return None,
                Found::Nothing => {}
                Found::Over => return None,
            }
        }
    }

    /// A job, decided on here, or by whoever is deciding.
    fn find(&self) -> Found<D::Job> {
        let mut found = None;
        loop {
            fence(Ordering::SeqCst);
            let mut state = match (self.state.try_lock(), found) {
                (Ok(state), known) => {
                    found = known;
                    state
                }
                // Whoever decides takes in what was left, and looks for more when it is done.
                (Err(TryLockError::WouldBlock), Some(found)) => return found,
                (Err(TryLockError::WouldBlock), None) => {
                    let Some(mut job) = self.spare.pop() else { return Found::Nothing };
                    self.left.push(Left::Began(D::word(&mut job)));
                    found = Some(Found::Job(job, false));
                    continue;
                }
                // Somebody died with it: the scope of the threads tells of it.
                (Err(TryLockError::Poisoned(_)), _) => return Found::Over,
            };
            while let Some(left) = self.left.pop() {
                match left {
                    Left::Ended(outcome) => state.ended(outcome),
                    Left::Began(word) => state.began(word),
                }
            }
            let now = match found {
                // What came meanwhile is for others.
                Some(Found::Job(job, _)) => Found::Job(job, self.has_more(&state)),
                _ => self.decide(&mut state),
            };
            state.decided();
            drop(state);
            fence(Ordering::SeqCst);
            if self.left.is_empty() {
                return now;
            }
            found = Some(now);
        }
    }

    /// Decides what is next.
    fn decide(&self, state: &mut D) -> Found<D::Job> {
        let mut spare: Vec<D::Job> = std::iter::from_fn(|| self.spare.pop()).collect();
        spare.sort_by_key(D::urgency);
        let most_urgent = spare.pop();
        spare.into_iter().rev().for_each(|job| self.spare.push(job));
        let next = match (state.next(most_urgent.as_ref().map(D::urgency)), most_urgent) {
            (Some(job), spare) => {
                spare.into_iter().for_each(|job| self.spare.push(job));
                Some(job)
            }
            (None, spare) => spare,
        };
        if state.is_stopping() {
            let spare = std::iter::from_fn(|| self.spare.pop());
            next.into_iter().chain(spare).for_each(|job| state.never_began(job));
            return if state.is_idle() { Found::Over } else { Found::Nothing };
        }
        let Some(mut job) = next else { return if state.is_idle() { Found::Over } else { Found::Nothing } };
        state.began(D::word(&mut job));
        let hired = self.hired.load(Ordering::Relaxed);
        let ahead = if hired > 1 { 1 + hired.div_ceil(4) } else { 0 };
        while self.spare.len() < ahead
            && let Some(job) = state.next(None)
        {
            self.spare.push(job);
        }
        Found::Job(job, self.has_more(state))
    }

    fn has_more(&self, state: &D) -> bool {
        state.has_ready() || !self.spare.is_empty()
    }

    /// Waits to be called.
    fn wait(&self) {
        let is_called = |called: &mut usize| *called > 0 || self.is_over.load(Ordering::SeqCst);
        let called = self.changed.wait_while(lock(&self.called), |called| !is_called(called));
        let mut called = called.unwrap_or_else(PoisonError::into_inner);
        *called = called.saturating_sub(1);
    }

    /// Whether there was somebody to call.
    fn call(&self) -> bool {
        fence(Ordering::SeqCst);
        let waiting = self.waiting.load(Ordering::SeqCst);
        if waiting > 0 {
            let mut called = lock(&self.called);
            *called = (*called + 1).min(waiting);
            drop(called);
            self.changed.notify_one();
        }
        waiting > 0
    }

    fn hire(&self, hire: impl FnOnce() -> bool) {
        let more = |hired: usize| (hired < self.most).then_some(hired + 1);
        let is_wanted = self.hired.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        // Where the system has no more threads, those that are there do all.
        if is_wanted && !hire() {
            self.hired.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Barrier};
    use std::thread::Scope;
    use std::time::Duration;

    use super::*;

    /// Jobs are numbers, urgent without order. Each that ends makes others ready, so that there
    /// are many and few of them in turn.
    struct Numbers {
        /// How many others a job makes ready.
        makes: fn(usize) -> usize,
        ready: BTreeSet<(usize, usize)>,
        given: usize,
        made: usize,
        all: usize,
        ended: Vec<usize>,
        stop_at: usize,
        dropped: Vec<usize>,
        began: Vec<usize>,
        most: usize,
    }

    impl Numbers {
        fn new(all: usize, stop_at: usize) -> Self {
            let (ended, dropped, began) = (Vec::new(), Vec::new(), Vec::new());
            let makes = |job| [3, 0, 0, 1, 1, 1, 1, 1][job % 8];
            Self { makes, ready: [(0, 0)].into(), given: 0, made: 1, all, ended, stop_at, dropped, began, most: 0 }
        }

        fn of(job: usize) -> (usize, usize) {
            (job * 7919 % 1009, job)
        }
    }

    impl Decide for Numbers {
        type Job = usize;
        type Outcome = usize;
        type Word = usize;
        type Urgency = (usize, usize);

        fn urgency(job: &usize) -> (usize, usize) {
            Self::of(*job)
        }

        fn word(job: &mut usize) -> usize {
            *job
        }

        fn began(&mut self, job: usize) {
            self.began.push(job);
            self.most = self.most.max(self.began.len() - self.ended.len());
        }

        fn ended(&mut self, job: usize) {
            self.given -= 1;
            self.ended.push(job);
            let more = (self.makes)(job);
            // Somebody has to go on.
            let more = if self.given == 0 && self.ready.is_empty() { more.max(1) } else { more };
            let end = (self.made + more).min(self.all);
            self.ready.extend((self.made..end).map(Self::of));
            self.made = end;
        }

        fn next(&mut self, than: Option<(usize, usize)>) -> Option<usize> {
            if self.is_stopping() {
                return None;
            }
            let last = *self.ready.last()?;
            if than.is_some_and(|than| last < than) {
                return None;
            }
            self.given += 1;
            self.ready.pop_last();
            Some(last.1)
        }

        fn never_began(&mut self, job: usize) {
            self.given -= 1;
            self.dropped.push(job);
        }

        fn is_stopping(&self) -> bool {
            self.ended.len() >= self.stop_at
        }

        fn is_idle(&self) -> bool {
            self.given == 0
        }

        fn has_ready(&self) -> bool {
            !self.ready.is_empty()
        }

        fn decided(&mut self) {}
    }

    fn work<'scope>(
        crew: &'scope Crew<Numbers>,
        scope: &'scope Scope<'scope, '_>,
        compute: &'scope (impl Fn(usize) + Sync),
    ) {
        let _leaving = crew.leaving();
        let hire = || {
            scope.spawn(|| work(crew, scope, compute));
            true
        };
        while let Some(job) = crew.next(hire, || {}) {
            compute(job);
            crew.ended(job);
        }
    }

    /// A state after all its jobs, or as many as there were until it was stopped. Who waits
    /// for what was forgotten waits for ever: that is seen by a clock.
    fn worked_off(mut state: Numbers, workers: usize, compute: impl Fn(usize) + Send + Sync + 'static) -> Numbers {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let job = state.next(None).unwrap();
            let crew = Arc::new(Crew::new(state, job, workers));
            std::thread::scope(|scope| work(&crew, scope, &compute));
            assert_eq!(crew.waiting.load(Ordering::SeqCst), 0);
            let _ = tell.send(Arc::into_inner(crew).unwrap().state.into_inner().unwrap());
        });
        told.recv_timeout(Duration::from_secs(60)).expect("all wait")
    }

    fn spin(job: usize) {
        (0..job % 97).for_each(|_| std::hint::spin_loop());
    }

    #[test]
    fn all_jobs_end_once_however_many_workers() {
        for workers in [1, 2, 3, 4, 8, 15] {
            for all in [1, 2, 7, 500, 30_000] {
                let mut state = worked_off(Numbers::new(all, usize::MAX), workers, spin);
                assert!(state.most <= workers, "{} of {workers} workers are shown at work", state.most);
                state.began.sort_unstable();
                state.ended.sort_unstable();
                assert_eq!(state.began, state.ended);
                assert_eq!(state.ended, (0..all).collect::<Vec<_>>(), "{workers} workers");
            }
        }
    }

    #[test]
    fn what_was_decided_on_and_not_begun_is_given_back() {
        for workers in [1, 2, 3, 8] {
            for stop_at in (1..500).step_by(7) {
                let state = worked_off(Numbers::new(1000, stop_at), workers, spin);
                let Numbers { ended, dropped, ready, made, .. } = state;
                assert!(ended.len() >= stop_at);
                let ready = ready.into_iter().map(|(_, job)| job);
                let mut all: Vec<usize> = ended.into_iter().chain(dropped).chain(ready).collect();
                all.sort_unstable();
                assert_eq!(all, (0..made).collect::<Vec<_>>());
            }
        }
    }

    /// One job, then two that wait for each other, and again: with the second worker asleep, or
    /// forgotten on its way to bed, they would wait for ever.
    #[test]
    fn who_waits_is_called_when_there_is_more_than_one_can_do() {
        let mut state = Numbers::new(30_000, usize::MAX);
        state.makes = |job| [2, 0, 1][job % 3];
        let meet = Barrier::new(2);
        let state = worked_off(state, 2, move |job| {
            if !job.is_multiple_of(3) {
                meet.wait();
            }
        });
        assert_eq!(state.ended.len(), 30_000);
    }

    /// Where one died, the others do not wait for what it had.
    #[test]
    fn who_dies_sends_the_others_home() {
        let mut state = Numbers::new(2, usize::MAX);
        state.ready.insert(Numbers::of(1));
        state.made = 2;
        let job = state.next(None).unwrap();
        let crew = Crew::new(state, job, 2);
        let job = || crew.next(|| false, || {});
        assert!(job().is_some());
        std::thread::scope(|scope| {
            let died = scope.spawn(|| {
                let _leaving = crew.leaving();
                while crew.waiting.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                panic!("with a job in hand");
            });
            crew.ended(job().unwrap());
            assert_eq!(job(), None);
            assert!(died.join().is_err());
        });
    }
}
