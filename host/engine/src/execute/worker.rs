//! Where tasks are computed: threads that are made when there is something to do.
//!
//! Which task is next is decided by one of them at a time ([`Crew`]), and what is shown is
//! shown by whoever is free ([`Screen`]). What is decided never depends on who decides.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::Scope;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_store::Store;
use millrace_types::wire::Kind;
use millrace_types::{ActionKey, ActionRecord, Cost, KeyParts, LogLine};
use millrace_wasm::{Cancel, Data, Failure, Produced, Slots, TaskOutcome, TaskSpec};

use super::Options;
use super::crew::{Crew, Decide};
use super::helper::helper;
use super::run::{Run, Urgency};
use super::screen::{Emit, Screen};
use crate::components::{Components, Used};
use crate::data::StoreData;
use crate::event::Event;
use crate::grants::Granted;

/// A task to compute.
pub(super) struct Job {
    pub(super) task: usize,
    pub(super) urgency: Urgency,
    /// To be told when it begins.
    pub(super) started: Option<Event>,
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

/// The state of a run, in the hands of whoever decides.
struct Deciding<'s, 'a> {
    run: &'s mut Run<'a>,
    /// As long as there is a worker.
    to_screen: Weak<Sender<Event>>,
    screen: &'s Screen<'a>,
}

impl Decide for Deciding<'_, '_> {
    type Job = Box<Job>;
    type Outcome = (usize, Outcome);
    type Word = Option<Event>;
    type Urgency = Urgency;

    fn urgency(job: &Self::Job) -> Urgency {
        job.urgency
    }

    fn word(job: &mut Self::Job) -> Self::Word {
        job.started.take()
    }

    fn began(&mut self, word: Self::Word) {
        word.into_iter().for_each(|event| self.run.emit.tell(event));
    }

    fn ended(&mut self, (task, outcome): Self::Outcome) {
        self.run.ended(task, outcome);
    }

    fn next(&mut self, than: Option<Urgency>) -> Option<Self::Job> {
        self.run.next(than, &*self.to_screen.upgrade()?).map(Box::new)
    }

    fn never_began(&mut self, job: Self::Job) {
        self.run.never_began(job.task);
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

    /// Events are those of what happened, and in its order.
    fn decided(&mut self) {
        self.screen.put(self.run.emit.take());
    }
}

/// What the workers of a run share.
struct Shared<'s, 'a> {
    crew: Crew<Deciding<'s, 'a>>,
    options: &'a Options,
    components: &'a Components,
    screen: &'s Screen<'a>,
    data: &'s Arc<StoreData>,
    /// Workers hold one while a guest computes.
    slots: Arc<Slots>,
}

/// Does what can be done, until nothing can.
pub(super) fn work_off(run: &mut Run<'_>, data: &Arc<StoreData>) {
    let (to_screen, progress) = channel::<Event>();
    // Where everything is known there is nothing for threads to do.
    if let Some(job) = run.next(None, &to_screen) {
        let screen = Screen::new(std::mem::replace(&mut run.emit, Emit::Later(Vec::new())));
        with_workers(run, job, data, &screen, to_screen, progress);
        screen.put(run.emit.take());
        screen.show();
        run.emit = screen.into_emit();
    }
    run.close();
}

fn with_workers<'a>(
    run: &mut Run<'a>,
    job: Job,
    data: &Arc<StoreData>,
    screen: &Screen<'a>,
    to_screen: Sender<Event>,
    progress: Receiver<Event>,
) {
    let to_screen = Arc::new(to_screen);
    let (options, components) = (run.options, &run.loaded.components);
    let deciding = Deciding { run, to_screen: Arc::downgrade(&to_screen), screen };
    let crew = Crew::new(deciding, Box::new(job), options.jobs);
    let shared = Shared { crew, options, components, screen, data, slots: Slots::new(options.jobs) };
    std::thread::scope(|scope| {
        let (first, sender) = (&shared, to_screen.clone());
        match helper(scope, move || work(first, scope, &sender)) {
            Some(_) => drop(to_screen),
            // Nobody else is there to do it: what it tells is shown at the end.
            None => {
                work(first, scope, &to_screen);
                drop(to_screen);
            }
        }
        // Until the last worker has dropped its end.
        for event in progress {
            screen.put([event]);
            screen.show();
        }
    });
}

fn work<'scope>(shared: &'scope Shared<'_, '_>, scope: &'scope Scope<'scope, '_>, to_screen: &Arc<Sender<Event>>) {
    let Shared { crew, options, components, screen, data, slots } = shared;
    let _leaving = crew.leaving();
    let hire = || {
        let to_screen = to_screen.clone();
        helper(scope, move || work(shared, scope, &to_screen)).is_some()
    };
    while let Some(job) = crew.next(hire, || screen.show()) {
        let task = job.task;
        screen.show();
        // A bug of ours in one task must not take the run with it.
        let cancel = &options.cancel;
        let compute = || compute(*job, &options.store, data, components, cancel, slots);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compute().or_cancelled(cancel)));
        let outcome = outcome.unwrap_or_else(|_| Outcome::Failed {
            failure: Failure::Host { message: "the host panicked: please report this".to_owned() },
            cost: Cost::default(),
            log: Vec::new(),
        });
        crew.ended((task, outcome));
    }
}
