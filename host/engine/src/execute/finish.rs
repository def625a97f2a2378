//! What a run leaves: what came out, the history of it, and what it consists of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use millrace_store::{StoreError, TableFile};
use millrace_types::action_record::ObjectRef;
use millrace_types::{Artifact, BlobRef, LogLine, PortName, Table, TableDigest};
use millrace_wasm::PortKind;
use serde_json::Value;

use super::Mode;
use super::outputs::named;
use super::run::{Run, matches};
use super::screen::Emit;
use super::state::{OutputState, Progress, artifacts};
use crate::event::Summary;
use crate::graph::Item;
use crate::history::TaskRecord;
use crate::source::sources_of;

/// What a run leaves.
pub(super) struct Finished<'a> {
    pub(super) summary: Summary,
    /// In the order of nodes and parts, whatever the order in which they ended.
    pub(super) tasks: Vec<TaskRecord>,
    /// What tasks wrote, by their place among all.
    pub(super) logs: Vec<(usize, Vec<LogLine>)>,
    /// Everything in the store that these results consist of.
    pub(super) objects: Vec<ObjectRef>,
    /// Where the tables among them are found by their digests.
    pub(super) tables: Vec<TableFile>,
    /// The sources whose columns were not all read.
    pub(super) unread: Vec<[u8; 32]>,
    /// Blobs whose content was read here.
    pub(super) choices: Vec<BlobRef>,
    /// By node: what it produced.
    pub(super) artifacts: Artifacts,
    pub(super) emit: Emit<'a>,
}

/// What sources and nodes hold at the end.
pub(crate) struct Artifacts {
    pub(crate) sources: Vec<Option<Arc<Table>>>,
    pub(crate) nodes: Vec<Vec<(PortName, Artifact)>>,
    /// The node that a choice came out as, by node that chooses.
    pub(crate) chosen: HashMap<usize, BTreeMap<String, Value>>,
    pub(crate) graph_matrix: Vec<BTreeMap<String, Value>>,
}

impl Artifacts {
    /// The artifact that an item stands for, if it came to be.
    pub(crate) fn get(&self, item: &Item) -> Option<Artifact> {
        let of = |node: usize, port: &PortName| {
            self.nodes[node].iter().find(|(name, _)| name == port).map(|(_, artifact)| artifact.clone())
        };
        match item {
            Item::Source(index) => self.sources[*index].clone().map(Artifact::Table),
            Item::Output { node, port } => of(*node, port),
            Item::Chosen { choice, candidates, port, .. } => {
                let wanted = self.chosen.get(choice)?;
                let node = candidates.iter().find(|node| matches(&self.graph_matrix[**node], wanted))?;
                of(*node, port)
            }
        }
    }
}

impl<'a> Run<'a> {
    /// Takes what came of it.
    ///
    /// # Errors
    /// When its tables cannot be kept.
    pub(super) fn finish(mut self) -> Result<Finished<'a>, StoreError> {
        self.summary.interrupted = self.options.cancel.is_cancelled();
        self.summary.ok &= !self.summary.interrupted;
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut chosen = HashMap::new();
        let mut all_metrics = BTreeMap::new();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let mut made = Vec::new();
            if self.nodes[index].progress == Progress::Done {
                made = artifacts(&self.nodes[index]);
                let metrics = self.nodes[index].metrics.clone();
                let is_exported = self.graph.exports.iter().any(|export| {
                    matches!(&export.item, Item::Output { node, port } if *node == index && port.as_str() == "metrics")
                });
                if !metrics.is_empty() {
                    all_metrics.insert(node.label.clone(), metrics.clone());
                }
                if !metrics.is_empty() || is_exported {
                    let blob = self.metrics_blob(index).map(Artifact::Blob);
                    made.extend(PortName::new("metrics").ok().zip(blob));
                }
                let choices = node.used.manifest.outputs.iter().filter(|port| port.kind == PortKind::Blob);
                if self.choosers.contains(&index)
                    && let [port] = choices.collect::<Vec<_>>().as_slice()
                    && let Some(choice) = self.choice(index, &port.name)
                {
                    chosen.insert(index, choice);
                }
            }
            nodes.push(made);
        }
        let (mut made, mut outputs) = (Vec::new(), BTreeMap::new());
        let named = named(&nodes, self.options.jobs);
        for (node, named) in self.graph.nodes.iter().zip(named).filter(|(_, named)| !named.is_empty()) {
            made.extend(named.iter().filter_map(|named| named.table.clone()));
            let names = named.into_iter().map(|named| (named.port, named.digest)).collect();
            outputs.insert(node.label.clone(), names);
        }
        let made: Vec<(TableDigest, &Table)> = made.iter().map(|(digest, table)| (*digest, &**table)).collect();
        let is_run = self.options.mode == Mode::Run;
        let tables = if is_run { self.options.store.keep_tables(&made)? } else { Vec::new() };
        let choice = |node: &usize| -> Vec<BlobRef> {
            let blob = |(_, output): &(PortName, OutputState)| match output {
                OutputState::Blob(blob) => *blob,
                OutputState::Table(_) => None,
            };
            self.nodes[*node].outputs.iter().filter_map(blob).collect()
        };
        let choices = self.choosers.iter().flat_map(choice).collect();
        let Self { mut summary, mut history, objects, sources, emit, graph, nodes: states, tasks, .. } = self;
        // Thousands of small pieces, in a process that is about to end.
        std::mem::forget((states, tasks));
        summary.outputs = Arc::new(outputs);
        summary.metrics = Arc::new(all_metrics);
        history.sort_by_key(|(node, task, _)| (*node, task.part.is_none(), task.part));
        let (mut tasks, mut logs) = (Vec::with_capacity(history.len()), Vec::new());
        for (place, (_, task, log)) in history.into_iter().enumerate() {
            tasks.push(task);
            logs.extend((!log.is_empty()).then_some((place, log)));
        }
        let read = sources.iter().flatten().flat_map(|table| crate::source::packs(table));
        let mut unread: Vec<[u8; 32]> = sources.iter().flatten().flat_map(|table| sources_of(table)).collect();
        unread.sort_unstable();
        unread.dedup();
        let blobs = nodes.iter().flatten().filter_map(|(_, artifact)| match artifact {
            Artifact::Blob(blob) => Some(ObjectRef::Blob(blob.digest, blob.size)),
            Artifact::Table(_) => None,
        });
        let mut objects: Vec<ObjectRef> = read.chain(objects).chain(blobs).collect();
        objects.sort_unstable();
        objects.dedup();
        let graph_matrix = graph.nodes.iter().map(|node| node.matrix.clone()).collect();
        let artifacts = Artifacts { sources, nodes, chosen, graph_matrix };
        Ok(Finished { summary, tasks, logs, objects, tables, unread, choices, artifacts, emit })
    }
}
