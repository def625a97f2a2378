//! Workers that schedule for themselves: there is no scheduler thread, and no worker waits for the
//! one that schedules.
//!
//! A worker that finishes a job pushes the result to the inbox. If the scheduler lock is free,
//! it takes the lock, drains the inbox and asks the scheduler for the next job. Otherwise it
//! takes one of the few jobs that were prefetched, pushes their start event to the inbox, and
//! goes on; if there is none it sleeps until it is woken.
//!
//! Two checks prevent lost wake-ups. After unlocking, a worker checks the inbox again, so that
//! no result is left there. And a worker that finds no job checks once more after it is
//! counted as a sleeper, while a worker that has scheduled checks for sleepers afterwards.
//!
//! The pool knows nothing about tasks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError, TryLockError};

use crossbeam_queue::SegQueue;
use millrace_threads::lock;

/// Hands out jobs and takes their results. One worker at a time uses it.
pub(super) trait Scheduler {
    /// The work of a worker.
    type Job;
    /// The result of a job.
    type Outcome;
    /// What is reported when a worker begins a job.
    type StartEvent;
    /// The order of jobs: the greatest runs first.
    type Urgency: Ord;

    /// Takes the outcome of a job.
    fn on_finished(&mut self, outcome: Self::Outcome);
    /// The next job, if it is more urgent than `above`.
    fn next(&mut self, above: Option<Self::Urgency>) -> Option<Self::Job>;
    /// The urgency of a job.
    fn urgency(job: &Self::Job) -> Self::Urgency;
    /// Takes the start event out of a job.
    fn start_event(job: &mut Self::Job) -> Self::StartEvent;
    /// A worker has begun a job. Called before [`Self::on_finished`] of that job.
    fn on_started(&mut self, event: Self::StartEvent);
    /// Takes back a job that no worker has begun.
    fn on_abandoned(&mut self, job: Self::Job);
    /// Whether no further job is to begin.
    fn is_stopping(&self) -> bool;
    /// Whether no job is handed out.
    fn is_idle(&self) -> bool;
    /// Whether jobs wait to be handed out.
    fn has_ready(&self) -> bool;
    /// Called after each turn of scheduling, before another worker's turn.
    fn on_scheduled(&mut self);
}

/// The state that workers share.
pub(super) struct WorkerPool<S: Scheduler> {
    scheduler: Mutex<S>,
    /// Messages for the scheduler, in order.
    inbox: SegQueue<Message<S>>,
    /// Jobs for workers that find the scheduler locked.
    prefetched: SegQueue<S::Job>,
    max_workers: usize,
    workers: AtomicUsize,
    sleepers: AtomicUsize,
    /// Wake-ups that were sent to sleepers and not consumed yet.
    wakeups: Mutex<usize>,
    changed: Condvar,
    /// No further job will be ready.
    is_over: AtomicBool,
}

/// A message for the scheduler.
enum Message<S: Scheduler> {
    Finished(S::Outcome),
    Started(S::StartEvent),
}

/// The result of looking for a job.
enum NextJob<J> {
    /// A job, and whether there are more.
    Job(J, bool),
    /// No job until another ends.
    Nothing,
    /// No further job.
    Over,
}

/// Ends the pool when a worker leaves, even by a panic: the others must not wait for it.
pub(super) struct ShutdownGuard<'p, S: Scheduler>(&'p WorkerPool<S>);

impl<S: Scheduler> Drop for ShutdownGuard<'_, S> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        drop(lock(&self.0.wakeups));
        self.0.changed.notify_all();
    }
}

impl<S: Scheduler> WorkerPool<S> {
    /// A pool with one worker, for which `job` is prefetched, and at most `max_workers`.
    pub(super) fn new(scheduler: S, job: S::Job, max_workers: usize) -> Self {
        let prefetched = SegQueue::new();
        prefetched.push(job);
        Self {
            scheduler: Mutex::new(scheduler),
            inbox: SegQueue::new(),
            prefetched,
            max_workers,
            workers: AtomicUsize::new(1),
            sleepers: AtomicUsize::new(0),
            wakeups: Mutex::new(0),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        }
    }

