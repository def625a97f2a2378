//! How nodes end: done, refused, skipped, or, in a plan, unknown. Each end wakes the nodes that
//! read the outputs.

use millrace_types::Phase;

use super::ledger::{Ending, TaskName};
use super::nodes::Progress;
use super::run::Run;
use super::schedule::TaskId;
use crate::event::Status;
use crate::why::MissReason;

impl<'a> Run<'a> {
    /// In a plan: a task that would run, so that nodes after it are unknown.
    pub(super) fn would_run(&mut self, id: TaskId, reason: MissReason) {
        let node = self.tasks[id].node;
        self.nodes.states[node].progress = Progress::Blocked;
        let name = self.tasks[id].name(self.graph);
        let ending = Ending { rows_read: self.tasks[id].rows_read, reason: Some(reason), ..Ending::default() };
        self.ledger.ended(name, Status::WouldRun, ending);
        self.notify_dependents(node);
    }

    pub(super) fn notify_dependents(&mut self, index: usize) {
        self.dirty.extend(self.dependents[index].iter().copied());
    }

    pub(super) fn done(&mut self, index: usize) {
        if self.nodes.states[index].progress != Progress::Open {
            return;
        }
        self.nodes.states[index].complete();
        self.note_end(index);
        let blob = self.nodes.states[index].blobs().next();
        if let Some(bytes) = self.hits.selection(index, blob) {
            self.nodes.selections.insert(index, &bytes);
        }
        self.notify_dependents(index);
    }

    pub(super) fn refuse(&mut self, index: usize, problems: Vec<crate::Diagnostic>) {
        self.nodes.states[index].progress = Progress::Failed;
        self.ledger.refused(self.node_name(index), problems);
        self.note_end(index);
        self.stopping |= self.options.fail_fast;
        self.notify_dependents(index);
    }

    pub(super) fn skip(&mut self, index: usize) {
        self.end_node(index, Progress::Skipped, Status::Skipped);
    }

    pub(super) fn mark_unknown(&mut self, index: usize) {
        self.end_node(index, Progress::Blocked, Status::Unknown);
    }

    /// Ends a node of which no task was made.
    pub(super) fn end_node(&mut self, index: usize, progress: Progress, status: Status) {
        self.nodes.states[index].progress = progress;
        self.ledger.ended(self.node_name(index), status, Ending::default());
        self.note_end(index);
        self.notify_dependents(index);
    }

    /// Reports a node as ended, once none of its tasks is pending and none will be made.
    pub(super) fn note_end(&mut self, index: usize) {
        let state = &mut self.nodes.states[index];
        if state.progress != Progress::Open && state.pending == 0 && !state.has_ended {
            state.has_ended = true;
            self.ledger.node_ended(&self.graph.nodes[index]);
        }
    }

    pub(super) fn node_name(&self, index: usize) -> TaskName<'a> {
        TaskName { index, node: &self.graph.nodes[index], part: None, phase: Phase::Whole, key: None }
    }
}
