//! The event log of a run: what happened, and when, in one compressed file.
//!
//! ```text
//! events/RUN   a record of kind `Events`: when the run began, its steps, and its events, each
//!              with the microseconds since the beginning; postcard, compressed with zstd
//! ```
//!
//! Tasks that came from the cache are in the history of the run, with their keys and costs, so
//! the log leaves them out, and [`events_of`] adds them where their step ends. Numbers of tasks
//! and progress within a task are not logged. A run that was replayed from its trace has no log:
//! all its tasks are cached.
//!
//! This module knows the stored form of events; it does not know who reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_store::{Store, StoreError};
use millrace_types::wire::{self, Kind};
use millrace_types::{ActionKey, ByteSize, Cost, Failure, LogLine, Phase};
use serde::{Deserialize, Serialize};

use crate::Diagnostic;
use crate::event::{Event, EventEnvelope, NearLimit, RunClock, Status, StepSummary, Summary, TaskEnd};
use crate::history::{RunRecord, TaskRecord};
use crate::remote::RemoteReport;

/// The compression level of zstd: the fastest of the regular ones.
const LEVEL: i32 = 1;
/// A log is full when its events have this many bytes before compression.
const MAX_BYTES: usize = 256 << 20;

/// The file.
#[derive(Serialize, Deserialize)]
pub(crate) struct LogFile {
    /// Microseconds since 1970.
    began_us: i64,
    instances: usize,
    steps: Vec<StepSummary>,
    /// The number of events that were dropped because the log was full.
    dropped: u64,
    /// The size of the events before compression, in bytes.
    size: u64,
    /// The events, each after the microseconds since the beginning; compressed.
    events: Vec<u8>,
}

/// An event as it is stored. A new variant goes to the end; any other change needs a new version
/// of [`Kind::Events`].
#[derive(Serialize, Deserialize)]
enum Logged {
    SourceStarted { source: String },
    SourceFinished { source: String, cached: bool, rows: u64, parts: usize, wall_us: u64 },
    TaskStarted { step: String, part: Option<usize> },
    TaskFinished(Box<LoggedTask>),
    StepRefused { step: String, problems: Vec<(String, Option<String>)> },
    StepFinished { step: String },
    Exported { path: PathBuf, unchanged: bool },
    ExportFailed { path: PathBuf, message: String },
    RemoteFinished(RemoteReport),
    RunFinished { interrupted: bool, selected: BTreeMap<String, String> },
}

#[derive(Serialize, Deserialize)]
struct LoggedTask {
    step: String,
    part: Option<usize>,
    phase: Phase,
    key: Option<ActionKey>,
    status: Status,
    rows_read: u64,
    cost: Cost,
    log: Vec<LogLine>,
    failure: Option<Failure>,
    near: Vec<NearLimit>,
}

impl Logged {
    /// The stored form; `None` for an event that is not logged.
    fn of(event: &Event) -> Option<Self> {
        if !is_logged(event) {
            return None;
        }
        Some(match event.clone() {
            Event::RunStarted { .. } | Event::TasksPlanned { .. } | Event::TaskProgressed { .. } => return None,
            Event::SourceStarted { source } => Self::SourceStarted { source },
            Event::SourceFinished { source, cached, rows, parts, wall_us } => {
                Self::SourceFinished { source, cached, rows, parts, wall_us }
            }
            Event::TaskStarted { step, part } => Self::TaskStarted { step, part },
            Event::TaskFinished(end) => {
                let TaskEnd { step, part, phase, key, status, rows_read, cost, log, failure, near, reason: _ } = *end;
                Self::TaskFinished(Box::new(LoggedTask {
                    step,
                    part,
                    phase,
                    key,
                    status,
                    rows_read,
                    cost,
                    log,
                    failure,
                    near,
                }))
            }
            Event::StepRefused { step, problems } => {
                let problems = problems.into_iter().map(|problem| (problem.message, problem.help)).collect();
                Self::StepRefused { step, problems }
            }
            Event::StepFinished { step } => Self::StepFinished { step },
            Event::Exported { path, unchanged } => Self::Exported { path, unchanged },
            Event::ExportFailed { path, message } => Self::ExportFailed { path, message },
            Event::RemoteFinished(report) => Self::RemoteFinished(report),
            Event::RunFinished(summary) => {
                let selected = BTreeMap::clone(&summary.selected);
                Self::RunFinished { interrupted: summary.interrupted, selected }
            }
        })
    }

