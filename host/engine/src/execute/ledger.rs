//! What a run tells and remembers: counts, history, the objects that it used, events.

use millrace_types::{ActionKey, Cost, Failure, LogLine, ObjectRef, Phase};

use super::display::Emit;
use super::nearby::near_limits;
use crate::diagnostic::Diagnostic;
use crate::event::{Event, Status, Summary};
use crate::graph::Node;
use crate::history::TaskRecord;
use crate::why::MissReason;

/// A task of a run, as events and the history name it.
#[derive(Clone, Copy)]
pub(super) struct TaskName<'a> {
    pub(super) index: usize,
    pub(super) node: &'a Node,
    pub(super) part: Option<usize>,
    pub(super) phase: Phase,
    pub(super) key: Option<ActionKey>,
}

/// How a task ended.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) cost: Cost,
    pub(super) log: Vec<LogLine>,
    pub(super) failure: Option<Failure>,
    /// In a plan: why it would run.
    pub(super) reason: Option<MissReason>,
}

/// A task in the history, with the index of its node and what it logged.
pub(super) struct HistoryEntry {
    pub(super) node: usize,
    pub(super) task: TaskRecord,
    pub(super) log: Vec<LogLine>,
}

/// The ledger of a run.
pub(super) struct Ledger<'a> {
    pub(super) summary: Summary,
    pub(super) history: Vec<HistoryEntry>,
    /// All objects of the records that were used.
    pub(super) objects: Vec<ObjectRef>,
    pub(super) emit: Emit<'a>,
}

impl<'a> Ledger<'a> {
    /// A ledger for about `tasks` tasks.
    pub(super) fn new(tasks: usize, emit: Emit<'a>) -> Self {
        let summary = Summary { ok: true, ..Summary::default() };
        Self { summary, history: Vec::with_capacity(tasks), objects: Vec::with_capacity(tasks), emit }
    }

    /// A task was made: `made` of them by now.
    pub(super) fn task_made(&mut self, made: usize) {
        self.summary.tasks.total += 1;
        self.emit.send(Event::TasksFound { total: made });
    }

    /// A task ended, or a node of which no task was made.
    pub(super) fn ended(&mut self, name: TaskName<'_>, status: Status, ending: Ending) {
        let Ending { cost, log, failure, reason } = ending;
        let near = if status == Status::Ran { near_limits(&cost, &name.node.limits) } else { Vec::new() };
        self.record(name, status, cost, log.clone());
        self.emit.send(Event::TaskFinished {
            step: name.node.label.clone(),
            part: name.part,
            phase: name.phase.as_str(),
            key: name.key,
            status,
            cost,
            log,
            failure,
            near,
            reason,
        });
    }

    /// A node was refused by its component, when its inputs were known.
    pub(super) fn refused(&mut self, name: TaskName<'_>, problems: Vec<Diagnostic>) {
        self.emit.send(Event::StepRefused { step: name.node.label.clone(), problems });
        self.record(name, Status::Failed, Cost::default(), Vec::new());
    }

    fn record(&mut self, name: TaskName<'_>, status: Status, cost: Cost, log: Vec<LogLine>) {
        let tasks = &mut self.summary.tasks;
        match status {
            Status::Ran | Status::WouldRun => tasks.ran += 1,
            Status::Cached => tasks.cached += 1,
            Status::Failed => tasks.failed += 1,
            Status::Skipped => tasks.skipped += 1,
            Status::Unknown => {}
        }
        if matches!(status, Status::Failed | Status::Skipped) {
            self.summary.ok = false;
        }
        if name.key.is_none() {
            tasks.total += 1;
        }
        if status != Status::WouldRun {
            let step = name.node.step.to_string();
            let (part, phase, key) = (name.part, name.phase, name.key);
            let task = TaskRecord { step, instance: name.node.label.clone(), part, phase, key, status, cost };
            self.history.push(HistoryEntry { node: name.index, task, log });
        }
    }
}
