//! The states of nodes and their outputs during a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_store::Store;
use millrace_types::{
    ActionRecord, Artifact, BlobRef, OutputField, OutputRecord, Part, PortKind, PortName, Schema, StepPlan, Table,
};

use super::selections::Selections;
use crate::assemble::{self, InputTable, Misfit};
use crate::graph::{Graph, Item, Node};

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits or works.
    Open,
    /// All its tasks are done.
    Done,
    /// One of its tasks failed, or its plan was refused.
    Failed,
    /// A node that it needs failed, or the run was stopped.
    Skipped,
    /// In a plan: something would run here.
    Blocked,
}

/// An output table, as far as its parts exist.
#[derive(Debug, Clone, Default)]
pub(super) struct TableState {
    /// As planned or declared.
    fields: Option<Vec<OutputField>>,
    schema: Option<Schema>,
    /// By index; for a `map` step the index of the input part.
    parts: Vec<Option<Arc<Part>>>,
    /// No further part will come.
    complete: bool,
}

/// An output.
#[derive(Debug, Clone)]
pub(super) enum OutputState {
    Table(TableState),
    Blob(Option<BlobRef>),
}

/// A node.
pub(super) struct NodeState {
    pub(super) progress: Progress,
    pub(super) plan: Option<Arc<StepPlan>>,
    pub(super) outputs: Vec<(PortName, OutputState)>,
    /// For each part of the mapped input whether its task was made.
    pub(super) made: Vec<bool>,
    /// Tasks that were made and have not ended.
    pub(super) pending: usize,
    /// The number of tasks as it was last reported, and whether it is exact.
    pub(super) expected: Option<(usize, bool)>,
    /// The number of parts of its mapped input, once it is known.
    pub(super) mapped_parts: Option<usize>,
    /// Whether its end was reported.
    pub(super) has_ended: bool,
    pub(super) partials: Vec<Option<BlobRef>>,
    /// Whether the one task of `whole`, or `merge`, was made.
    pub(super) last_made: bool,
    /// The sums over all tasks, once the node is done.
    pub(super) metrics: BTreeMap<String, f64>,
    /// The metrics of each task by its part, in the order in which the tasks ended.
    task_metrics: Vec<(Option<usize>, Vec<(String, f64)>)>,
    pub(super) metrics_blob: Option<BlobRef>,
}

/// What can be seen of a table on an input so far.
pub(super) struct TableView<'a> {
    pub(super) schema: &'a Schema,
    pub(super) parts: Parts<'a>,
    pub(super) complete: bool,
}