    /// The event; `run` has what only the history stores.
    fn event(self, run: &RunRecord) -> Event {
        match self {
            Self::SourceStarted { source } => Event::SourceStarted { source },
            Self::SourceFinished { source, cached, rows, parts, wall_us } => {
                Event::SourceFinished { source, cached, rows, parts, wall_us }
            }
            Self::TaskStarted { step, part } => Event::TaskStarted { step, part },
            Self::TaskFinished(task) => {
                let LoggedTask { step, part, phase, key, status, rows_read, cost, log, failure, near } = *task;
                let reason = None;
                let end = TaskEnd { step, part, phase, key, status, rows_read, cost, log, failure, near, reason };
                Event::TaskFinished(Box::new(end))
            }
            Self::StepRefused { step, problems } => {
                let problem = |(message, help)| Diagnostic { message, spans: Vec::new(), help };
                Event::StepRefused { step, problems: problems.into_iter().map(problem).collect() }
            }
            Self::StepFinished { step } => Event::StepFinished { step },
            Self::Exported { path, unchanged } => Event::Exported { path, unchanged },
            Self::ExportFailed { path, message } => Event::ExportFailed { path, message },
            Self::RemoteFinished(report) => Event::RemoteFinished(report),
            Self::RunFinished { interrupted, selected } => {
                Event::RunFinished(Summary { interrupted, ..run.summary(selected) })
            }
        }
    }
}

fn is_logged(event: &Event) -> bool {
    match event {
        Event::RunStarted { .. } | Event::TasksPlanned { .. } | Event::TaskProgressed { .. } => false,
        // A log is in no other place.
        Event::TaskFinished(end) => end.status != Status::Cached || !end.log.is_empty(),
        _ => true,
    }
}

/// The log of a run that is going on.
#[derive(Default)]
pub(crate) struct LogWriter(Mutex<Written>);

#[derive(Default)]
struct Written {
    instances: usize,
    steps: Option<Arc<[StepSummary]>>,
    dropped: u64,
    events: Vec<u8>,
}

impl LogWriter {
    /// Adds an event.
    pub(crate) fn add(&self, EventEnvelope { elapsed, event, .. }: &EventEnvelope) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::RunStarted { instances, steps, .. } = event {
            (written.instances, written.steps) = (*instances, Some(steps.clone()));
        }
        let Some(logged) = Logged::of(event) else { return };
        if written.events.len() > MAX_BYTES && !matches!(event, Event::RunFinished(_)) {
            written.dropped += 1;
            return;
        }
        let events = std::mem::take(&mut written.events);
        // Writing to a vector cannot fail, and these types have no failing serializer.
        written.events = postcard::to_extend(&(elapsed.as_micros() as u64, logged), events).unwrap_or_default();
    }

    /// Writes the log of a run.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn write(&self, store: &Store, run: &str, clock: &RunClock) -> Result<(), StoreError> {
        let Written { instances, steps, dropped, events } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let steps = steps.map(|steps| steps.to_vec()).unwrap_or_default();
        let size = events.len() as u64;
        let events = zstd::bulk::compress(&events, LEVEL).unwrap_or_default();
        let file = LogFile { began_us: clock.began().as_microsecond(), instances, steps, dropped, size, events };
        store.write_file(&path(store, run), &wire::encode(Kind::Events, run.as_bytes(), &file))
    }
}

fn path(store: &Store, run: &str) -> PathBuf {
    store.root().join("events").join(run)
}

