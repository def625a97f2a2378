//! The tasks of a node that can be made now, and the inputs of each.

use millrace_types::{BlobRef, CanonicalJson, Mode, Phase, PortKind, PortName};

use super::key::{TaskInputs, VisibleItem, VisiblePort};
use super::nodes::{Nodes, Progress};
use crate::graph::Item;

/// What a node can do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextTasks {
    /// Tasks on these parts can be made.
    Parts(Vec<usize>, Phase),
    /// The task on all parts can be made.
    Last(Phase),
    /// All its tasks have ended.
    Complete,
    /// It waits for a task, its own or that of another node.
    Wait,
}

impl<'a> Nodes<'a> {
    /// What a node with a plan of this mode can do.
    pub(super) fn ready(&self, index: usize, mode: Mode) -> NextTasks {
        if self.states[index].progress != Progress::Open {
            return NextTasks::Wait;
        }
        match mode {
            Mode::Whole => self.ready_last(index, Phase::Whole),
            Mode::Rounds => self.ready_last(index, Phase::Rounds),
            Mode::Map => match self.ready_parts(index, Phase::Map) {
                None => NextTasks::Complete,
                Some(ready) => ready,
            },
            Mode::Fold => match self.ready_parts(index, Phase::Partial) {
                None => self.ready_last(index, Phase::Merge),
                Some(ready) => ready,
            },
        }
    }

    fn ready_last(&self, index: usize, phase: Phase) -> NextTasks {
        let state = &self.states[index];
        match (state.last_made, state.pending) {
            (false, _) => NextTasks::Last(phase),
            (true, 0) => NextTasks::Complete,
            (true, _) => NextTasks::Wait,
        }
    }

    /// The parts of the mapped input that exist and have no task; `None` when all parts exist
    /// and all their tasks have ended.
    fn ready_parts(&self, index: usize, phase: Phase) -> Option<NextTasks> {
        let Some(view) = self.mapped(index).and_then(|(_, item)| self.table(item)) else {
            return Some(NextTasks::Wait);
        };
        let state = &self.states[index];
        let is_made = |part: usize| state.made.get(part).is_some_and(|made| *made);
        let parts: Vec<usize> =
            (0..view.parts.len()).filter(|part| !is_made(*part) && view.parts.get(*part).is_some()).collect();
        if !parts.is_empty() {
            return Some(NextTasks::Parts(parts, phase));
        }
        let all_made = view.complete && (0..view.parts.len()).all(is_made);
        (!all_made || state.pending > 0).then_some(NextTasks::Wait)
    }

    /// Records that a task was made.
    pub(super) fn mark_made(&mut self, index: usize, part: Option<usize>) {
        let state = &mut self.states[index];
        state.pending += 1;
        match part {
            None => state.last_made = true,
            Some(part) => {
                if state.made.len() <= part {
                    state.made.resize(part + 1, false);
                    state.partials.resize(part + 1, None);
                }
                state.made[part] = true;
            }
        }
    }

    /// The number of tasks of a node with a plan, and whether it is exact or a lower bound;
    /// `None` if that has been reported.
    pub(super) fn expect_tasks(&mut self, index: usize, mode: Mode) -> Option<(usize, bool)> {
        if self.states[index].expected.is_some_and(|(_, is_exact)| is_exact) {
            return None;
        }
        let last = usize::from(mode != Mode::Map);
        let expected = match mode {
            Mode::Whole | Mode::Rounds => (last, true),
            Mode::Map | Mode::Fold => {
                let parts = self.mapped(index).and_then(|(_, item)| self.parts_of(item));
                self.states[index].mapped_parts = parts;
                parts.map_or((last, false), |parts| (parts + last, true))
            }
        };
        let is_new = self.states[index].expected != Some(expected);
        self.states[index].expected = Some(expected);
        is_new.then_some(expected)
    }

    /// The number of parts that a table will have, if that is known: the output of a `map` step
    /// has the parts of its input, any other output is known when its step is done.
    fn parts_of(&self, item: &Item) -> Option<usize> {
        if let Some(view) = self.table(item)
            && view.complete
        {
            return Some(view.parts.len());
        }
        let (node, _) = self.selections.resolve(&self.graph.nodes, item)?;
        let state = &self.states[node];
        let is_map = state.plan.as_ref().is_some_and(|plan| plan.mode == Mode::Map);
        state.mapped_parts.filter(|_| is_map && matches!(state.progress, Progress::Open | Progress::Done))
    }

    /// The mapped port of a node, and the item on it.
    fn mapped(&self, index: usize) -> Option<(&'a PortName, &'a Item)> {
        let input = self.graph.nodes[index].inputs.iter().find(|input| input.port.mapped)?;
        input.items.first().map(|(_, item)| (&input.port.name, item))
    }

    /// The inputs that a task of a node sees; `None` while one is missing.
    pub(super) fn inputs(&mut self, index: usize, part: Option<usize>, phase: Phase) -> Option<TaskInputs> {
        let mut partials = None;
        if phase == Phase::Merge {
            let (port, _) = self.mapped(index)?;
            let blobs: Option<Vec<BlobRef>> = self.states[index].partials.iter().copied().collect();
            partials = Some((port.clone(), blobs?));
        }
        let graph = self.graph;
        let inputs = &graph.nodes[index].inputs;
        let mut ports = Vec::with_capacity(inputs.len());
        for input in inputs.iter().filter(|input| phase != Phase::Merge || !input.port.mapped) {
            let part = part.filter(|_| input.port.mapped);
            let items = input.items.iter().map(|(instance, item)| {
                let visible = match input.port.kind {
                    PortKind::Blob => VisibleItem::Blob(self.blob(item)?),
                    PortKind::Table => self.visible_table(item, part)?,
                };
                Some((instance.clone(), visible))
            });
            ports.push(VisiblePort { port: input.port.name.clone(), items: items.collect::<Option<_>>()? });
        }
        Some(TaskInputs { ports, partials })
    }

    fn visible_table(&self, item: &Item, part: Option<usize>) -> Option<VisibleItem> {
        let view = self.table(item)?;
        let parts = match part {
            Some(part) => vec![view.parts.get(part)?.clone()],
            None if view.complete => view.parts.to_vec(),
            None => return None,
        };
        Some(VisibleItem::Table { schema: view.schema.clone(), parts })
    }

    /// The blob that an item refers to, if it exists.
    fn blob(&mut self, item: &Item) -> Option<BlobRef> {
        let (node, port) = self.selections.resolve(&self.graph.nodes, item)?;
        if port.as_str() == "metrics" { self.metrics_blob(node) } else { self.output_blob(node, port) }
    }

    /// The metrics of a node that is done, as a blob.
    pub(super) fn metrics_blob(&mut self, node: usize) -> Option<BlobRef> {
        let state = &mut self.states[node];
        if state.progress != Progress::Done {
            return None;
        }
        if state.metrics_blob.is_none() {
            let json = serde_json::to_value(&state.metrics).unwrap_or_default();
            state.metrics_blob = self.store.put_blob(CanonicalJson::new(&json).as_str().as_bytes()).ok();
        }
        state.metrics_blob
    }
}
