//! What is known of nodes and their outputs while a run goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_types::{Artifact, BlobRef, Part, PortName, Schema, Table};
use millrace_wasm::{OutputField, StepPlan};

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits or works.
    Open,
    /// All its tasks are done.
    Done,
    /// One of them failed, or its plan was refused.
    Failed,
    /// Something that it needs failed, or the run was stopped.
    Skipped,
    /// Of a plan: something would run here.
    Blocked,
}

/// An output table on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct TableState {
    /// As planned or declared.
    pub(super) fields: Option<Vec<OutputField>>,
    pub(super) schema: Option<Schema>,
    /// By place; for a `map` step the place of the input part.
    pub(super) parts: Vec<Option<Arc<Part>>>,
    /// No further part will come.
    pub(super) complete: bool,
}

/// An output on its way.
#[derive(Debug, Clone)]
pub(super) enum OutputState {
    Table(TableState),
    Blob(Option<BlobRef>),
}

/// A node on its way.
pub(super) struct NodeState {
    pub(super) progress: Progress,
    pub(super) plan: Option<Arc<StepPlan>>,
    pub(super) outputs: Vec<(PortName, OutputState)>,
    /// For each part of the mapped input whether its task was made.
    pub(super) made: Vec<bool>,
    /// Tasks that were made and have not ended.
    pub(super) pending: usize,
    /// Tasks that ended well.
    pub(super) done: usize,
    pub(super) partials: Vec<Option<BlobRef>>,
    /// Whether the one task of `whole`, or `merge`, was made.
    pub(super) last_made: bool,
    pub(super) metrics: BTreeMap<String, f64>,
    pub(super) metrics_blob: Option<BlobRef>,
}

impl NodeState {
    pub(super) fn new() -> Self {
        Self {
            progress: Progress::Open,
            plan: None,
            outputs: Vec::new(),
            made: Vec::new(),
            pending: 0,
            done: 0,
            partials: Vec::new(),
            last_made: false,
            metrics: BTreeMap::new(),
            metrics_blob: None,
        }
    }

    pub(super) fn output(&self, port: &PortName) -> Option<&OutputState> {
        self.outputs.iter().find(|(name, _)| name == port).map(|(_, state)| state)
    }
}

/// What can be seen of a table on an input, so far.
pub(super) struct TableView<'a> {
    pub(super) schema: &'a Schema,
    pub(super) parts: Parts<'a>,
    pub(super) complete: bool,
}

/// Parts that are there, or may come.
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
    pub(super) fn view(&self) -> Option<TableView<'_>> {
        let schema = self.schema.as_ref()?;
        Some(TableView { schema, parts: Parts::Some(&self.parts), complete: self.complete })
    }

    pub(super) fn put(&mut self, place: usize, part: Part) {
        if self.parts.len() <= place {
            self.parts.resize(place + 1, None);
        }
        self.parts[place] = Some(Arc::new(part));
    }

    /// The finished table, without parts that have no rows.
    pub(super) fn table(&self) -> Option<Table> {
        let parts = self.parts.iter().flatten().cloned().collect();
        Some(Table { schema: self.schema.clone()?, parts })
    }
}

/// What a node has produced.
pub(super) fn artifacts(state: &NodeState) -> Vec<(PortName, Artifact)> {
    let artifact = |(port, output): &(PortName, OutputState)| match output {
        OutputState::Table(table) => Some((port.clone(), Artifact::Table(Arc::new(table.table()?)))),
        OutputState::Blob(blob) => Some((port.clone(), Artifact::Blob((*blob)?))),
    };
    state.outputs.iter().filter_map(artifact).collect()
}
