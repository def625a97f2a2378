//! The instance that a reference such as `train.model[best]` means, once the selecting step has
//! run.

use std::collections::{BTreeMap, HashMap};

use millrace_types::{CanonicalJson, PortName};
use serde_json::Value;

use crate::graph::{Item, Node};

/// The matrix values that selecting nodes have chosen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selections(HashMap<usize, BTreeMap<String, Value>>);

impl Selections {
    /// Records the selection of a node: the field `instance` of its blob, a JSON object with matrix
    /// values. A blob without it selects nothing.
    pub(super) fn insert(&mut self, selector: usize, blob: &[u8]) {
        let selection: Option<Value> = serde_json::from_slice(blob).ok();
        let instance = selection.as_ref().and_then(|selection| selection.get("instance")?.as_object());
        if let Some(instance) = instance {
            let matrix = instance.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            self.0.insert(selector, matrix);
        }
    }

    /// The selected matrix values by the label of the node that selected them, in the form that
    /// they have in the labels of instances: `[l2=0.01]`.
    pub(super) fn labels(&self, nodes: &[Node]) -> BTreeMap<String, String> {
        let label = |(selector, matrix): (&usize, &BTreeMap<String, Value>)| {
            let wanted = canonical(matrix);
            let node = nodes.iter().find(|node| !node.matrix.is_empty() && canonical(&node.matrix) == wanted)?;
            let values = &node.label[crate::event::step_of(&node.label).len()..];
            Some((nodes[*selector].label.clone(), values.to_owned()))
        };
        self.0.iter().filter_map(label).collect()
    }

    /// The node and the port that an item refers to; `None` for a source, and while the selection
    /// is not known.
    pub(crate) fn resolve<'i>(&self, nodes: &[Node], item: &'i Item) -> Option<(usize, &'i PortName)> {
        match item {
            Item::Source(_) => None,
            Item::Output { node, port } => Some((*node, port)),
            Item::Selected { selector, candidates, port, .. } => {
                let wanted = canonical(self.0.get(selector)?);
                let node = candidates.iter().copied().find(|node| canonical(&nodes[*node].matrix) == wanted)?;
                Some((node, port))
            }
        }
    }
}

/// Matrix values in a form in which `1` and `1.0` are equal.
fn canonical(matrix: &BTreeMap<String, Value>) -> CanonicalJson {
    CanonicalJson::new(&Value::Object(matrix.clone().into_iter().collect()))
}