/// Why a run has no events.
#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// It is from an earlier version, or the file was removed.
    #[error("run `{0}` has no event log")]
    Missing(String),
    /// The log cannot be read.
    #[error("the event log of run `{run}` cannot be read: {problem}")]
    Unreadable {
        /// The run.
        run: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The events of a run, in order.
///
/// # Errors
/// When it has no event log, or one that cannot be read.
pub fn events_of(store: &Store, run: &RunRecord) -> Result<Vec<EventEnvelope>, EventLogError> {
    let (log, logged) = match std::fs::read(path(store, &run.id)) {
        Ok(bytes) => {
            let unreadable = |problem: String| EventLogError::Unreadable { run: run.id.clone(), problem };
            let log: LogFile =
                wire::read(Kind::Events, run.id.as_bytes(), &bytes).map_err(|e| unreadable(e.to_string()))?;
            let logged = log.decode().ok_or_else(|| unreadable("its events cannot be decoded".to_owned()))?;
            (log, logged)
        }
        Err(_) if run.tasks.iter().all(|task| task.status == Status::Cached) => replayed(run),
        Err(_) => return Err(EventLogError::Missing(run.id.clone())),
    };
    let clock = RunClock::began_at(jiff::Timestamp::from_microsecond(log.began_us).unwrap_or_default());
    let mut cached = Cached::new(run, &logged);
    let started = Event::RunStarted {
        run: run.id.clone(),
        pipeline: run.pipeline.clone(),
        instances: log.instances,
        steps: log.steps.into(),
    };
    let mut events = vec![clock.envelope(Duration::ZERO, started)];
    for (elapsed_us, logged) in logged {
        let elapsed = Duration::from_micros(elapsed_us);
        let before = match &logged {
            Logged::StepFinished { step } => cached.take(step),
            Logged::RunFinished { .. } => cached.take_all(),
            _ => Vec::new(),
        };
        events.extend(before.into_iter().map(|event| clock.envelope(elapsed, event)));
        events.push(clock.envelope(elapsed, logged.event(run)));
    }
    Ok(events)
}

impl LogFile {
    fn decode(&self) -> Option<Vec<(u64, Logged)>> {
        let size = usize::try_from(self.size).ok().filter(|size| *size <= 2 * MAX_BYTES)?;
        let bytes = zstd::bulk::decompress(&self.events, size).ok()?;
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let (event, after) = postcard::take_from_bytes(rest).ok()?;
            events.push(event);
            rest = after;
        }
        Some(events)
    }
}

/// The log that a run would have in which all tasks were cached.
fn replayed(run: &RunRecord) -> (LogFile, Vec<(u64, Logged)>) {
    let mut steps: Vec<StepSummary> = Vec::new();
    let mut instances = BTreeSet::new();
    for task in &run.tasks {
        if instances.insert(&task.instance) {
            match steps.iter_mut().find(|step| step.name == task.step) {
                Some(step) => step.instances += 1,
                None => steps.push(StepSummary { name: task.step.clone(), instances: 1, memory_limit: ByteSize(0) }),
            }
        }
    }
    let end_us = (run.wall_ms * 1000.0) as u64;
    let mut logged: Vec<(u64, Logged)> =
        steps.iter().map(|step| (end_us, Logged::StepFinished { step: step.name.clone() })).collect();
    logged.push((end_us, Logged::RunFinished { interrupted: false, selected: BTreeMap::new() }));
    // The id of a run is the time at which it began.
    let began_us = crate::history::began_us(&run.id).unwrap_or_default();
    let log = LogFile { began_us, instances: instances.len(), steps, dropped: 0, size: 0, events: Vec::new() };
    (log, logged)
}

/// The tasks of a run that were cached and are not in its log, by step.
struct Cached(BTreeMap<String, Vec<Event>>);

impl Cached {
    fn new(run: &RunRecord, logged: &[(u64, Logged)]) -> Self {
        let key = |step: &str, part: Option<usize>, phase: Phase| (step.to_owned(), part, phase.as_str());
        let in_log: BTreeSet<_> = logged
            .iter()
            .filter_map(|(_, logged)| match logged {
                Logged::TaskFinished(task) => Some(key(&task.step, task.part, task.phase)),
                _ => None,
            })
            .collect();
        let mut cached: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        let is_cached = |task: &&TaskRecord| task.status == Status::Cached;
        for task in run.tasks.iter().filter(is_cached) {
            if !in_log.contains(&key(&task.instance, task.part, task.phase)) {
                cached.entry(task.step.clone()).or_default().push(Event::TaskFinished(Box::new(task.end())));
            }
        }
        Self(cached)
    }

    fn take(&mut self, step: &str) -> Vec<Event> {
        self.0.remove(step).unwrap_or_default()
    }

    fn take_all(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.0).into_values().flatten().collect()
    }
}
