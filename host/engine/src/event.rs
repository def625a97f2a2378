//! What happened in a run. Facts in the past tense, for whoever shows them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_types::{ActionKey, Cost, Failure, LogLine};

use serde::Serialize;

use crate::remote::RemoteReport;
use crate::why::MissReason;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It ran.
    Ran,
    /// Its record was there.
    Cached,
    /// It ran and did not finish.
    Failed,
    /// Something before it failed, or the run was stopped.
    Skipped,
    /// Of a plan: it would run.
    WouldRun,
    /// Of a plan: what it reads is not known before something else runs.
    Unknown,
}

/// A limit that a task came close to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearLimit {
    /// `memory`, `fuel` or `time`.
    pub limit: &'static str,
    /// What it used, in per cent of it.
    pub percent: u64,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A run began.
    RunStarted {
        /// Its name in the history.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// Step instances in it.
        instances: usize,
    },
    /// A source is looked at: digested, and read as far as it is not known.
    SourceStarted {
        /// The source.
        source: String,
    },
    /// A source was read, or known.
    SourceFinished {
        /// The source.
        source: String,
        /// Whether nothing had to be read.
        cached: bool,
        /// Rows of it.
        rows: u64,
        /// Parts of it.
        parts: usize,
        /// How long it took.
        wall_us: u64,
    },
    /// So many tasks are known by now.
    TasksFound {
        /// All so far.
        total: usize,
    },
    /// A task began to run.
    TaskStarted {
        /// The instance, as `train[l2=0.01]`.
        step: String,
        /// Which part.
        part: Option<usize>,
    },
    /// A task said how far it is.
    TaskProgressed {
        /// The instance.
        step: String,
        /// Which part.
        part: Option<usize>,
        /// So much is done.
        done: u64,
        /// Of so much.
        total: u64,
    },
    /// A task ended.
    TaskFinished {
        /// The instance.
        step: String,
        /// Which part.
        part: Option<usize>,
        /// `map`, `whole`, `partial` or `merge`.
        phase: &'static str,
        /// Its key, if it got so far.
        key: Option<ActionKey>,
        /// How it ended.
        status: Status,
        /// What it used; of a hit, what it had used.
        cost: Cost,
        /// What it wrote.
        log: Vec<LogLine>,
        /// Why it failed.
        failure: Option<Failure>,
        /// Limits it came close to.
        near: Vec<NearLimit>,
        /// Of a plan: why it would run.
        reason: Option<MissReason>,
    },
    /// A step instance could not be used as it is: its plan came late, since its
    /// input was known late.
    StepRefused {
        /// The instance.
        step: String,
        /// What is wrong.
        problems: Vec<crate::Diagnostic>,
    },
    /// A file was written, or found as it should be.
    Exported {
        /// Where.
        path: PathBuf,
        /// Whether it was so already.
        unchanged: bool,
    },
    /// A file could not be written.
    ExportFailed {
        /// Where.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
pub struct Counts {
    /// All.
    pub total: usize,
    /// That ran.
    pub ran: usize,
    /// Whose record was there.
    pub cached: usize,
    /// That failed.
    pub failed: usize,
    /// That were skipped.
    pub skipped: usize,
}

/// A run in numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Whether everything was done.
    pub ok: bool,
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// Tasks by how they ended.
    pub tasks: Counts,
    /// From start to end.
    pub wall_ms: f64,
    /// Fuel of the tasks that ran.
    pub fuel: u64,
    /// Largest guest memory among them.
    pub peak_memory_bytes: u64,
    /// Bytes handed to them.
    pub bytes_read: u64,
    /// Bytes taken from them.
    pub bytes_written: u64,
    /// Metrics by step instance.
    pub metrics: Arc<BTreeMap<String, BTreeMap<String, f64>>>,
    /// Outputs by step instance and port: digests.
    pub outputs: Arc<BTreeMap<String, BTreeMap<String, String>>>,
}

impl Summary {
    pub(crate) fn add(&mut self, cost: &Cost) {
        self.fuel += cost.fuel;
        self.peak_memory_bytes = self.peak_memory_bytes.max(cost.peak_memory_bytes);
        self.bytes_read += cost.bytes_read;
        self.bytes_written += cost.bytes_written;
    }
}
