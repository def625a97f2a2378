//! The graph of a pipeline: instances of steps, and their connections.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use millrace_types::{CanonicalJson, Limits, Port, PortName, StepName};
use serde_json::Value;

use crate::components::Used;
use crate::diagnostic::Span;
use crate::grants::Granted;
use crate::pipeline::{CachePolicy, Source};

/// The origin of an item on a port.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A source, by its index.
    Source(usize),
    /// An output of a node.
    Output {
        /// The node.
        node: usize,
        /// Its output.
        port: PortName,
    },
    /// The output of the one instance that another step selects.
    Selected {
        /// The node that selects, as `std:best` does.
        selector: usize,
        /// Its output with the selection.
        selector_port: PortName,
        /// The instances to select from.
        candidates: Vec<usize>,
        /// The output of the selected instance.
        port: PortName,
    },
}

/// One connected input port.
#[derive(Debug, Clone)]
pub struct NodeInput {
    /// The port, as the manifest has it.
    pub port: Port,
    /// One item, or several with their matrix values where instances are gathered.
    pub items: Vec<(Option<CanonicalJson>, Item)>,
}

/// An instance of a step.
pub struct Node {
    /// The step.
    pub step: StepName,
    /// The index of its step in the pipeline.
    pub definition: usize,
    /// The matrix values of this instance.
    pub matrix: BTreeMap<String, Value>,
    /// `train[l2=0.01,learning_rate=0.1]`
    pub label: String,
    /// Its params, with `${…}` substituted.
    pub params: CanonicalJson,
    /// Its component.
    pub used: Arc<Used>,
    /// What a task of it may use.
    pub limits: Limits,
    /// What it may read besides its inputs.
    pub(crate) granted: Arc<Granted>,
    /// Whether a cached result is accepted.
    pub cache: CachePolicy,
    /// The connected ports, in name order.
    pub inputs: Vec<NodeInput>,
    /// The length of the longest chain of nodes after it: longer chains run first.
    pub rank: u32,
}

/// A file to write.
#[derive(Debug, Clone)]
pub struct NodeExport {
    /// The path.
    pub path: PathBuf,
    /// The artifact.
    pub item: Item,
    /// The span in the pipeline file that names it.
    pub span: Span,
}

/// A pipeline with its matrix expanded and its references resolved.
pub struct Graph {
    /// The sources, with `${…}` substituted.
    pub sources: Vec<Source>,
    /// Every node after those that it needs.
    pub nodes: Vec<Node>,
    /// The files to write.
    pub exports: Vec<NodeExport>,
}

impl Item {
    /// The nodes that must be done first.
    pub fn nodes(&self) -> Vec<usize> {
        match self {
            Self::Source(_) => Vec::new(),
            Self::Output { node, .. } => vec![*node],
            Self::Selected { selector, candidates, .. } => {
                [*selector].into_iter().chain(candidates.iter().copied()).collect()
            }
        }
    }
}

impl Graph {
    /// For each node the nodes that read its outputs.
    pub(crate) fn dependents(&self) -> Vec<Vec<usize>> {
        let mut dependents = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            let items = node.inputs.iter().flat_map(|input| &input.items);
            let before: BTreeSet<usize> = items.flat_map(|(_, item)| item.nodes()).collect();
            before.into_iter().for_each(|before| dependents[before].push(index));
        }
        dependents
    }

    /// The nodes whose outputs select an instance for another reference.
    pub(crate) fn selectors(&self) -> BTreeSet<usize> {
        let items = self.nodes.iter().flat_map(|node| &node.inputs).flat_map(|input| &input.items);
        let items = items.map(|(_, item)| item).chain(self.exports.iter().map(|export| &export.item));
        let selector = |item: &Item| match item {
            Item::Selected { selector, .. } => Some(*selector),
            Item::Source(_) | Item::Output { .. } => None,
        };
        items.filter_map(selector).collect()
    }
}
