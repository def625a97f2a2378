//! References to sources and outputs, and the ports that they connect.

use std::collections::{BTreeMap, HashMap};

use millrace_types::{CanonicalJson, Port, PortKind, PortName, StepName};
use serde_json::Value;

use super::builder::Builder;
use super::model::Item;
use crate::components::Used;
use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::{Pick, Reference, Step};

/// Matrix values, and the items on a port under them.
pub(super) type Alternative = (BTreeMap<String, Value>, Vec<(Option<CanonicalJson>, Item)>);

/// The items that a reference means.
pub(super) enum ResolvedItems {
    /// One item for each instance.
    Each(Vec<(BTreeMap<String, Value>, Item)>),
    /// All instances on one port.
    Gathered(Vec<(BTreeMap<String, Value>, Item)>),
}

impl Builder<'_> {
    /// The port that an input connects.
    pub(super) fn input_port(
        &mut self,
        step: &Step,
        used: &Used,
        name: Option<&PortName>,
        span: &Span,
    ) -> Option<Port> {
        let ports = &used.manifest.inputs;
        let found = match name {
            Some(name) => ports.iter().find(|port| port.name == *name),
            None => ports.iter().find(|port| port.mapped).or_else(|| ports.first()),
        };
        if found.is_none() {
            let error = match name {
                Some(name) => Diagnostic::new(format!("`{}` has no input `{name}`", step.uses.0))
                    .at(span, "connected here")
                    .suggest(name.as_str(), ports.iter().map(|port| port.name.as_str())),
                None => Diagnostic::new(format!("`{}` has no inputs", step.uses.0)).at(span, "connected here"),
            };
            self.errors.push(error);
        }
        found.cloned()
    }

    /// Reports ports that are connected twice, or not at all.
    pub(super) fn check_connected(&mut self, step: &Step, used: &Used) {
        let ports = &used.manifest.inputs;
        let default = ports.iter().find(|port| port.mapped).or_else(|| ports.first());
        let mut seen: HashMap<&PortName, &Span> = HashMap::new();
        for (name, _, span) in &step.inputs {
            let Some(name) = name.as_ref().or_else(|| default.map(|port| &port.name)) else { continue };
            if let Some(first) = seen.insert(name, span) {
                let error = Diagnostic::new(format!("the input `{name}` of `{}` is connected twice", step.name));
                self.errors.push(error.at(first, "the first").at(span, "the second"));
            }
        }
        for port in ports.iter().filter(|port| !port.optional && !seen.contains_key(&port.name)) {
            let error = Diagnostic::new(format!("the input `{}` of `{}` is not connected", port.name, step.name));
            self.errors.push(error.at(&step.span, "this step").help(format!("it takes {}", port.doc)));
        }
    }

    /// The items that a reference means, by matrix values.
    pub(super) fn resolve(&mut self, text: &str, span: &Span, port: &Port) -> Option<Vec<Alternative>> {
        let found = self.items(text, span)?;
        let (kind, resolved) = found;
        if kind != port.kind {
            let name = |kind| if kind == PortKind::Table { "a table" } else { "a blob" };
            let message =
                format!("the input `{}` takes {}, and `{text}` is {}", port.name, name(port.kind), name(kind));
            self.errors.push(Diagnostic::new(message).at(span, "connected here"));
            return None;
        }
        match resolved {
            ResolvedItems::Gathered(items) if port.many => {
                let items = items.into_iter().map(|(matrix, item)| (Some(matrix_json(&matrix)), item)).collect();
                Some(vec![(BTreeMap::new(), items)])
            }
            ResolvedItems::Gathered(_) => {
                let message = format!("the input `{}` takes one item, and `{text}` is all instances", port.name);
                self.errors.push(Diagnostic::new(message).at(span, "connected here"));
                None
            }
            ResolvedItems::Each(items) => {
                let instance = |matrix: &BTreeMap<String, Value>| port.many.then(|| matrix_json(matrix));
                Some(
                    items
                        .into_iter()
                        .map(|(matrix, item)| {
                            let instance = instance(&matrix);
                            (matrix, vec![(instance, item)])
                        })
                        .collect(),
                )
            }
        }
    }

    /// The items of a reference, and whether they are tables or blobs.
    pub(super) fn items(&mut self, text: &str, span: &Span) -> Option<(PortKind, ResolvedItems)> {
        let reference = match Reference::parse(text) {
            Ok(reference) => reference,
            Err(message) => {
                let error = Diagnostic::new(format!("`{text}` is not a valid reference: {message}")).at(span, "here");
                self.errors.push(error.help("write `SOURCE`, `STEP.PORT`, `STEP.PORT[*]` or `STEP.PORT[CHOICE]`"));
                return None;
            }
        };
        let name = &reference.name;
        if let Some(source) = self.pipeline.sources.iter().position(|source| source.name == *name) {
            if reference.port.is_some() || reference.pick != Pick::Each {
                let error = Diagnostic::new(format!("the source `{name}` has neither ports nor instances"));
                self.errors.push(error.at(span, "here"));
                return None;
            }
            return Some((PortKind::Table, ResolvedItems::Each(vec![(BTreeMap::new(), Item::Source(source))])));
        }
        let Some(step) = self.pipeline.steps.iter().position(|step| step.name == *name) else {
            let sources = self.pipeline.sources.iter().map(|source| source.name.as_str());
            let names = sources.chain(self.pipeline.steps.iter().map(|step| step.name.as_str()));
            let error = Diagnostic::new(format!("there is no source or step `{name}`")).at(span, "not known");
            self.errors.push(error.suggest(name.as_str(), names));
            return None;
        };
        // A step with an error has no nodes; the error is reported already.
        let nodes = self.of_step[step].clone();
        let first = *nodes.first()?;
        let (kind, port) = self.output_port(first, reference.port.as_ref(), span)?;
        let with_matrix =
            |node: &usize| (self.nodes[*node].matrix.clone(), Item::Output { node: *node, port: port.clone() });
        Some((
            kind,
            match reference.pick {
                Pick::Each => ResolvedItems::Each(nodes.iter().map(with_matrix).collect()),
                Pick::All => ResolvedItems::Gathered(nodes.iter().map(with_matrix).collect()),
                Pick::Where(wanted) => ResolvedItems::Each(self.with_values(name, &nodes, &wanted, &port, span)?),
                Pick::Chosen(selector) => self.selected_by(&selector, nodes, &port, span)?,
            },
        ))
    }

    /// The instances of a step that have these matrix values.
    fn with_values(
        &mut self,
        name: &StepName,
        nodes: &[usize],
        wanted: &BTreeMap<String, Value>,
        port: &PortName,
        span: &Span,
    ) -> Option<Vec<(BTreeMap<String, Value>, Item)>> {
        let fits = |node: &&usize| {
            let matrix = &self.nodes[**node].matrix;
            wanted.iter().all(|(name, value)| matrix.get(name).is_some_and(|found| selects(value, found)))
        };
        let picked: Vec<usize> = nodes.iter().filter(fits).copied().collect();
        if picked.is_empty() {
            let labels: Vec<&str> = nodes.iter().take(12).map(|node| self.nodes[*node].label.as_str()).collect();
            let error = Diagnostic::new(format!("no instance of `{name}` has these matrix values"));
            let error = error.at(span, "here").help(format!("there are `{}`", labels.join("`, `")));
            self.errors.push(error);
            return None;
        }
        // Values that the reference fixes no longer distinguish instances.
        let rest = |node: usize| {
            let mut matrix = self.nodes[node].matrix.clone();
            matrix.retain(|name, _| !wanted.contains_key(name));
            (matrix, Item::Output { node, port: port.clone() })
        };
        Some(picked.into_iter().map(rest).collect())
    }

    /// The instance of a step that another step selects.
    fn selected_by(
        &mut self,
        step: &StepName,
        nodes: Vec<usize>,
        port: &PortName,
        span: &Span,
    ) -> Option<ResolvedItems> {
        let found = self.pipeline.steps.iter().position(|known| known.name == *step);
        let Some(selector) = found.and_then(|index| self.of_step[index].first().copied()) else {
            if found.is_none() {
                let names = self.pipeline.steps.iter().map(|step| step.name.as_str());
                let error =
                    Diagnostic::new(format!("there is no step `{step}` to select an instance")).at(span, "not known");
                self.errors.push(error.suggest(step.as_str(), names));
            }
            return None;
        };
        let (kind, selector_port) = self.output_port(selector, None, span)?;
        if kind != PortKind::Blob || found.is_some_and(|index| self.of_step[index].len() != 1) {
            let message = format!("`{step}` does not select an instance: it has no single blob with a selection");
            self.errors.push(Diagnostic::new(message).at(span, "here").help("a step such as `std:best` does"));
            return None;
        }
        let selected = Item::Selected { selector, selector_port, candidates: nodes, port: port.clone() };
        Some(ResolvedItems::Each(vec![(BTreeMap::new(), selected)]))
    }

    /// The output that a reference names, or the only one.
    fn output_port(&mut self, node: usize, name: Option<&PortName>, span: &Span) -> Option<(PortKind, PortName)> {
        let node = &self.nodes[node];
        let outputs = &node.used.manifest.outputs;
        let metrics = "metrics";
        match name {
            Some(name) if name.as_str() == metrics => return Some((PortKind::Blob, name.clone())),
            Some(name) => {
                if let Some(port) = outputs.iter().find(|port| port.name == *name) {
                    return Some((port.kind, port.name.clone()));
                }
                let names = outputs.iter().map(|port| port.name.as_str()).chain([metrics]);
                let error = Diagnostic::new(format!("`{}` has no output `{name}`", node.step)).at(span, "not known");
                let error = error.suggest(name.as_str(), names);
                self.errors.push(error);
            }
            None => {
                if let [port] = outputs.as_slice() {
                    return Some((port.kind, port.name.clone()));
                }
                let names: Vec<String> = outputs.iter().map(|port| format!("`{}.{}`", node.step, port.name)).collect();
                let error = if names.is_empty() {
                    Diagnostic::new(format!("`{}` has no output except its metrics", node.step))
                        .help(format!("write `{}.metrics`", node.step))
                } else {
                    Diagnostic::new(format!("`{}` has several outputs", node.step))
                        .help(format!("write {}", names.join(" or ")))
                };
                self.errors.push(error.at(span, "which one?"));
            }
        }
        None
    }
}

fn matrix_json(matrix: &BTreeMap<String, Value>) -> CanonicalJson {
    CanonicalJson::new(&Value::Object(matrix.iter().map(|(name, value)| (name.clone(), value.clone())).collect()))
}

fn same_value(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

/// Whether a value in `[name=value]`, which has no quotes, means this matrix value.
fn selects(wanted: &Value, found: &Value) -> bool {
    same_value(wanted, found)
        || matches!(found, Value::String(text) if wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned) == *text)
}
