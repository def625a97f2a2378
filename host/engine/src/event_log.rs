//! The event log of a run: what happened, and when, in one compressed file.
//!
//! ```text
//! events/RUN   a record of kind `Events`: when the run began, its steps, and its events, each
//!              with the microseconds since the beginning; postcard, compressed with zstd
//! ```
//!
//! Tasks that came from the cache are in the history of the run, with their keys and costs, so
//! the log leaves them out, and [`events_of`] adds them where their step ends. The ends of steps
//! follow from those of tasks. Numbers of tasks and progress within a task are not logged. A run that was replayed from its trace has no log:
//! all its tasks are cached.
//!
//! This module knows the stored form of events; it does not know who reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use millrace_store::{Store, StoreError};
use millrace_types::wire::{self, Kind};
use millrace_types::{ActionKey, ByteSize, Cost, Failure, LogLine, Phase};
use serde::{Deserialize, Serialize};

use crate::Diagnostic;
use crate::event::{Event, EventEnvelope, NearLimit, RunClock, Status, StepSummary, TaskEnd, step_of};
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
    /// The memory limits of the steps, in the order in which the history has them.
    memory_limits: Vec<ByteSize>,
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
    Exported { path: PathBuf, unchanged: bool },
    ExportFailed { path: PathBuf, message: String },
    RemoteFinished(RemoteReport),
    RunFinished,
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
            Event::RunStarted { .. }
            | Event::TasksPlanned { .. }
            | Event::TaskProgressed { .. }
            | Event::StepFinished { .. } => return None,
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
            Event::Exported { path, unchanged } => Self::Exported { path, unchanged },
            Event::ExportFailed { path, message } => Self::ExportFailed { path, message },
            Event::RemoteFinished(report) => Self::RemoteFinished(report),
            Event::RunFinished(_) => Self::RunFinished,
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
            Self::Exported { path, unchanged } => Event::Exported { path, unchanged },
            Self::ExportFailed { path, message } => Event::ExportFailed { path, message },
            Self::RemoteFinished(report) => Event::RemoteFinished(report),
            Self::RunFinished => Event::RunFinished(run.summary()),
        }
    }
}

fn is_logged(event: &Event) -> bool {
    match event {
        Event::RunStarted { .. }
        | Event::TasksPlanned { .. }
        | Event::TaskProgressed { .. }
        | Event::StepFinished { .. } => false,
        // A log is in no other place.
        Event::TaskFinished(end) => end.status != Status::Cached || !end.log.is_empty(),
        _ => true,
    }
}

/// The log of a run that is going on.
#[derive(Default)]
pub(crate) struct LogWriter(Mutex<LogBuffer>);

#[derive(Default)]
struct LogBuffer {
    memory_limits: Vec<ByteSize>,
    dropped: u64,
    events: Vec<u8>,
}

