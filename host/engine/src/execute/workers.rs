//! Connects a run with its workers: threads that are started when there is work for them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::Scope;

use millrace_threads::{Slots, spawn_helper};

use super::compute::Compute;
use super::display::Display;
use super::executor::{LocalExecutor, ProcessExecutor, TaskExecutor};
use super::job::{Job, JobResult};
use super::options::{Executor, Options};
use super::pool::{Scheduler, WorkerPool};
use super::run::Run;
use super::schedule::{TaskId, Urgency};
use crate::chunks::StoreChunks;
use crate::event::Event;

/// A run as the scheduler of its workers.
struct RunScheduler<'s, 'a> {
    run: &'s mut Run<'a>,
    /// For progress of tasks; closed when the last worker has ended.
    events: Weak<Sender<Event>>,
    display: &'s Display<'a>,
}

impl Scheduler for RunScheduler<'_, '_> {
    type Job = Box<Job>;
    type Outcome = (TaskId, JobResult);
    type StartEvent = Option<Event>;
    type Urgency = Urgency;

    fn urgency(job: &Self::Job) -> Urgency {
        job.urgency
    }

    fn start_event(job: &mut Self::Job) -> Self::StartEvent {
        job.started.take()
    }

    fn on_started(&mut self, event: Self::StartEvent) {
        event.into_iter().for_each(|event| self.run.ledger.emit.send(event));
    }

    fn on_finished(&mut self, (task, result): Self::Outcome) {
        self.run.on_finished(task, result);
    }

    fn next(&mut self, above: Option<Urgency>) -> Option<Self::Job> {
        self.run.next(above, &*self.events.upgrade()?).map(Box::new)
    }

    fn on_abandoned(&mut self, job: Self::Job) {
        self.run.on_abandoned(job.task);
    }

    fn is_stopping(&self) -> bool {
        self.run.is_stopping()
    }

    fn is_idle(&self) -> bool {
        self.run.is_idle()
    }

    fn has_ready(&self) -> bool {
        self.run.has_ready()
    }

    fn on_scheduled(&mut self) {
        self.display.put(self.run.ledger.emit.take());
    }
}

/// What the workers of a run share.
struct WorkerContext<'s, 'a> {
    pool: WorkerPool<RunScheduler<'s, 'a>>,
    options: &'a Options,
    executor: &'s dyn TaskExecutor,
    display: &'s Display<'a>,
}

/// Runs all tasks that can run.
pub(super) fn run_tasks(run: &mut Run<'_>, chunks: &Arc<StoreChunks>) {
    let (events, progress) = channel::<Event>();
    // If every task is cached, no thread is needed.
    if let Some(job) = run.next(None, &events) {
        let (options, components) = (run.options, &run.loaded.components);
        let (store, cancel) = (&options.store, &options.cancel);
        let executor: Box<dyn TaskExecutor> = match &options.executor {
            Executor::Local => {
                let slots = Slots::new(options.jobs);
                Box::new(LocalExecutor {
                    compute: Compute { store, chunks: chunks.clone(), cancel, slots },
                    components,
                })
            }
            Executor::Process { program, arguments } => {
                let (program, arguments) = (program.clone(), arguments.clone());
                Box::new(ProcessExecutor { store, components, cancel, program, arguments })
            }
        };
        let display = Display::new(run.ledger.emit.collect());
        with_workers(run, job, &*executor, &display, events, progress);
        display.put(run.ledger.emit.take());
        display.render();
        run.ledger.emit = display.into_emit();
    }
    run.close();
}

fn with_workers<'a>(
    run: &mut Run<'a>,
    job: Job,
    executor: &dyn TaskExecutor,
    display: &Display<'a>,
    events: Sender<Event>,
    progress: Receiver<Event>,
) {
    let events = Arc::new(events);
    let options = run.options;
    let scheduler = RunScheduler { run, events: Arc::downgrade(&events), display };
    let pool = WorkerPool::new(scheduler, Box::new(job), options.jobs);
    let shared = WorkerContext { pool, options, executor, display };
    std::thread::scope(|scope| {
        let (first, sender) = (&shared, events.clone());
        match spawn_helper(scope, move || work(first, scope, &sender)) {
            Some(_) => drop(events),
            // If no thread can be started, this one works, and progress is rendered at the end.
            None => {
                work(first, scope, &events);
                drop(events);
            }
        }
        // Until the last worker has dropped its sender.
        for event in progress {
            display.put_now(event);
            display.render();
        }
    });
}

fn work<'scope>(shared: &'scope WorkerContext<'_, '_>, scope: &'scope Scope<'scope, '_>, events: &Arc<Sender<Event>>) {
    let WorkerContext { pool, options, executor, display } = shared;
    let _guard = pool.shutdown_guard();
    let spawn_worker = || {
        let events = events.clone();
        spawn_helper(scope, move || work(shared, scope, &events)).is_some()
    };
    while let Some(job) = pool.next(spawn_worker, || display.render()) {
        let task = job.task;
        display.render();
        // A panic of the host in one task must not end the run.
        let execute = || executor.execute(job.prepared).or_cancelled(&options.cancel);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(execute));
        let result = result.unwrap_or_else(|_| JobResult::host("the host panicked: please report this"));
        pool.finish((task, result));
    }
}
