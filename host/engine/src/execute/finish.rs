//! The end of a run: its results, its history, and the objects that they consist of.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_store::{StoreError, TableFile};
use millrace_types::{Artifact, BlobRef, LogLine, ObjectRef, PortName, SourceKey, Table, TableDigest};

use super::display::Emit;
use super::ledger::{HistoryEntry, Ledger};
use super::nodes::{Nodes, Progress};
use super::options::RunMode;
use super::outputs::named;
use super::run::Run;
use crate::event::Summary;
use crate::graph::Item;
use crate::history::TaskRecord;
use crate::results::RunOutputs;
use crate::source::{packs, unread};

/// The results of a run.
pub(super) struct Finished<'a> {
    pub(super) summary: Summary,
    /// In the order of nodes and parts, not that in which they ended.
    pub(super) tasks: Vec<TaskRecord>,
    /// The log lines of tasks, by the index of the task.
    pub(super) logs: Vec<(usize, Vec<LogLine>)>,
    /// Every object of the store that the results consist of.
    pub(super) objects: Vec<ObjectRef>,
    /// The files that hold the tables among the results.
    pub(super) tables: Vec<TableFile>,
    /// The sources of which some columns are unread.
    pub(super) unread: Vec<SourceKey>,
    /// Blobs whose content decided which tasks were run.
    pub(super) selections: Vec<BlobRef>,
    pub(super) outputs: RunOutputs,
    pub(super) emit: Emit<'a>,
}

impl<'a> Run<'a> {
    /// Ends the run.
    ///
    /// # Errors
    /// When its tables cannot be stored.
    pub(super) fn finish(mut self) -> Result<Finished<'a>, StoreError> {
        let summary = &mut self.ledger.summary;
        summary.interrupted = self.options.cancel.is_cancelled();
        summary.ok &= !summary.interrupted;
        let produced: Vec<Vec<(PortName, Artifact)>> =
            (0..self.graph.nodes.len()).map(|node| self.produced(node)).collect();
        let metrics = self.metrics();
        let (made, outputs) = self.name_outputs(&produced);
        let made: Vec<(TableDigest, &Table)> = made.iter().map(|(digest, table)| (*digest, &**table)).collect();
        let is_run = self.options.mode == RunMode::Run;
        let tables = if is_run { self.options.store.keep_tables(&made)? } else { Vec::new() };
        let selections = self.hits.selectors.iter().flat_map(|node| self.nodes.states[*node].blobs()).collect();
        let Self { ledger, nodes, graph, .. } = self;
        let Ledger { mut summary, history, objects, emit, .. } = ledger;
        let Nodes { sources, states, selections: selected, .. } = nodes;
        // Thousands of small allocations, in a process that is about to end.
        std::mem::forget(states);
        summary.outputs = Arc::new(outputs);
        summary.metrics = Arc::new(metrics);
        summary.selected = Arc::new(selected.labels(&graph.nodes));
        let (tasks, logs) = in_order(history);
        let mut unread: Vec<SourceKey> = sources.iter().flat_map(|table| unread::sources_of(table)).collect();
        unread.sort_unstable();
        unread.dedup();
        let blobs = produced.iter().flatten().filter_map(|(_, artifact)| match artifact {
            Artifact::Blob(blob) => Some(blob.object()),
            Artifact::Table(_) => None,
        });
        let read = sources.iter().flat_map(|table| packs(table));
        let mut objects: Vec<ObjectRef> = read.chain(objects).chain(blobs).collect();
        objects.sort_unstable();
        objects.dedup();
        let outputs = RunOutputs { sources, nodes: produced, selections: selected };
        Ok(Finished { summary, tasks, logs, objects, tables, unread, selections, outputs, emit })
    }

    /// The outputs of a node, with its metrics if it has any or an export needs them.
    fn produced(&mut self, node: usize) -> Vec<(PortName, Artifact)> {
        if self.nodes.states[node].progress != Progress::Done {
            return Vec::new();
        }
        let mut produced = self.nodes.states[node].artifacts();
        let exports_metrics = self.graph.exports.iter().any(|export| {
            matches!(&export.item, Item::Output { node: of, port } if *of == node && port.as_str() == "metrics")
        });
        if !self.nodes.states[node].metrics.is_empty() || exports_metrics {
            let blob = self.nodes.metrics_blob(node).map(Artifact::Blob);
            produced.extend(PortName::new("metrics").ok().zip(blob));
        }
        produced
    }

    /// The metrics of the nodes that are done, by instance.
    fn metrics(&self) -> BTreeMap<String, BTreeMap<String, f64>> {
        let nodes = self.graph.nodes.iter().zip(&self.nodes.states);
        let done = nodes.filter(|(_, state)| state.progress == Progress::Done && !state.metrics.is_empty());
        done.map(|(node, state)| (node.label.clone(), state.metrics.clone())).collect()
    }

    /// The tables among the outputs with their digests, and the digests by instance and port.
    fn name_outputs(
        &self,
        produced: &[Vec<(PortName, Artifact)>],
    ) -> (Vec<(TableDigest, Arc<Table>)>, BTreeMap<String, BTreeMap<String, String>>) {
        let (mut tables, mut outputs) = (Vec::new(), BTreeMap::new());
        let named = named(produced, self.options.jobs);
        for (node, named) in self.graph.nodes.iter().zip(named).filter(|(_, named)| !named.is_empty()) {
            tables.extend(named.iter().filter_map(|named| named.table.clone()));
            let names = named.into_iter().map(|named| (named.port, named.digest)).collect();
            outputs.insert(node.label.clone(), names);
        }
        (tables, outputs)
    }
}

/// The tasks in the order of nodes and parts, and their log lines.
fn in_order(mut history: Vec<HistoryEntry>) -> (Vec<TaskRecord>, Vec<(usize, Vec<LogLine>)>) {
    history.sort_by_key(|HistoryEntry { node, task, .. }| (*node, task.part.is_none(), task.part));
    let (mut tasks, mut logs) = (Vec::with_capacity(history.len()), Vec::new());
    for (index, HistoryEntry { task, log, .. }) in history.into_iter().enumerate() {
        tasks.push(task);
        logs.extend((!log.is_empty()).then_some((index, log)));
    }
    (tasks, logs)
}