    /// A guard that each worker holds while it works.
    pub(super) fn shutdown_guard(&self) -> ShutdownGuard<'_, S> {
        ShutdownGuard(self)
    }

    /// Delivers the outcome of a job.
    pub(super) fn finish(&self, outcome: S::Outcome) {
        self.inbox.push(Message::Finished(outcome));
    }

    /// The next job, waiting for one if necessary; `None` when there will be no more.
    /// `spawn_worker` starts another worker and returns whether it could; `before_sleep` is
    /// called by a worker that is about to sleep.
    pub(super) fn next(&self, spawn_worker: impl FnOnce() -> bool, before_sleep: impl Fn()) -> Option<S::Job> {
        loop {
            let mut found = self.find();
            if let NextJob::Nothing = found {
                before_sleep();
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                found = self.find();
                if let NextJob::Nothing = found {
                    self.sleep();
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            match found {
                NextJob::Job(job, has_more) => {
                    // One more worker, which wakes the next if there is still more to do.
                    if has_more && !self.wake() {
                        self.spawn(spawn_worker);
                    }
                    return Some(job);
                }
                // A worker has left, perhaps by a panic with the job that the others wait for.
                NextJob::Nothing if self.is_over.load(Ordering::SeqCst) => return None,
                NextJob::Nothing => {}
                NextJob::Over => return None,
            }
        }
    }

    /// A job: scheduled here if the lock is free, else a prefetched one.
    fn find(&self) -> NextJob<S::Job> {
        let mut found = None;
        loop {
            fence(Ordering::SeqCst);
            let mut scheduler = match (self.scheduler.try_lock(), found) {
                (Ok(scheduler), known) => {
                    found = known;
                    scheduler
                }
                // The worker that holds the lock drains the inbox, and checks it again afterwards.
                (Err(TryLockError::WouldBlock), Some(found)) => return found,
                (Err(TryLockError::WouldBlock), None) => {
                    let Some(mut job) = self.prefetched.pop() else { return NextJob::Nothing };
                    self.inbox.push(Message::Started(S::start_event(&mut job)));
                    found = Some(NextJob::Job(job, false));
                    continue;
                }
                // A worker panicked while it held the lock; the scope of the threads reports that.
                (Err(TryLockError::Poisoned(_)), _) => return NextJob::Over,
            };
            while let Some(message) = self.inbox.pop() {
                match message {
                    Message::Finished(outcome) => scheduler.on_finished(outcome),
                    Message::Started(event) => scheduler.on_started(event),
                }
            }
            let now = match found {
                // This worker has a job: new ones are for the others.
                Some(NextJob::Job(job, _)) => NextJob::Job(job, self.has_more(&scheduler)),
                _ => self.schedule(&mut scheduler),
            };
            scheduler.on_scheduled();
            drop(scheduler);
            fence(Ordering::SeqCst);
            if self.inbox.is_empty() {
                return now;
            }
            found = Some(now);
        }
    }

    /// Picks the next job, and prefetches a few for the others.
    fn schedule(&self, scheduler: &mut S) -> NextJob<S::Job> {
        let mut prefetched: Vec<S::Job> = std::iter::from_fn(|| self.prefetched.pop()).collect();
        prefetched.sort_by_key(S::urgency);
        let most_urgent = prefetched.pop();
        prefetched.into_iter().rev().for_each(|job| self.prefetched.push(job));
        let next = match (scheduler.next(most_urgent.as_ref().map(S::urgency)), most_urgent) {
            (Some(job), prefetched) => {
                prefetched.into_iter().for_each(|job| self.prefetched.push(job));
                Some(job)
            }
            (None, prefetched) => prefetched,
        };
        if scheduler.is_stopping() {
            let prefetched = std::iter::from_fn(|| self.prefetched.pop());
            next.into_iter().chain(prefetched).for_each(|job| scheduler.on_abandoned(job));
            return if scheduler.is_idle() { NextJob::Over } else { NextJob::Nothing };
        }
        let Some(mut job) = next else { return if scheduler.is_idle() { NextJob::Over } else { NextJob::Nothing } };
        scheduler.on_started(S::start_event(&mut job));
        let workers = self.workers.load(Ordering::Relaxed);
        let ahead = if workers > 1 { 1 + workers.div_ceil(4) } else { 0 };
        while self.prefetched.len() < ahead
            && let Some(job) = scheduler.next(None)
        {
            self.prefetched.push(job);
        }
        NextJob::Job(job, self.has_more(scheduler))
    }

    fn has_more(&self, scheduler: &S) -> bool {
        scheduler.has_ready() || !self.prefetched.is_empty()
    }

    /// Sleeps until it is woken.
    fn sleep(&self) {
        let is_woken = |wakeups: &mut usize| *wakeups > 0 || self.is_over.load(Ordering::SeqCst);
        let wakeups = self.changed.wait_while(lock(&self.wakeups), |wakeups| !is_woken(wakeups));
        let mut wakeups = wakeups.unwrap_or_else(PoisonError::into_inner);
        *wakeups = wakeups.saturating_sub(1);
    }

    /// Wakes a sleeper. Returns whether there is one.
    fn wake(&self) -> bool {
        fence(Ordering::SeqCst);
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        if sleepers > 0 {
            let mut wakeups = lock(&self.wakeups);
            *wakeups = (*wakeups + 1).min(sleepers);
            drop(wakeups);
            self.changed.notify_one();
        }
        sleepers > 0
    }

    fn spawn(&self, spawn_worker: impl FnOnce() -> bool) {
        let more = |workers: usize| (workers < self.max_workers).then_some(workers + 1);
        let is_wanted = self.workers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        // Where the system has no more threads, the existing workers do everything.
        if is_wanted && !spawn_worker() {
            self.workers.fetch_sub(1, Ordering::Relaxed);
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

    /// Jobs are numbers, urgent in a scrambled order. Each that ends makes others ready, so that
    /// there are many and few of them in turn.
    struct Numbers {
        /// The number of others that a job makes ready.
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

    impl Scheduler for Numbers {
        type Job = usize;
        type Outcome = usize;
        type StartEvent = usize;
        type Urgency = (usize, usize);

        fn urgency(job: &usize) -> (usize, usize) {
            Self::of(*job)
        }

        fn start_event(job: &mut usize) -> usize {
            *job
        }

        fn on_started(&mut self, job: usize) {
            self.began.push(job);
            self.most = self.most.max(self.began.len() - self.ended.len());
        }

        fn on_finished(&mut self, job: usize) {
            self.given -= 1;
            self.ended.push(job);
            let more = (self.makes)(job);
            // There is always a next job until the end.
            let more = if self.given == 0 && self.ready.is_empty() { more.max(1) } else { more };
            let end = (self.made + more).min(self.all);
            self.ready.extend((self.made..end).map(Self::of));
            self.made = end;
        }

        fn next(&mut self, above: Option<(usize, usize)>) -> Option<usize> {
            if self.is_stopping() {
                return None;
            }
            let last = *self.ready.last()?;
            if above.is_some_and(|above| last < above) {
                return None;
            }
            self.given += 1;
            self.ready.pop_last();
            Some(last.1)
        }

        fn on_abandoned(&mut self, job: usize) {
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

        fn on_scheduled(&mut self) {}
    }

    fn work<'scope>(
        pool: &'scope WorkerPool<Numbers>,
        scope: &'scope Scope<'scope, '_>,
        compute: &'scope (impl Fn(usize) + Sync),
    ) {
        let _guard = pool.shutdown_guard();
        let spawn_worker = || {
            scope.spawn(|| work(pool, scope, compute));
            true
        };
        while let Some(job) = pool.next(spawn_worker, || {}) {
            compute(job);
            pool.finish(job);
        }
    }

    /// The scheduler after all its jobs, or those until it stopped. A lost wake-up would wait for
    /// ever, which the time-out reveals.
    fn run_to_end(mut state: Numbers, workers: usize, compute: impl Fn(usize) + Send + Sync + 'static) -> Numbers {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let job = state.next(None).unwrap();
            let pool = Arc::new(WorkerPool::new(state, job, workers));
            std::thread::scope(|scope| work(&pool, scope, &compute));
            assert_eq!(pool.sleepers.load(Ordering::SeqCst), 0);
            let _ = sender.send(Arc::into_inner(pool).unwrap().scheduler.into_inner().unwrap());
        });
        receiver.recv_timeout(Duration::from_secs(60)).expect("every worker sleeps")
    }

    fn spin(job: usize) {
        (0..job % 97).for_each(|_| std::hint::spin_loop());
    }

    #[test]
    fn all_jobs_end_once_with_any_number_of_workers() {
        for workers in [1, 2, 3, 4, 8, 15] {
            for all in [1, 2, 7, 500, 30_000] {
                let mut state = run_to_end(Numbers::new(all, usize::MAX), workers, spin);
                assert!(state.most <= workers, "{} of {workers} workers work at a time", state.most);
                state.began.sort_unstable();
                state.ended.sort_unstable();
                assert_eq!(state.began, state.ended);
                assert_eq!(state.ended, (0..all).collect::<Vec<_>>(), "{workers} workers");
            }
        }
    }

    #[test]
    fn prefetched_jobs_that_are_not_begun_are_returned() {
        for workers in [1, 2, 3, 8] {
            for stop_at in (1..500).step_by(7) {
                let state = run_to_end(Numbers::new(1000, stop_at), workers, spin);
                let Numbers { ended, dropped, ready, made, .. } = state;
                assert!(ended.len() >= stop_at);
                let ready = ready.into_iter().map(|(_, job)| job);
                let mut all: Vec<usize> = ended.into_iter().chain(dropped).chain(ready).collect();
                all.sort_unstable();
                assert_eq!(all, (0..made).collect::<Vec<_>>());
            }
        }
    }

    /// One job, then two that wait for each other, and again: if the second worker stayed asleep,
    /// or its wake-up were lost while it was about to sleep, they would wait for ever.
    #[test]
    fn a_sleeper_is_woken_when_there_is_work_for_two() {
        let mut state = Numbers::new(30_000, usize::MAX);
        state.makes = |job| [2, 0, 1][job % 3];
        let meet = Barrier::new(2);
        let state = run_to_end(state, 2, move |job| {
            if !job.is_multiple_of(3) {
                meet.wait();
            }
        });
        assert_eq!(state.ended.len(), 30_000);
    }

    /// When a worker panics, the others do not wait for its job.
    #[test]
    fn a_worker_that_panics_ends_the_pool() {
        let mut state = Numbers::new(2, usize::MAX);
        state.ready.insert(Numbers::of(1));
        state.made = 2;
        let job = state.next(None).unwrap();
        let pool = WorkerPool::new(state, job, 2);
        let job = || pool.next(|| false, || {});
        assert!(job().is_some());
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _guard = pool.shutdown_guard();
                while pool.sleepers.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                panic!("while it holds a job");
            });
            pool.finish(job().unwrap());
            assert_eq!(job(), None);
            assert!(panicked.join().is_err());
        });
    }
}
