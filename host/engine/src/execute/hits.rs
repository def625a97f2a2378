//! Whether a task has a record that may be used, and if not, why.

use std::collections::BTreeSet;

use millrace_store::Store;
use millrace_types::{ActionKey, ActionRecord, KeyParts, OutputRecord, Phase};

use super::cache::ActionCache;
use super::job::now;
use crate::graph::Graph;
use crate::history::RunRecord;
use crate::pipeline::CachePolicy;
use crate::why::{MissReason, differences};

/// Finds records, under the cache policies of a pipeline.
pub(super) struct Hits<'a> {
    store: &'a Store,
    graph: &'a Graph,
    /// Nodes whose blob selects an instance.
    pub(super) selectors: BTreeSet<usize>,
    /// The previous run, to explain misses.
    last: Option<RunRecord>,
}

impl<'a> Hits<'a> {
    pub(super) fn new(store: &'a Store, graph: &'a Graph, last: Option<RunRecord>) -> Self {
        Self { store, graph, selectors: graph.selectors(), last }
    }

    /// The record of a task of a node; or the reason why it may not be used, if known.
    pub(super) fn lookup(&self, node: usize, key: &ActionKey) -> Result<ActionRecord, Option<MissReason>> {
        let policy = self.graph.nodes[node].cache;
        if policy == CachePolicy::Off {
            return Err(Some(MissReason::CacheOff));
        }
        let record = self.store.lookup(key).ok_or(None)?;
        if self.selectors.contains(&node) && !self.are_blobs_intact(&record) {
            return Err(None);
        }
        match policy {
            CachePolicy::MaxAge(age) if now().saturating_sub(record.finished_at) > age.as_secs() => {
                Err(Some(MissReason::Expired))
            }
            CachePolicy::On | CachePolicy::Off | CachePolicy::MaxAge(_) => Ok(record),
        }
    }

    /// Whether all blobs of a record are intact. All of them are checked, since the store
    /// removes the corrupt ones.
    fn are_blobs_intact(&self, record: &ActionRecord) -> bool {
        let is_corrupt = |output: &OutputRecord| match output {
            OutputRecord::Blob(blob) => !self.store.is_blob_intact(blob),
            OutputRecord::Table { .. } => false,
        };
        record.outputs.iter().filter(|(_, output)| is_corrupt(output)).count() == 0
    }

    /// Why a task has no record, compared with the same task of the last run.
    pub(super) fn miss_reason(
        &self,
        instance: &str,
        part: Option<usize>,
        phase: Phase,
        key: &ActionKey,
        parts: Option<&KeyParts>,
    ) -> MissReason {
        let Some(last) = self.last.as_ref().and_then(|last| last.produced(instance, part, phase)) else {
            return MissReason::New;
        };
        if last == *key {
            return MissReason::Gone;
        }
        match (self.store.record::<ActionRecord>(&last), parts) {
            (Some(old), Some(parts)) => MissReason::Changed(differences(&old.parts, parts)),
            _ => MissReason::Changed(Vec::new()),
        }
    }

    /// The content of a node's blob, if the node selects an instance.
    pub(super) fn selection(&self, node: usize, blob: Option<millrace_types::BlobRef>) -> Option<bytes::Bytes> {
        let blob = blob.filter(|_| self.selectors.contains(&node))?;
        self.store.blob(&blob).ok()
    }
}
