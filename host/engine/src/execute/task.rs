//! A task that a run has made.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use millrace_types::{ActionKey, ByteSize, KeyParts, Phase, TaskSpec};

use super::job::{Job, PreparedTask, Work};
use super::key::PortTable;
use super::ledger::TaskName;
use super::schedule::{TaskId, Urgency};
use crate::assemble::InputTable;
use crate::event::Event;
use crate::graph::Graph;
use crate::pipeline::CachePolicy;

/// A task.
pub(super) struct Task {
    pub(super) node: usize,
    pub(super) part: Option<usize>,
    pub(super) phase: Phase,
    pub(super) key: ActionKey,
    /// The rows of the tables that it reads.
    pub(super) rows_read: u64,
    /// The key parts and the spec, until the task is started or found.
    pub(super) prepared: Option<(KeyParts, TaskSpec)>,
    /// The tables that its outputs are assembled with.
    pub(super) tables: Vec<PortTable>,
}

impl Task {
    /// Its name in events and the history.
    pub(super) fn name<'a>(&self, graph: &'a Graph) -> TaskName<'a> {
        let Self { node, part, phase, key, .. } = self;
        TaskName { index: *node, node: &graph.nodes[*node], part: *part, phase: *phase, key: Some(*key) }
    }

    /// The tables that its outputs are assembled with.
    pub(super) fn inputs(&self) -> Vec<InputTable<'_>> {
        let tables = self.tables.iter();
        tables.map(|(port, schema, parts)| InputTable { port, schema, parts: parts.clone() }).collect()
    }

    /// Frees what only an unfinished task needs: there are thousands of tasks.
    pub(super) fn release(&mut self) {
        (self.prepared, self.tables) = (None, Vec::new());
    }

    /// The job of the task, with the memory that it may use; `None` if it was taken before.
    pub(super) fn take_job(
        &mut self,
        id: TaskId,
        graph: &Graph,
        memory: ByteSize,
        events: &Sender<Event>,
    ) -> Option<Job> {
        let (parts, mut spec) = self.prepared.take()?;
        let node = &graph.nodes[self.node];
        spec.limits.memory = memory;
        let (events, step, part) = (events.clone(), node.label.clone(), self.part);
        let progress = Arc::new(move |done, total| {
            let _ = events.send(Event::TaskProgressed { step: step.clone(), part, done, total });
        });
        let work = Work {
            key: self.key,
            parts,
            spec,
            granted: node.granted.clone(),
            progress: Some(progress),
            may_hit: node.cache == CachePolicy::On,
        };
        let prepared = PreparedTask { work, used: node.used.clone() };
        let started = Some(Event::TaskStarted { step: node.label.clone(), part: self.part });
        Some(Job { task: id, urgency: Urgency::new(self.part, node.rank, id), started, prepared })
    }
}
