//! One run: what to do when a task has ended or a node can go on.
//!
//! It connects the parts: [`Planner`] (what nodes read and make), [`Nodes`] (their states),
//! [`Schedule`] (which task is next) and [`Ledger`] (what is reported).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use millrace_types::{ActionRecord, ByteSize, Failure, Phase, StepPlan, Table};

use super::display::Emit;
use super::hits::Hits;
use super::job::{Job, JobResult};
use super::key::{self, TaskInputs};
use super::ledger::{Ending, Ledger};
use super::nodes::{Nodes, Progress};
use super::options::{Loaded, Options, RunMode};
use super::planner::Planner;
use super::ready::NextTasks;
use super::schedule::{Candidate, Schedule, TaskId, Urgency};
use super::task::Task;
use crate::assemble::Misfit;
use crate::event::{Event, Status};
use crate::graph::Graph;
use crate::history::RunRecord;
use crate::why::MissReason;

/// A run.
pub(super) struct Run<'a> {
    pub(super) options: &'a Options,
    pub(super) loaded: &'a Loaded,
    pub(super) graph: &'a Graph,
    pub(super) planner: Planner<'a>,
    pub(super) nodes: Nodes<'a>,
    pub(super) schedule: Schedule,
    pub(super) ledger: Ledger<'a>,
    /// The nodes that read the outputs of a node.
    pub(super) dependents: Vec<Vec<usize>>,
    pub(super) hits: Hits<'a>,
    /// Nodes to look at again.
    pub(super) dirty: VecDeque<usize>,
    pub(super) tasks: Vec<Task>,
    pub(super) stopping: bool,
}

impl<'a> Run<'a> {
    /// A run of a graph whose nodes are planned as far as possible.
    pub(super) fn new(
        options: &'a Options,
        loaded: &'a Loaded,
        planner: Planner<'a>,
        sources: Vec<Arc<Table>>,
        last: Option<RunRecord>,
        emit: Emit<'a>,
    ) -> Self {
        let graph = &loaded.graph;
        Self {
            options,
            loaded,
            graph,
            planner,
            nodes: Nodes::new(graph, &options.store, sources),
            schedule: Schedule::new(options.memory),
            ledger: Ledger::new(graph, emit),
            dependents: graph.dependents(),
            hits: Hits::new(&options.store, graph, last),
            dirty: (0..graph.nodes.len()).collect(),
            tasks: Vec::with_capacity(graph.nodes.len()),
            stopping: false,
        }
    }

    /// Makes and looks up the tasks that can be made, then starts the next one that has to be
    /// computed and fits, if it is more urgent than `above`.
    pub(super) fn next(&mut self, above: Option<Urgency>, events: &Sender<Event>) -> Option<Job> {
        while let Some(node) = self.dirty.pop_front() {
            self.advance(node);
        }
        if self.is_stopping() {
            for task in self.schedule.drain() {
                self.finish_task(task, Status::Skipped, Ending::default());
            }
            return None;
        }
        let id = self.schedule.next(above)?;
        let memory = ByteSize(self.schedule.memory_of(id).unwrap_or(0));
        self.tasks[id].take_job(id, self.graph, memory, events)
    }

