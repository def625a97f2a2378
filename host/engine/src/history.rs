//! The history: past runs in a file each, whose names sort by time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_store::{Store, StoreError};
use millrace_types::wire::{self, Kind};
use millrace_types::{ActionKey, ActionRecord, Cost, Digest, Phase, Reference};
use serde::{Deserialize, Serialize};

use crate::event::{Counts, Status, Summary, TaskEnd};
use crate::pipeline::Pipeline;
use crate::why::{MissReason, differences};

/// A task in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The step.
    pub step: String,
    /// The instance.
    pub instance: String,
    /// The part, for a task on one part.
    pub part: Option<usize>,
    /// The function of the step.
    pub phase: Phase,
    /// Its key, if it was computed.
    pub key: Option<ActionKey>,
    /// Its status at the end of the run.
    pub status: Status,
    /// Its cost: of this run, or of the run that computed it.
    pub cost: Cost,
    /// The rows of the tables that it reads.
    pub rows_read: u64,
}

impl TaskRecord {
    /// The end of the task, as far as the history has it.
    pub(crate) fn end(&self) -> TaskEnd {
        let Self { instance, part, phase, key, status, cost, rows_read, .. } = self;
        TaskEnd {
            step: instance.clone(),
            part: *part,
            phase: *phase,
            key: *key,
            status: *status,
            rows_read: *rows_read,
            cost: *cost,
            log: Vec::new(),
            failure: None,
            near: Vec::new(),
            reason: None,
        }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its name.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline file, absolute.
    pub path: PathBuf,
    /// Whether the run succeeded.
    pub ok: bool,
    /// The numbers of tasks by status.
    pub counts: Counts,
    /// The duration of the run, in milliseconds.
    pub wall_ms: f64,
    /// All tasks.
    pub tasks: Vec<TaskRecord>,
    /// Metrics by step instance.
    pub metrics: Arc<BTreeMap<String, BTreeMap<String, f64>>>,
    /// Outputs by step instance and port: digests.
    pub outputs: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    /// The matrix values that steps have selected, as [`Summary::selected`] has them.
    pub selected: Arc<BTreeMap<String, String>>,
    /// Whether the user stopped it.
    pub interrupted: bool,
}

/// A name for a run: the time to the microsecond, so that names sort as runs do.
pub(crate) fn new_id() -> String {
    let now = jiff::Timestamp::now();
    format!("{}-{:04x}", now.strftime("%Y%m%dT%H%M%S%6f"), std::process::id() & 0xffff)
}

/// The time that is in the name of a run, in microseconds since 1970.
pub(crate) fn began_us(id: &str) -> Option<i64> {
    let time = id.split_once('-')?.0;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S%6f", time).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

/// The canonical path of a pipeline file, the same for all its names.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

impl RunRecord {
    pub(crate) fn new(id: String, pipeline: &Pipeline, summary: &Summary, tasks: Vec<TaskRecord>) -> Self {
        Self {
            id,
            pipeline: pipeline.name.clone(),
            path: absolute(&pipeline.file.path),
            ok: summary.ok,
            counts: summary.tasks,
            wall_ms: summary.wall_ms,
            tasks,
            metrics: summary.metrics.clone(),
            outputs: summary.outputs.clone(),
            selected: summary.selected.clone(),
            interrupted: summary.interrupted,
        }
    }

    /// The summary of the run.
    pub(crate) fn summary(&self) -> Summary {
        let mut summary = Summary {
            ok: self.ok,
            tasks: self.counts,
            wall_ms: self.wall_ms,
            metrics: self.metrics.clone(),
            outputs: self.outputs.clone(),
            selected: self.selected.clone(),
            interrupted: self.interrupted,
            ..Summary::default()
        };
        let ran = self.tasks.iter().filter(|task| matches!(task.status, Status::Ran | Status::Failed));
        ran.for_each(|task| summary.add(&task.cost));
        summary
    }

    pub(crate) fn write(&self, store: &Store) -> Result<(), StoreError> {
        let record = wire::encode_sized(Kind::Run, self.id.as_bytes(), self, self.size_hint());
        store.write_file(&store.runs().join(&self.id), &record)
    }

    /// The approximate number of bytes of its encoding.
    pub(crate) fn size_hint(&self) -> usize {
        256 * self.tasks.len()
    }
}

impl RunRecord {
    /// The records of its tasks, where garbage collection begins.
    pub fn references(&self) -> impl Iterator<Item = Reference> + '_ {
        self.tasks.iter().filter_map(|task| Some(Reference::Record(Kind::Action, task.key?.record_name())))
    }

    /// The key of a task that succeeded: a failed task leaves no record to compare with.
    pub fn produced(&self, instance: &str, part: Option<usize>, phase: Phase) -> Option<ActionKey> {
        let is = |task: &&TaskRecord| {
            let ended = matches!(task.status, Status::Ran | Status::Cached);
            ended && task.instance == instance && task.part == part && task.phase == phase
        };
        self.tasks.iter().find(is).and_then(|task| task.key)
    }
}

/// All runs of a store.
pub struct History {
    store: Store,
    /// Newest first.
    files: Vec<PathBuf>,
}

impl History {
    /// The history of a store.
    pub fn open(store: &Store) -> Self {
        let entries = std::fs::read_dir(store.runs()).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        Self { store: store.clone(), files }
    }

