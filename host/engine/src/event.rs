//! The events of a run: facts in the past tense, for renderers and for the event log.
//!
//! Within a run, events come in the order in which things happened. This module knows nothing
//! of how events are shown or stored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_types::{ActionKey, ByteSize, Cost, Failure, LogLine, Phase};

use serde::{Deserialize, Serialize};

use crate::remote::RemoteReport;
use crate::why::MissReason;

/// An event with the time at which it happened.
#[derive(Debug, Clone)]
pub struct EventEnvelope {
    /// The time of day at which the run began.
    pub began: jiff::Timestamp,
    /// The time since then, from a clock that never goes back.
    pub elapsed: Duration,
    /// The event.
    pub event: Event,
}

impl EventEnvelope {
    /// The envelope of an event that happens now, at the beginning of a run.
    pub fn at_once(event: Event) -> Self {
        Self { began: jiff::Timestamp::now(), elapsed: Duration::ZERO, event }
    }

    /// The time of day at which it happened.
    pub fn at(&self) -> jiff::Timestamp {
        self.began.checked_add(self.elapsed).unwrap_or(self.began)
    }
}

/// The beginning of a run, from which the times of its events are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunClock {
    began: jiff::Timestamp,
    started: Instant,
}

impl RunClock {
    pub(crate) fn start() -> Self {
        Self { began: jiff::Timestamp::now(), started: Instant::now() }
    }

    /// A clock of a run that began at a time of the past.
    pub(crate) fn began_at(began: jiff::Timestamp) -> Self {
        Self { began, started: Instant::now() }
    }

    pub(crate) fn began(&self) -> jiff::Timestamp {
        self.began
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn wall_ms(&self) -> f64 {
        self.elapsed().as_secs_f64() * 1000.0
    }

    /// The envelope of an event that happens now.
    pub(crate) fn now(&self, event: Event) -> EventEnvelope {
        self.envelope(self.elapsed(), event)
    }

    pub(crate) fn envelope(&self, elapsed: Duration, event: Event) -> EventEnvelope {
        EventEnvelope { began: self.began, elapsed, event }
    }
}

/// A step of a run, with all instances of its matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSummary {
    /// Its name.
    pub name: String,
    /// The number of its instances.
    pub instances: usize,
    /// The memory limit of a task: the largest among the instances.
    pub memory_limit: ByteSize,
}

/// The step of an instance: `train` of `train[l2=0.01]`.
pub fn step_of(instance: &str) -> &str {
    instance.split_once('[').map_or(instance, |(step, _)| step)
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It ran.
    Ran,
    /// Its record was in the cache.
    Cached,
    /// It ran and did not finish.
    Failed,
    /// A task that it depends on failed, or the run was stopped.
    Skipped,
    /// In a plan: it would run.
    WouldRun,
    /// In a plan: its inputs are known only after other tasks have run.
    Unknown,
}

/// A limit of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitKind {
    /// Bytes of linear memory.
    Memory,
    /// Executed instructions.
    Fuel,
    /// Time on the clock.
    Time,
}

impl LimitKind {
    /// As in a pipeline file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Fuel => "fuel",
            Self::Time => "time",
        }
    }
}

/// A limit that a task came close to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearLimit {
    /// The limit.
    pub limit: LimitKind,
    /// The share that the task used, in per cent.
    pub percent: u64,
}

/// A task that ended.
#[derive(Debug, Clone)]
pub struct TaskEnd {
    /// The instance.
    pub step: String,
    /// The index of the part.
    pub part: Option<usize>,
    /// The function of the step.
    pub phase: Phase,
    /// Its key; `None` for an instance of which no task was made.
    pub key: Option<ActionKey>,
    /// How it ended.
    pub status: Status,
    /// The rows of the tables that it reads.
    pub rows_read: u64,
    /// What it used; for a cached task, what it used when it ran.
    pub cost: Cost,
    /// Its log.
    pub log: Vec<LogLine>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The limits that it came close to.
    pub near: Vec<NearLimit>,
    /// In a plan: why it would run.
    pub reason: Option<MissReason>,
}