    /// Whether no further task is to begin.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping || self.options.cancel.is_cancelled()
    }

    /// Whether tasks wait to be started.
    pub(super) fn has_ready(&self) -> bool {
        self.schedule.has_ready()
    }

    /// Whether no task runs.
    pub(super) fn is_idle(&self) -> bool {
        self.schedule.is_idle()
    }

    /// Skips what could not begin. A node whose last task ended before the stop is done.
    pub(super) fn close(&mut self) {
        for node in 0..self.nodes.states.len() {
            let state = &self.nodes.states[node];
            let mode = state.plan.as_ref().map(|plan| plan.mode);
            if state.progress != Progress::Open {
                continue;
            }
            match mode.map(|mode| self.nodes.ready(node, mode)) {
                Some(NextTasks::Complete) => self.done(node),
                _ => self.skip(node),
            }
        }
    }

    /// Makes the tasks of a node that can be made, and checks whether it is done.
    fn advance(&mut self, index: usize) {
        if self.nodes.states[index].progress != Progress::Open {
            return;
        }
        let inputs = self.graph.nodes[index].inputs.iter().flat_map(|input| &input.items);
        let mut is_blocked = false;
        for before in inputs.flat_map(|(_, item)| item.nodes()) {
            match self.nodes.states[before].progress {
                Progress::Failed | Progress::Skipped => return self.skip(index),
                Progress::Blocked => is_blocked = true,
                Progress::Open | Progress::Done => {}
            }
        }
        if is_blocked {
            return self.mark_unknown(index);
        }
        if self.is_stopping() {
            return;
        }
        let plan = match self.planner.plan(index, &self.nodes.selections) {
            Ok(Some(plan)) => plan,
            Ok(None) => return,
            Err(problems) => return self.refuse(index, problems),
        };
        if self.nodes.states[index].plan.is_none() {
            self.nodes.states[index].open(&self.graph.nodes[index], plan.clone());
        }
        if let Some((tasks, is_exact)) = self.nodes.expect_tasks(index, plan.mode) {
            self.ledger.planned(&self.graph.nodes[index], tasks, is_exact);
        }
        loop {
            match self.nodes.ready(index, plan.mode) {
                NextTasks::Wait => return,
                NextTasks::Complete => return self.done(index),
                NextTasks::Last(phase) => {
                    let Some(inputs) = self.nodes.inputs(index, None, phase) else { return };
                    self.make(index, &plan, None, phase, inputs);
                }
                NextTasks::Parts(parts, phase) => {
                    for part in parts {
                        let Some(inputs) = self.nodes.inputs(index, Some(part), phase) else { return };
                        self.make(index, &plan, Some(part), phase, inputs);
                    }
                }
            }
        }
    }

    /// Makes a task: gives it its key, and looks for its record.
    fn make(&mut self, index: usize, plan: &StepPlan, part: Option<usize>, phase: Phase, inputs: TaskInputs) {
        let node = &self.graph.nodes[index];
        let (parts, key, spec) = key::task(node, plan, phase, &inputs);
        let (id, rows_read) = (self.tasks.len(), inputs.rows());
        let tables = inputs.into_tables();
        self.tasks.push(Task { node: index, part, phase, key, rows_read, prepared: Some((parts, spec)), tables });
        self.nodes.mark_made(index, part);
        self.ledger.task_made();
        let reason = match self.hits.lookup(index, &key) {
            Ok(record) => match self.apply(id, &record) {
                Ok(()) => {
                    self.tasks[id].release();
                    let ending = Ending { cost: record.cost, log: record.log, ..Ending::default() };
                    return self.finish_task(id, Status::Cached, ending);
                }
                // It was made under another plan: the task runs.
                Err(_) => Some(MissReason::Gone),
            },
            Err(reason) => reason,
        };
        if self.options.mode == RunMode::Plan {
            let parts = self.tasks[id].prepared.as_ref().map(|(parts, _)| parts);
            let reason = reason.unwrap_or_else(|| self.hits.miss_reason(&node.label, part, phase, &key, parts));
            return self.would_run(id, reason);
        }
        self.add_candidate(id);
    }

    /// Schedules a task that has to be computed.
    fn add_candidate(&mut self, id: TaskId) {
        let Task { node, part, key, .. } = self.tasks[id];
        let node = &self.graph.nodes[node];
        let urgency = Urgency::new(part, node.rank, id);
        self.schedule.add(Candidate { key, urgency, memory: node.limits.memory.0 });
    }

    /// Assembles the outputs of a record and adds them to those of the node.
    fn apply(&mut self, id: TaskId, record: &ActionRecord) -> Result<(), Misfit> {
        let task = &self.tasks[id];
        let inputs = task.inputs();
        self.ledger.objects.extend(record.objects());
        let state = &mut self.nodes.states[task.node];
        let outputs = state.assemble(record, &inputs)?;
        if let Some(partial) = task.part.and_then(|part| state.partials.get_mut(part)) {
            *partial = record.partial;
        }
        state.add(outputs, task.part.filter(|_| task.phase == Phase::Map));
        state.add_metrics(task.part, &record.metrics);
        for (port, schema) in state.schemas() {
            self.planner.declare(task.node, port, schema);
        }
        Ok(())
    }

    /// Takes back a job that no worker has begun.
    pub(super) fn on_abandoned(&mut self, task: TaskId) {
        for task in self.schedule.finish(task) {
            self.finish_task(task, Status::Skipped, Ending::default());
        }
    }

    /// Takes the result of a job.
    pub(super) fn on_finished(&mut self, task: TaskId, result: JobResult) {
        let same = self.schedule.finish(task);
        match result {
            JobResult::Ran(record) => {
                self.ledger.summary.add(&record.cost);
                for (i, task) in same.into_iter().enumerate() {
                    let status = if i == 0 { Status::Ran } else { Status::Cached };
                    self.take_record(task, status, &record);
                }
            }
            JobResult::Found(record) => {
                same.into_iter().for_each(|task| self.take_record(task, Status::Cached, &record));
            }
            JobResult::Failed { failure, cost, log } => {
                self.ledger.summary.add(&cost);
                let is_cancelled = failure == Failure::Cancelled;
                self.stopping |= self.options.fail_fast && !is_cancelled;
                let status = if is_cancelled { Status::Skipped } else { Status::Failed };
                let limits = |task: TaskId| self.graph.nodes[self.tasks[task].node].limits;
                let is_alike = |other: &TaskId| is_cancelled || limits(*other) == limits(task);
                let (same, others): (Vec<_>, Vec<_>) = same.into_iter().partition(is_alike);
                // Limits are not in the key: under other ones the same task may succeed.
                others.into_iter().for_each(|other| self.add_candidate(other));
                for task in same {
                    let (log, failure) = (log.clone(), Some(failure.clone()));
                    let ending = Ending { cost, log, failure, ..Ending::default() };
                    self.finish_task(task, status, ending);
                }
            }
        }
    }

    fn take_record(&mut self, task: TaskId, status: Status, record: &ActionRecord) {
        let mut ending = Ending { cost: record.cost, log: record.log.clone(), ..Ending::default() };
        match self.apply(task, record) {
            Ok(()) => self.finish_task(task, status, ending),
            Err(misfit) => {
                ending.failure = Some(Failure::Misuse { message: misfit.to_string() });
                self.finish_task(task, Status::Failed, ending);
            }
        }
    }

    pub(super) fn finish_task(&mut self, id: TaskId, status: Status, ending: Ending) {
        let node = self.tasks[id].node;
        let name = self.tasks[id].name(self.graph);
        self.ledger.ended(name, status, Ending { rows_read: self.tasks[id].rows_read, ..ending });
        let state = &mut self.nodes.states[node];
        state.pending -= 1;
        match status {
            Status::Ran | Status::Cached => self.dirty.push_back(node),
            Status::Failed => state.progress = Progress::Failed,
            Status::Skipped | Status::WouldRun | Status::Unknown => state.progress = Progress::Skipped,
        }
        self.note_end(node);
        // A part that exists can be worked on, whatever happens to the others.
        self.notify_dependents(node);
    }
}