/// The parts of a table, some of which may be missing.
pub(super) enum Parts<'a> {
    All(&'a [Arc<Part>]),
    Some(&'a [Option<Arc<Part>>]),
}

impl Parts<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::All(parts) => parts.len(),
            Self::Some(parts) => parts.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&Arc<Part>> {
        match self {
            Self::All(parts) => parts.get(index),
            Self::Some(parts) => parts.get(index)?.as_ref(),
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Arc<Part>> {
        (0..self.len()).filter_map(|index| self.get(index).cloned()).collect()
    }
}

impl TableState {
    fn view(&self) -> Option<TableView<'_>> {
        let schema = self.schema.as_ref()?;
        Some(TableView { schema, parts: Parts::Some(&self.parts), complete: self.complete })
    }

    fn put(&mut self, index: usize, part: Arc<Part>) {
        if self.parts.len() <= index {
            self.parts.resize(index + 1, None);
        }
        self.parts[index] = Some(part);
    }

    fn table(&self) -> Option<Table> {
        Some(Table { schema: self.schema.clone()?, parts: self.parts.iter().flatten().cloned().collect() })
    }
}

/// An output of one task, assembled from its record.
pub(super) enum Assembled {
    Blob(BlobRef),
    Table { fields: Vec<OutputField>, parts: Vec<Arc<Part>> },
}

impl NodeState {
    fn new() -> Self {
        Self {
            progress: Progress::Open,
            plan: None,
            outputs: Vec::new(),
            made: Vec::new(),
            pending: 0,
            expected: None,
            mapped_parts: None,
            has_ended: false,
            partials: Vec::new(),
            last_made: false,
            metrics: BTreeMap::new(),
            task_metrics: Vec::new(),
            metrics_blob: None,
        }
    }

    /// Sets the plan of the node, and with it what is known of its outputs.
    pub(super) fn open(&mut self, node: &Node, plan: Arc<StepPlan>) {
        let output = |port: &millrace_types::Port| {
            let state = match port.kind {
                PortKind::Blob => OutputState::Blob(None),
                PortKind::Table => {
                    let planned = plan.outputs.iter().find(|(name, _)| *name == port.name);
                    let fields = planned.and_then(|(_, fields)| fields.clone());
                    let schema = fields.as_deref().map(assemble::schema);
                    OutputState::Table(TableState { fields, schema, ..TableState::default() })
                }
            };
            (port.name.clone(), state)
        };
        self.outputs = node.used.manifest.outputs.iter().map(output).collect();
        self.plan = Some(plan);
    }

    fn output(&self, port: &PortName) -> Option<&OutputState> {
        self.outputs.iter().find(|(name, _)| name == port).map(|(_, state)| state)
    }

    /// Assembles the outputs of a record with the tables that its task saw.
    ///
    /// # Errors
    /// When the record does not fit the plan of the node.
    pub(super) fn assemble(
        &self,
        record: &ActionRecord,
        inputs: &[InputTable<'_>],
    ) -> Result<Vec<(PortName, Assembled)>, Misfit> {
        let mut assembled = Vec::with_capacity(record.outputs.len());
        for (port, output) in &record.outputs {
            let output = match output {
                OutputRecord::Blob(blob) => Assembled::Blob(*blob),
                OutputRecord::Table { declared, parts } => {
                    let known = match self.output(port) {
                        Some(OutputState::Table(table)) => table.fields.as_ref(),
                        _ => None,
                    };
                    let fields = match (declared, known) {
                        (Some(declared), None) => assemble::declared_fields(declared, inputs)?,
                        (Some(declared), Some(known)) => {
                            let fields = assemble::declared_fields(declared, inputs)?;
                            if fields != *known {
                                return Err(Misfit::schemas(port));
                            }
                            fields
                        }
                        (None, Some(known)) => known.clone(),
                        (None, None) => return Err(Misfit::schemas(port)),
                    };
                    let part = |(index, record)| assemble::part(record, index, &fields, inputs).map(Arc::new);
                    let parts = parts.iter().enumerate().map(part).collect::<Result<_, _>>()?;
                    Assembled::Table { fields, parts }
                }
            };
            assembled.push((port.clone(), output));
        }
        Ok(assembled)
    }

    /// Adds the outputs of a task: of `map` on one part, else all of them.
    pub(super) fn add(&mut self, outputs: Vec<(PortName, Assembled)>, part: Option<usize>) {
        for (port, made) in outputs {
            let Some((_, output)) = self.outputs.iter_mut().find(|(name, _)| *name == port) else { continue };
            match (output, made) {
                (OutputState::Table(table), Assembled::Table { fields, parts }) => {
                    table.schema = Some(assemble::schema(&fields));
                    table.fields = Some(fields);
                    for (index, made) in parts.into_iter().enumerate() {
                        table.put(part.unwrap_or(index), made);
                    }
                }
                (OutputState::Blob(blob), Assembled::Blob(made)) => *blob = Some(made),
                // A record of another plan: assembling has refused it already.
                (OutputState::Table(_), Assembled::Blob(_)) | (OutputState::Blob(_), Assembled::Table { .. }) => {}
            }
        }
    }

    /// Adds the metrics of a task.
    pub(super) fn add_metrics(&mut self, part: Option<usize>, metrics: &[(String, f64)]) {
        if !metrics.is_empty() {
            self.task_metrics.push((part, metrics.to_vec()));
        }
    }

    /// Marks the node as done, its tables as complete, and sums its metrics.
    pub(super) fn complete(&mut self) {
        self.progress = Progress::Done;
        // Sums of floats depend on their order: that of parts is the same in every run.
        let mut tasks = std::mem::take(&mut self.task_metrics);
        tasks.sort_by_key(|(part, _)| (part.is_none(), *part));
        for (name, value) in tasks.into_iter().flat_map(|(_, metrics)| metrics) {
            *self.metrics.entry(name).or_default() += value;
        }
        for (_, output) in &mut self.outputs {
            if let OutputState::Table(table) = output {
                table.complete = true;
            }
        }
    }

    /// What the node has produced, but for its metrics.
    pub(super) fn artifacts(&self) -> Vec<(PortName, Artifact)> {
        let artifact = |(port, output): &(PortName, OutputState)| match output {
            OutputState::Table(table) => Some((port.clone(), Artifact::Table(Arc::new(table.table()?)))),
            OutputState::Blob(blob) => Some((port.clone(), Artifact::Blob((*blob)?))),
        };
        self.outputs.iter().filter_map(artifact).collect()
    }

    /// The blobs that the node has produced.
    pub(super) fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        self.outputs.iter().filter_map(|(_, output)| match output {
            OutputState::Blob(blob) => *blob,
            OutputState::Table(_) => None,
        })
    }

    /// The schemas of its tables, as far as known.
    pub(super) fn schemas(&self) -> impl Iterator<Item = (&PortName, &Schema)> {
        self.outputs.iter().filter_map(|(port, output)| match output {
            OutputState::Table(table) => Some((port, table.schema.as_ref()?)),
            OutputState::Blob(_) => None,
        })
    }
}

/// All nodes of a run, the sources, and which instances were selected.
pub(super) struct Nodes<'a> {
    pub(super) graph: &'a Graph,
    pub(super) store: &'a Store,
    pub(super) sources: Vec<Arc<Table>>,
    pub(super) states: Vec<NodeState>,
    pub(super) selections: Selections,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(graph: &'a Graph, store: &'a Store, sources: Vec<Arc<Table>>) -> Self {
        let states = graph.nodes.iter().map(|_| NodeState::new()).collect();
        Self { graph, store, sources, states, selections: Selections::default() }
    }

    /// What is known of the table that an item stands for.
    pub(super) fn table(&self, item: &Item) -> Option<TableView<'_>> {
        if let Item::Source(index) = item {
            let table = &self.sources[*index];
            return Some(TableView { schema: &table.schema, parts: Parts::All(&table.parts), complete: true });
        }
        let (node, port) = self.selections.resolve(&self.graph.nodes, item)?;
        match self.states[node].output(port)? {
            OutputState::Table(table) => table.view(),
            OutputState::Blob(_) => None,
        }
    }

    /// The blob of an output, if it exists.
    pub(super) fn output_blob(&self, node: usize, port: &PortName) -> Option<BlobRef> {
        match self.states[node].output(port)? {
            OutputState::Blob(blob) => *blob,
            OutputState::Table(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metrics are an output, so the keys of later steps depend on their bits.
    #[test]
    fn metrics_do_not_depend_on_the_order_in_which_tasks_end() {
        let tasks = [(Some(0), 0.1), (Some(1), 1e16), (Some(2), -1e16), (Some(3), 0.3), (None, 0.7)];
        let sum = |order: &[usize]| {
            let mut state = NodeState::new();
            for (part, value) in order.iter().map(|index| tasks[*index]) {
                state.add_metrics(part, &[("loss".to_owned(), value)]);
            }
            state.complete();
            state.metrics["loss"].to_bits()
        };
        let expected = sum(&[0, 1, 2, 3, 4]);
        for order in [[4, 3, 2, 1, 0], [1, 3, 0, 4, 2], [2, 0, 4, 1, 3]] {
            assert_eq!(sum(&order), expected, "{order:?}");
        }
    }
}