/// Something that happened in a run.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run began.
    RunStarted {
        /// Its name in the history.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// The number of step instances.
        instances: usize,
        /// The steps, each after those that it reads.
        steps: Arc<[StepSummary]>,
    },
    /// A source is being checked, and read if it changed.
    SourceStarted {
        /// The source.
        source: String,
    },
    /// A source was read, or is unchanged.
    SourceFinished {
        /// The source.
        source: String,
        /// Whether nothing had to be read.
        cached: bool,
        /// Its rows.
        rows: u64,
        /// The number of its parts.
        parts: usize,
        /// The time that it took, in microseconds.
        wall_us: u64,
    },
    /// The number of tasks of an instance is known, or has a new lower bound. A run that is
    /// replayed from its trace does not send it.
    TasksPlanned {
        /// The instance.
        step: String,
        /// The number of its tasks, those that have ended included.
        tasks: usize,
        /// Whether it is exact, or else a lower bound.
        is_exact: bool,
    },
    /// A task began to run.
    TaskStarted {
        /// The instance, as `train[l2=0.01]`.
        step: String,
        /// The index of the part.
        part: Option<usize>,
    },
    /// A task reported its progress.
    TaskProgressed {
        /// The instance.
        step: String,
        /// The index of the part.
        part: Option<usize>,
        /// The amount that is done, in a unit of the step's choice.
        done: u64,
        /// The whole amount.
        total: u64,
    },
    /// A task ended.
    TaskFinished(Box<TaskEnd>),
    /// The component of an instance refused its inputs, whose schemas became known only during
    /// the run.
    StepRefused {
        /// The instance.
        step: String,
        /// What is wrong.
        problems: Vec<crate::Diagnostic>,
    },
    /// All instances of a step ended. In a plan, steps that would run are left out; a run that is
    /// replayed from its trace does not send it.
    StepFinished {
        /// The step.
        step: String,
    },
    /// A file was written, or had the right content already.
    Exported {
        /// Its path.
        path: PathBuf,
        /// Whether it had the right content already.
        unchanged: bool,
    },
    /// A file could not be written.
    ExportFailed {
        /// Its path.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Everything is uploaded to the remote store, or it failed.
    RemoteFinished(RemoteReport),
    /// The run is over.
    RunFinished(Summary),
}

/// Tasks of a run by how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All tasks.
    pub total: usize,
    /// Tasks that ran.
    pub ran: usize,
    /// Tasks whose record was in the cache.
    pub cached: usize,
    /// Tasks that failed.
    pub failed: usize,
    /// Tasks that were skipped.
    pub skipped: usize,
}

/// A run in numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Whether all tasks and exports succeeded.
    pub ok: bool,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// Tasks by how they ended.
    pub tasks: Counts,
    /// The time from start to end, in milliseconds.
    pub wall_ms: f64,
    /// The fuel of the tasks that ran.
    pub fuel: u64,
    /// The largest guest memory among them.
    pub peak_memory_bytes: u64,
    /// The bytes that they read.
    pub bytes_read: u64,
    /// The bytes that they wrote.
    pub bytes_written: u64,
    /// Metrics by step instance.
    pub metrics: Arc<BTreeMap<String, BTreeMap<String, f64>>>,
    /// The digests of outputs by step instance and port.
    pub outputs: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    /// The matrix values that a step has selected, by its name: `[l2=0.01]` for `best`.
    pub selected: Arc<BTreeMap<String, String>>,
}

impl Summary {
    pub(crate) fn add(&mut self, cost: &Cost) {
        self.fuel += cost.fuel;
        self.peak_memory_bytes = self.peak_memory_bytes.max(cost.peak_memory_bytes);
        self.bytes_read += cost.bytes_read;
        self.bytes_written += cost.bytes_written;
    }
}
