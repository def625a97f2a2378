//! From a node and what its inputs are by now to the key and the spec of a task.
//!
//! Both are made here from the same values, so that a task can be given nothing
//! that its key does not know.

use std::sync::Arc;

use millrace_types::{
    ActionKey, BlobRef, CanonicalJson, ColumnParts, Content, InputParts, ItemParts, KeyParts, Part, Phase, PortName,
    Schema,
};
use millrace_wasm::{InputItem, OutputPlan, PortKind, StepPlan, TablePart, TaskInput, TaskSpec};

use crate::graph::Node;

/// An item on a port, as a task sees it.
pub(super) enum Seen {
    Table { schema: Schema, parts: Vec<Arc<Part>> },
    Blob(BlobRef),
}

/// A port with what is on it.
pub(super) struct SeenPort {
    pub(super) port: PortName,
    pub(super) items: Vec<(Option<CanonicalJson>, Seen)>,
}

/// Key parts, key and spec of a task. `partials` stand in for the mapped port when
/// they are merged.
pub(super) fn task(
    node: &Node,
    plan: &StepPlan,
    phase: Phase,
    seen: &[SeenPort],
    partials: Option<(&PortName, Vec<BlobRef>)>,
) -> (KeyParts, ActionKey, TaskSpec) {
    let mut inputs = Vec::with_capacity(seen.len());
    let mut specs = Vec::with_capacity(seen.len());
    for SeenPort { port, items } in seen {
        let reads = plan.reads.iter().find(|(name, _)| name == port).map_or(&[][..], |(_, columns)| columns);
        let mut parts_of = Vec::with_capacity(items.len());
        let mut items_of = Vec::with_capacity(items.len());
        for (instance, item) in items {
            let label = instance.clone().unwrap_or_default().as_str().to_owned();
            let content = match item {
                Seen::Blob(blob) => {
                    items_of.push(InputItem::Blob { instance: label, blob: *blob });
                    Content::Blob(blob.digest)
                }
                Seen::Table { schema, parts } => {
                    let read: Vec<(usize, _)> = reads.iter().filter_map(|name| schema.find(name.as_str())).collect();
                    let fields = read.iter().map(|(_, field)| (*field).clone()).collect();
                    let cut = |part: &Arc<Part>| TablePart {
                        rows: part.rows,
                        columns: read.iter().map(|(place, _)| part.columns[*place].clone()).collect(),
                    };
                    let columns = read.iter().map(|(place, field)| ColumnParts {
                        name: field.name.clone(),
                        data_type: field.data_type.clone(),
                        nullable: field.nullable,
                        chunks: parts.iter().map(|part| part.columns[*place].digest()).collect(),
                    });
                    let content = Content::Table {
                        rows: parts.iter().map(|part| part.rows).collect(),
                        columns: columns.collect(),
                    };
                    items_of.push(InputItem::Table { instance: label, fields, parts: parts.iter().map(cut).collect() });
                    content
                }
            };
            parts_of.push(ItemParts { instance: instance.clone(), content });
        }
        inputs.push(InputParts { port: port.clone(), items: parts_of });
        specs.push(TaskInput { port: port.clone(), items: items_of });
    }
    let mut partial_blobs = Vec::new();
    if let Some((port, blobs)) = partials {
        let content = Content::Partials(blobs.iter().map(|blob| blob.digest).collect());
        inputs.push(InputParts { port: port.clone(), items: vec![ItemParts { instance: None, content }] });
        inputs.sort_by(|a, b| a.port.cmp(&b.port));
        partial_blobs = blobs;
    }
    let outputs = node.used.manifest.outputs.iter().map(|port| match port.kind {
        PortKind::Blob => OutputPlan::Blob { port: port.name.clone() },
        PortKind::Table => {
            let planned = plan.outputs.iter().find(|(name, _)| *name == port.name);
            OutputPlan::Table { port: port.name.clone(), fields: planned.and_then(|(_, fields)| fields.clone()) }
        }
    });
    let grants = node.granted.digests.clone();
    let parts = KeyParts { component: node.used.digest, params: node.params.clone(), phase, inputs, grants };
    let key = parts.key();
    let spec = TaskSpec {
        seed: *key.as_bytes(),
        grants: node.granted.grants.clone(),
        params: node.params.as_str().to_owned(),
        phase,
        inputs: specs,
        mapped: node.inputs.iter().find(|input| input.port.mapped).map(|input| input.port.name.clone()),
        partials: partial_blobs,
        outputs: outputs.collect(),
        limits: node.limits,
        progress: None,
    };
    (parts, key, spec)
}
