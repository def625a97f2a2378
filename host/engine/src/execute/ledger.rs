//! What a run reports and records: events, counts, history, and the objects that it used.

use std::collections::HashMap;

use millrace_types::{ActionKey, ByteSize, Cost, Failure, LogLine, ObjectRef, Phase};

use super::display::Emit;
use super::nearby::near_limits;
use crate::diagnostic::Diagnostic;
use crate::event::{Event, Status, StepSummary, Summary, TaskEnd};
use crate::graph::{Graph, Node};
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
    pub(super) rows_read: u64,
    pub(super) cost: Cost,
    pub(super) log: Vec<LogLine>,
    pub(super) failure: Option<Failure>,
    /// In a plan: why it would run.
    pub(super) reason: Option<MissReason>,
}

/// A task in the history, with the index of its node and its log.
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
    /// For each step of the pipeline, by its index, the instances that have not ended.
    open: Vec<usize>,
    pub(super) emit: Emit<'a>,
}

/// The steps of a graph, each after those that it reads, in a run whose guests may use `memory`
/// bytes together.
pub(super) fn steps_of(graph: &Graph, memory: u64) -> Vec<StepSummary> {
    let mut indices: HashMap<usize, usize> = HashMap::new();
    let mut steps: Vec<StepSummary> = Vec::new();
    for node in &graph.nodes {
        let index = *indices.entry(node.definition).or_insert_with(|| {
            let name = node.step.to_string();
            steps.push(StepSummary { name, instances: 0, memory_limit: ByteSize(0) });
            steps.len() - 1
        });
        let step = &mut steps[index];
        step.instances += 1;
        step.memory_limit.0 = step.memory_limit.0.max(node.limits.memory.0.min(memory));
    }
    steps
}

impl<'a> Ledger<'a> {
    /// A ledger for the tasks of a graph.
    pub(super) fn new(graph: &Graph, emit: Emit<'a>) -> Self {
        let summary = Summary { ok: true, ..Summary::default() };
        let tasks = graph.nodes.len();
        let steps = graph.nodes.iter().map(|node| node.definition + 1).max().unwrap_or(0);
        let mut open = vec![0; steps];
        graph.nodes.iter().for_each(|node| open[node.definition] += 1);
        Self { summary, history: Vec::with_capacity(tasks), objects: Vec::with_capacity(tasks), open, emit }
    }

    /// Counts a task that was made.
    pub(super) fn task_made(&mut self) {
        self.summary.tasks.total += 1;
    }

    /// Reports the number of tasks of a node, as far as it is known.
    pub(super) fn planned(&mut self, node: &Node, tasks: usize, is_exact: bool) {
        self.emit.send(Event::TasksPlanned { step: node.label.clone(), tasks, is_exact });
    }

    /// Notes the end of a node, and reports the end of its step.
    pub(super) fn node_ended(&mut self, node: &Node) {
        let open = &mut self.open[node.definition];
        *open -= 1;
        if *open == 0 {
            self.emit.send(Event::StepFinished { step: node.step.to_string() });
        }
    }

    /// A task ended, or a node of which no task was made.
    pub(super) fn ended(&mut self, name: TaskName<'_>, status: Status, ending: Ending) {
        let Ending { rows_read, cost, log, failure, reason } = ending;
        let near = if status == Status::Ran { near_limits(&cost, &name.node.limits) } else { Vec::new() };
        self.record(name, status, rows_read, cost, log.clone());
        self.emit.send(Event::TaskFinished(Box::new(TaskEnd {
            step: name.node.label.clone(),
            part: name.part,
            phase: name.phase,
            key: name.key,
            status,
            rows_read,
            cost,
            log,
            failure,
            near,
            reason,
        })));
    }

    /// A node was refused by its component, when its inputs were known.
    pub(super) fn refused(&mut self, name: TaskName<'_>, problems: Vec<Diagnostic>) {
        self.emit.send(Event::StepRefused { step: name.node.label.clone(), problems });
        self.record(name, Status::Failed, 0, Cost::default(), Vec::new());
    }

    fn record(&mut self, name: TaskName<'_>, status: Status, rows_read: u64, cost: Cost, log: Vec<LogLine>) {
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
            let task =
                TaskRecord { step, instance: name.node.label.clone(), part, phase, key, status, cost, rows_read };
            self.history.push(HistoryEntry { node: name.index, task, log });
        }
    }
}
