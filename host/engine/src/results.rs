//! The artifacts of a run: the outputs of sources and nodes at its end.

use std::sync::Arc;

use millrace_types::{Artifact, PortName, Table};

use crate::execute::Selections;
use crate::graph::{Graph, Item};

/// The artifacts of a run.
pub(crate) struct RunOutputs {
    pub(crate) sources: Vec<Arc<Table>>,
    /// By node.
    pub(crate) nodes: Vec<Vec<(PortName, Artifact)>>,
    pub(crate) selections: Selections,
}

impl RunOutputs {
    /// The artifact that an item means, if it exists.
    pub(crate) fn get(&self, graph: &Graph, item: &Item) -> Option<Artifact> {
        if let Item::Source(index) = item {
            return Some(Artifact::Table(self.sources[*index].clone()));
        }
        let (node, port) = self.selections.resolve(&graph.nodes, item)?;
        self.nodes[node].iter().find(|(name, _)| name == port).map(|(_, artifact)| artifact.clone())
    }
}