    /// Its runs, newest first. A file that is not a run is skipped.
    pub fn runs(&self) -> impl Iterator<Item = RunRecord> + '_ {
        let read = |path: &PathBuf| {
            let id = path.file_name()?.as_encoded_bytes();
            wire::decode::<RunRecord>(Kind::Run, id, &std::fs::read(path).ok()?)
        };
        self.files.iter().filter_map(read)
    }

    /// The run with this name.
    pub fn run(&self, id: &str) -> Option<RunRecord> {
        self.runs().find(|run| run.id == id)
    }

    /// The runs of a pipeline file, newest first.
    pub fn runs_of(&self, pipeline: &Path) -> impl Iterator<Item = RunRecord> + '_ {
        let path = absolute(pipeline);
        self.runs().filter(move |run| run.path == path)
    }

    /// The last run of a pipeline file.
    pub fn last_of(&self, pipeline: &Path) -> Option<RunRecord> {
        self.runs_of(pipeline).next()
    }

    /// Why the tasks of a step instance ran the last time: each with the run's name and the
    /// differences from the run before.
    pub fn last_miss(&self, pipeline: &Path, step: &str) -> Vec<(String, TaskRecord, MissReason)> {
        let runs: Vec<RunRecord> = self.runs_of(pipeline).take(200).collect();
        let is = |task: &&TaskRecord| (task.step == step || task.instance == step) && task.status == Status::Ran;
        let Some((index, run)) = runs.iter().enumerate().find(|(_, run)| run.tasks.iter().any(|task| is(&task))) else {
            return Vec::new();
        };
        let record = |key: &ActionKey| self.store.record::<ActionRecord>(key);
        let reason = |task: &TaskRecord| {
            let before = runs[index + 1..].iter().find_map(|run| run.produced(&task.instance, task.part, task.phase));
            match (before, task.key) {
                (None, _) | (_, None) => MissReason::New,
                (Some(before), Some(key)) if before == key => MissReason::Gone,
                (Some(before), Some(key)) => match (record(&before), record(&key)) {
                    (Some(old), Some(new)) => MissReason::Changed(differences(&old.parts, &new.parts)),
                    _ => MissReason::Changed(Vec::new()),
                },
            }
        };
        run.tasks.iter().filter(is).map(|task| (run.id.clone(), task.clone(), reason(task))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_run_has_the_time_at_which_it_began() {
        assert_eq!(began_us("20260102T030405000006-1f"), Some(1_767_323_045_000_006));
        assert_eq!(began_us("another name"), None);
    }
}
