//! Where tasks are computed: threads that are made when there is something to do.
//!
//! Whoever has computed a task takes what came of it into the run's state, under the
//! one lock of it, and with the next task in hand lets go: nothing is handed from
//! thread to thread while there is work. What is decided never depends on who decides.
//! Nobody waits for the screen under that lock.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Scope;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_store::Store;
use millrace_types::wire::Kind;
use millrace_types::{ActionKey, ActionRecord, Cost, KeyParts, LogLine};
use millrace_wasm::{Cancel, Data, Failure, Produced, Slots, TaskOutcome, TaskSpec};

use super::helper::helper;
use super::run::Run;
use super::screen::{Emit, Screen};
use crate::components::{Components, Used};
use crate::data::{StoreData, lock};
use crate::event::Event;
use crate::grants::Granted;

/// A task to compute.
pub(super) struct Job {
    pub(super) task: usize,
    pub(super) key: ActionKey,
    pub(super) parts: KeyParts,
    pub(super) spec: TaskSpec,
    pub(super) used: Arc<Used>,
    pub(super) granted: Arc<Granted>,
    /// Whether a record that somebody else makes meanwhile will do.
    pub(super) may_hit: bool,
}

/// What became of it.
pub(super) enum Outcome {
    /// It ran; the record is kept.
    Ran(Box<ActionRecord>),
    /// Another process made the record while this one waited.
    Found(Box<ActionRecord>),
    /// It did not finish.
    Failed { failure: Failure, cost: Cost, log: Vec<LogLine> },
}

impl Outcome {
    /// Who wishes to stop makes whatever is read fail, and the host with it: that is no failure.
    fn or_cancelled(self, cancel: &Cancel) -> Self {
        match self {
            Self::Failed { failure: Failure::Host { .. }, cost, log } if cancel.is_cancelled() => {
                Self::Failed { failure: Failure::Cancelled, cost, log }
            }
            other => other,
        }
    }
}

/// A record that can be used: all that it names is there.
pub(super) fn lookup(store: &Store, key: &ActionKey) -> Option<ActionRecord> {
    let record = store.record::<ActionRecord>(Kind::Action, key.as_bytes())?;
    (record.key == *key && record.objects().iter().all(|object| store.has(object))).then_some(record)
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Computes a task and keeps its record.
pub(super) fn compute(
    job: Job,
    store: &Store,
    data: &Arc<StoreData>,
    components: &Components,
    cancel: &Cancel,
    slots: &Arc<Slots>,
) -> Outcome {
    let host = |message: String| Outcome::Failed {
        failure: Failure::Host { message },
        cost: Cost::default(),
        log: Vec::new(),
    };
    let Job { key, parts, spec, used, granted, may_hit, .. } = job;
    let _claim = match store.claim(&key, &|| cancel.is_cancelled()) {
        Ok(Some(claim)) if !cancel.is_cancelled() => claim,
        Ok(_) => return Outcome::Failed { failure: Failure::Cancelled, cost: Cost::default(), log: Vec::new() },
        Err(error) => return host(error.to_string()),
    };
    if may_hit && let Some(record) = lookup(store, &key) {
        return Outcome::Found(Box::new(record));
    }
    let component = match components.component(&used) {
        Ok(component) => component,
        Err(error) => return host(format!("`{}` cannot be used: {error}", used.uses)),
    };
    let seen: Arc<dyn Data> = data.clone();
    let TaskOutcome { result, metrics, log, cost } = component.run(spec, seen, cancel, slots.take());
    if let Err(damage) = data.settle() {
        return Outcome::Failed { failure: Failure::Host { message: damage.to_string() }, cost, log };
    }
    if let Some(name) = granted.changed(store) {
        let message = format!("the granted folder `{name}` changed while this ran: run again");
        return Outcome::Failed { failure: Failure::Host { message }, cost, log };
    }
    match result {
        Err(failure) => Outcome::Failed { failure, cost, log },
        Ok(Produced { outputs, partial }) => {
            let record = ActionRecord { key, parts, outputs, partial, metrics, log, cost, finished_at: now() };
            // The objects are there by now; the record comes last.
            match store.put_record(Kind::Action, key.as_bytes(), &record) {
                Ok(()) => Outcome::Ran(Box::new(record)),
                Err(error) => host(error.to_string()),
            }
        }
    }
}

/// What the workers of a run share.
struct Shared<'s, 'a> {
    run: Mutex<(&'s mut Run<'a>, Staff)>,
    /// Something may be ready, or nothing ever will be.
    changed: Condvar,
    screen: Screen<'a>,
    data: &'s Arc<StoreData>,
    /// Workers hold one while a guest computes.
    slots: Arc<Slots>,
}

#[derive(Default)]
struct Staff {
    hired: usize,
    waiting: usize,
}

/// Wakes everybody when a worker leaves, however it does.
struct Leaving<'s>(&'s Condvar);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

