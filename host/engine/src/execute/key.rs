//! From a node and its inputs to the key and the spec of a task.
//!
//! Both are built here from the same values, so that a task receives nothing that its key does not
//! cover.

use std::sync::Arc;

use millrace_types::{
    ActionKey, BlobRef, CanonicalJson, ColumnName, ColumnParts, Content, InputItem, InputParts, ItemParts, KeyParts,
    OutputPlan, Part, Phase, PortKind, PortName, Schema, StepPlan, TablePart, TaskInput, TaskSpec,
};

use crate::graph::Node;

/// An item on a port, as a task sees it.
pub(super) enum VisibleItem {
    Table { schema: Schema, parts: Vec<Arc<Part>> },
    Blob(BlobRef),
}

/// A port with its items, as a task sees it.
pub(super) struct VisiblePort {
    pub(super) port: PortName,
    pub(super) items: Vec<(Option<CanonicalJson>, VisibleItem)>,
}

/// Everything that a task sees.
pub(super) struct TaskInputs {
    pub(super) ports: Vec<VisiblePort>,
    /// In `merge`: the results of the `partial` tasks, in place of the mapped port.
    pub(super) partials: Option<(PortName, Vec<BlobRef>)>,
}

/// A table on a port.
pub(super) type PortTable = (PortName, Schema, Vec<Arc<Part>>);

impl TaskInputs {
    /// The rows of all tables.
    pub(super) fn rows(&self) -> u64 {
        let items = self.ports.iter().flat_map(|port| &port.items);
        let rows = items.map(|(_, item)| match item {
            VisibleItem::Table { parts, .. } => parts.iter().map(|part| part.rows).sum(),
            VisibleItem::Blob(_) => 0,
        });
        rows.sum()
    }

    /// The tables on ports that carry one item: outputs are assembled with them.
    pub(super) fn into_tables(self) -> Vec<PortTable> {
        let table = |VisiblePort { port, mut items }: VisiblePort| match (items.len(), items.pop()) {
            (1, Some((_, VisibleItem::Table { schema, parts }))) => Some((port, schema, parts)),
            _ => None,
        };
        self.ports.into_iter().filter_map(table).collect()
    }
}

/// Key parts, key and spec of a task.
pub(super) fn task(
    node: &Node,
    plan: &StepPlan,
    phase: Phase,
    TaskInputs { ports, partials }: &TaskInputs,
) -> (KeyParts, ActionKey, TaskSpec) {
    let mut inputs = Vec::with_capacity(ports.len());
    let mut specs = Vec::with_capacity(ports.len());
    for VisiblePort { port, items } in ports {
        let reads = plan.reads.iter().find(|(name, _)| name == port).map_or(&[][..], |(_, columns)| columns);
        let (parts_of, items_of) = items.iter().map(|(instance, item)| visible(instance.as_ref(), item, reads)).unzip();
        inputs.push(InputParts { port: port.clone(), items: parts_of });
        specs.push(TaskInput { port: port.clone(), items: items_of });
    }
    let mut partial_blobs = Vec::new();
    if let Some((port, blobs)) = partials {
        let content = Content::Partials(blobs.iter().map(|blob| blob.digest).collect());
        inputs.push(InputParts { port: port.clone(), items: vec![ItemParts { instance: None, content }] });
        inputs.sort_by(|a, b| a.port.cmp(&b.port));
        partial_blobs.clone_from(blobs);
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
        key,
        grants: node.granted.grants.clone(),
        params: node.params.as_str().to_owned(),
        phase,
        inputs: specs,
        mapped: node.inputs.iter().find(|input| input.port.mapped).map(|input| input.port.name.clone()),
        partials: partial_blobs,
        outputs: outputs.collect(),
        limits: node.limits,
    };
    (parts, key, spec)
}

/// An item in the key and in the spec: the columns that the plan reads, and nothing else.
fn visible(instance: Option<&CanonicalJson>, item: &VisibleItem, reads: &[ColumnName]) -> (ItemParts, InputItem) {
    let label = instance.cloned().unwrap_or_default().as_str().to_owned();
    let (content, item) = match item {
        VisibleItem::Blob(blob) => (Content::Blob(blob.digest), InputItem::Blob { instance: label, blob: *blob }),
        VisibleItem::Table { schema, parts } => {
            let read: Vec<(usize, _)> = reads.iter().filter_map(|name| schema.find(name.as_str())).collect();
            let fields = read.iter().map(|(_, field)| (*field).clone()).collect();
            let reduced = |part: &Arc<Part>| TablePart {
                rows: part.rows,
                columns: read.iter().map(|(index, _)| part.columns[*index].clone()).collect(),
            };
            let columns = read.iter().map(|(index, field)| ColumnParts {
                name: field.name.clone(),
                data_type: field.data_type.clone(),
                nullable: field.nullable,
                chunks: parts.iter().map(|part| part.columns[*index].digest()).collect(),
            });
            let rows = parts.iter().map(|part| part.rows).collect();
            let content = Content::Table { rows, columns: columns.collect() };
            (content, InputItem::Table { instance: label, fields, parts: parts.iter().map(reduced).collect() })
        }
    };
    (ItemParts { instance: instance.cloned(), content }, item)
}