impl LogWriter {
    /// Adds an event.
    pub(crate) fn add(&self, EventEnvelope { elapsed, event, .. }: &EventEnvelope) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::RunStarted { steps, .. } = event {
            written.memory_limits = steps.iter().map(|step| step.memory_limit).collect();
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
        let LogBuffer { memory_limits, dropped, events } =
            std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let size = events.len() as u64;
        let events = zstd::bulk::compress(&events, LEVEL).unwrap_or_default();
        let file = LogFile { began_us: clock.began().as_microsecond(), memory_limits, dropped, size, events };
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
    let mut steps = OpenSteps::new(run, &logged);
    let (instances, summaries) = steps_of(run, &log.memory_limits);
    let (id, pipeline) = (run.id.clone(), run.pipeline.clone());
    let started = Event::RunStarted { run: id, pipeline, instances, steps: summaries.into() };
    let mut events = vec![clock.envelope(Duration::ZERO, started)];
    for (elapsed_us, logged) in logged {
        let elapsed = Duration::from_micros(elapsed_us);
        let ended = match &logged {
            Logged::TaskFinished(task) => Some(task.step.clone()),
            Logged::StepRefused { step, .. } => Some(step.clone()),
            _ => None,
        };
        if matches!(logged, Logged::RunFinished) {
            events.extend(steps.rest().map(|event| clock.envelope(elapsed, event)));
        }
        events.push(clock.envelope(elapsed, logged.event(run)));
        let more = ended.map(|instance| steps.task_ended(step_of(&instance))).unwrap_or_default();
        events.extend(more.into_iter().map(|event| clock.envelope(elapsed, event)));
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
    let end_us = (run.wall_ms * 1000.0) as u64;
    let logged = vec![(end_us, Logged::RunFinished)];
    // The id of a run is the time at which it began.
    let began_us = crate::history::began_us(&run.id).unwrap_or_default();
    let log = LogFile { began_us, memory_limits: Vec::new(), dropped: 0, size: 0, events: Vec::new() };
    (log, logged)
}

/// The number of instances of a run, and its steps: the history has the tasks of every instance,
/// in the order of the pipeline.
fn steps_of(run: &RunRecord, memory_limits: &[ByteSize]) -> (usize, Vec<StepSummary>) {
    let mut steps: Vec<StepSummary> = Vec::new();
    let mut indices: BTreeMap<&str, usize> = BTreeMap::new();
    let mut instances = BTreeSet::new();
    for task in &run.tasks {
        let index = *indices.entry(&task.step).or_insert_with(|| {
            let memory_limit = memory_limits.get(steps.len()).copied().unwrap_or_default();
            steps.push(StepSummary { name: task.step.clone(), instances: 0, memory_limit });
            steps.len() - 1
        });
        steps[index].instances += usize::from(instances.insert(&task.instance));
    }
    (instances.len(), steps)
}

/// The steps of a run while its log is read.
struct OpenSteps(BTreeMap<String, OpenStep>);

#[derive(Default)]
struct OpenStep {
    /// The tasks whose ends are still to come in the log.
    logged: usize,
    /// The ends of tasks that were cached and are not in the log.
    cached: Vec<Event>,
}

impl OpenStep {
    /// The events with which the step ends.
    fn end(self, step: String) -> impl Iterator<Item = Event> {
        self.cached.into_iter().chain([Event::StepFinished { step }])
    }
}

impl OpenSteps {
    fn new(run: &RunRecord, logged: &[(u64, Logged)]) -> Self {
        let key = |step: &str, part: Option<usize>, phase: Phase| (step.to_owned(), part, phase.as_str());
        let mut in_log = BTreeSet::new();
        let mut steps: BTreeMap<String, OpenStep> = BTreeMap::new();
        for (_, logged) in logged {
            match logged {
                Logged::TaskFinished(task) => {
                    in_log.insert(key(&task.step, task.part, task.phase));
                    steps.entry(step_of(&task.step).to_owned()).or_default().logged += 1;
                }
                Logged::StepRefused { step, .. } => steps.entry(step_of(step).to_owned()).or_default().logged += 1,
                _ => {}
            }
        }
        let is_cached = |task: &&TaskRecord| task.status == Status::Cached;
        for task in run.tasks.iter().filter(is_cached) {
            if !in_log.contains(&key(&task.instance, task.part, task.phase)) {
                let step = steps.entry(task.step.clone()).or_default();
                step.cached.push(Event::TaskFinished(Box::new(task.end())));
            }
        }
        Self(steps)
    }

    /// The events that follow the end of a task of a step.
    fn task_ended(&mut self, step: &str) -> Vec<Event> {
        let Some(open) = self.0.get_mut(step) else { return Vec::new() };
        open.logged = open.logged.saturating_sub(1);
        let ended = if open.logged == 0 { self.0.remove_entry(step) } else { None };
        ended.into_iter().flat_map(|(name, open)| open.end(name)).collect()
    }

    /// The events of all steps of which no task is in the log.
    fn rest(&mut self) -> impl Iterator<Item = Event> {
        std::mem::take(&mut self.0).into_iter().flat_map(|(step, open)| open.end(step))
    }
}