/// Does what can be done, until nothing can.
pub(super) fn work_off(run: &mut Run<'_>, data: &Arc<StoreData>) {
    let (to_screen, progress) = channel::<Event>();
    // Where everything is known there is nothing for threads to do.
    let Some(job) = run.next(&to_screen) else { return run.close() };
    let staff = Staff { hired: 1, waiting: 0 };
    let slots = Slots::new(run.options.jobs);
    let screen = Screen::new(std::mem::replace(&mut run.emit, Emit::Later(Vec::new())));
    let shared = Shared { run: Mutex::new((run, staff)), changed: Condvar::new(), screen, data, slots };
    let job = Mutex::new(Some(job));
    std::thread::scope(|scope| {
        let (first, job) = (&shared, &job);
        let begin = move |to_screen| work(first, scope, to_screen, lock(job).take());
        let sender = to_screen.clone();
        match helper(scope, move || begin(sender)) {
            Some(_) => drop(to_screen),
            // Nobody else is there to do it: what it tells is shown at the end.
            None => begin(to_screen),
        }
        // Until the last worker has dropped its end.
        for event in progress {
            shared.screen.put(vec![event]);
            shared.screen.show();
        }
    });
    let Shared { run, screen, .. } = shared;
    let (run, _) = run.into_inner().unwrap_or_else(PoisonError::into_inner);
    screen.put(run.emit.take());
    screen.show();
    run.emit = screen.into_emit();
    run.close();
}

fn work<'scope, 's, 'a>(
    shared: &'scope Shared<'s, 'a>,
    scope: &'scope Scope<'scope, '_>,
    to_screen: Sender<Event>,
    mut job: Option<Job>,
) {
    let _leaving = Leaving(&shared.changed);
    // A lock that somebody died with: the scope tells of it.
    let Ok(mut guard) = shared.run.lock() else { return };
    let (options, components) = (guard.0.options, &guard.0.loaded.components);
    loop {
        let (run, staff) = &mut *guard;
        let next = job.take().or_else(|| run.next(&to_screen));
        // Under the lock, since the order of events is that of what happened.
        let events = run.emit.take();
        let is_news = !events.is_empty();
        shared.screen.put(events);
        let Some(job) = next else {
            if is_news {
                drop(guard);
                shared.screen.show();
                let Ok(locked) = shared.run.lock() else { return };
                guard = locked;
                continue;
            }
            if run.is_idle() {
                return;
            }
            staff.waiting += 1;
            let Ok(woken) = shared.changed.wait(guard) else { return };
            guard = woken;
            guard.1.waiting -= 1;
            continue;
        };
        // One more, who brings in the next if there is still something left.
        if run.has_ready() {
            if staff.waiting > 0 {
                shared.changed.notify_one();
            } else if staff.hired < options.jobs {
                let to_screen = to_screen.clone();
                let hired = move || work(shared, scope, to_screen, None);
                // Where the system has no more threads, those that are there do all.
                staff.hired += usize::from(helper(scope, hired).is_some());
            }
        }
        drop(guard);
        shared.screen.show();
        let task = job.task;
        // A bug of ours in one task must not take the run with it.
        let cancel = &options.cancel;
        let compute = || compute(job, &options.store, shared.data, components, cancel, &shared.slots);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compute().or_cancelled(cancel)));
        let outcome = outcome.unwrap_or_else(|_| Outcome::Failed {
            failure: Failure::Host { message: "the host panicked: please report this".to_owned() },
            cost: Cost::default(),
            log: Vec::new(),
        });
        let Ok(locked) = shared.run.lock() else { return };
        guard = locked;
        guard.0.ended(task, outcome);
    }
}
