//! The instances of a step: its matrix, joined with those of its inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_types::{CanonicalJson, StepName, bounds};
use serde_json::Value;

use super::builder::Builder;
use super::model::{Node, NodeInput};
use crate::components::Used;
use crate::diagnostic::Diagnostic;
use crate::grants::Granted;
use crate::pipeline::{Scope, Step, substitute};

/// Matrix values, and the inputs under them.
type Instance = (BTreeMap<String, Value>, Vec<NodeInput>);

impl Builder<'_> {
    /// Adds the instances of a step.
    pub(super) fn step(&mut self, index: usize, used: &Arc<Used>, granted: &Arc<Granted>) {
        let step = &self.pipeline.steps[index];
        let manifest = &used.manifest;
        for (i, (name, _, span)) in step.matrix.iter().enumerate() {
            if step.matrix[..i].iter().any(|(known, ..)| known == name) {
                self.errors.push(Diagnostic::new(format!("the matrix has `{name}` twice")).at(span, "here"));
            }
        }
        let combinations = step.matrix.iter().try_fold(1usize, |all, (_, values, _)| all.checked_mul(values.len()));
        if combinations.is_none_or(|all| all > bounds::INSTANCES) {
            self.errors.push(too_many(step));
            return;
        }
        let errors = self.errors.len();
        let Some(instances) = self.instances(step, used) else { return };
        self.check_connected(step, used);
        if self.errors.len() > errors {
            return;
        }
        if instances.is_empty() {
            let error = Diagnostic::new(format!(
                "no instance of `{}` is left: its inputs have no matrix values in common",
                step.name
            ));
            self.errors.push(error.at(&step.span, "this step"));
        }
        for (matrix, mut inputs) in instances {
            let scope = Scope { params: self.params.clone(), matrix: matrix.clone() };
            let mut wrong = Vec::new();
            let params = substitute(&step.params.value, &scope, "", &mut wrong);
            for (path, message) in wrong {
                let span = step.params.span(&path).unwrap_or(&step.span);
                self.errors.push(Diagnostic::new(message).at(span, "here"));
            }
            inputs.sort_by(|a, b| a.port.name.cmp(&b.port.name));
            let limits = step.limits.or(manifest.limits).or_default();
            self.of_step[index].push(self.nodes.len());
            self.nodes.push(Node {
                step: step.name.clone(),
                definition: index,
                label: label(&step.name, &matrix),
                matrix,
                params: CanonicalJson::new(&params),
                used: used.clone(),
                limits,
                granted: granted.clone(),
                cache: step.cache,
                inputs,
                rank: 0,
            });
        }
    }

    /// The matrix values and inputs of each instance of a step; `None` if there are too many.
    fn instances(&mut self, step: &Step, used: &Used) -> Option<Vec<Instance>> {
        let mut instances: Vec<Instance> = Vec::new();
        for matrix in own_matrix(step) {
            let scope = Scope { params: self.params.clone(), matrix: matrix.clone() };
            let mut partial = vec![(matrix, Vec::<NodeInput>::new())];
            for (port, text, span) in &step.inputs {
                let Some(port) = self.input_port(step, used, port.as_ref(), span) else { continue };
                let text = match scope.text(text) {
                    Ok(text) => text,
                    Err(error) => {
                        self.errors.push(Diagnostic::new(error.to_string()).at(span, "here"));
                        continue;
                    }
                };
                let Some(choices) = self.resolve(&text, span, &port) else { continue };
                let mut joined = Vec::new();
                for (matrix, inputs) in &partial {
                    for (of_input, items) in &choices {
                        let Some(matrix) = join(matrix, of_input) else { continue };
                        if joined.len() >= bounds::INSTANCES {
                            self.errors.push(too_many(step));
                            return None;
                        }
                        let mut inputs = inputs.clone();
                        inputs.push(NodeInput { port: port.clone(), items: items.clone() });
                        joined.push((matrix, inputs));
                    }
                }
                partial = joined;
            }
            instances.extend(partial);
            if instances.len() > bounds::INSTANCES {
                self.errors.push(too_many(step));
                return None;
            }
        }
        Some(instances)
    }
}

/// The union of both sets of values, unless they contradict each other.
fn join(a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) -> Option<BTreeMap<String, Value>> {
    if a.iter().any(|(name, value)| b.get(name).is_some_and(|other| other != value)) {
        return None;
    }
    Some(a.iter().chain(b).map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The label of an instance: `train[l2=0.01]`.
fn label(step: &StepName, matrix: &BTreeMap<String, Value>) -> String {
    if matrix.is_empty() {
        return step.to_string();
    }
    let value = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs: Vec<String> = matrix.iter().map(|(name, of)| format!("{name}={}", value(of))).collect();
    format!("{step}[{}]", pairs.join(","))
}

fn too_many(step: &Step) -> Diagnostic {
    let message = format!("the step `{}` has more than {} instances", step.name, bounds::INSTANCES);
    Diagnostic::new(message).at(&step.span, "this step")
}

/// Every combination of the values of a step's own matrix.
fn own_matrix(step: &Step) -> Vec<BTreeMap<String, Value>> {
    let mut all = vec![BTreeMap::new()];
    for (name, values, _) in &step.matrix {
        let with = |matrix: &BTreeMap<String, Value>, value: &Value| {
            let mut matrix = matrix.clone();
            matrix.insert(name.clone(), value.clone());
            matrix
        };
        all = all.iter().flat_map(|matrix| values.iter().map(move |value| with(matrix, value))).collect();
    }
    all
}
