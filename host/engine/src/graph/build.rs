//! From a pipeline to its graph: everything that can be known without reading data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::builder::Builder;
use super::model::Graph;
use crate::components::{Components, Used};
use crate::diagnostic::Diagnostic;
use crate::grants::Granted;
use crate::pipeline::{Pipeline, Scope, Source};

/// Expands the matrix of a pipeline and resolves its references.
///
/// # Errors
/// Everything that is wrong with names, connections and components.
pub fn build(
    pipeline: &Pipeline,
    params: &BTreeMap<String, Value>,
    params_files: &[PathBuf],
    components: &mut Components,
) -> Result<Graph, Vec<Diagnostic>> {
    let mut builder = Builder {
        pipeline,
        params,
        params_files,
        store: components.store().root().to_owned(),
        nodes: Vec::with_capacity(pipeline.steps.len()),
        of_step: vec![Vec::new(); pipeline.steps.len()],
        errors: Vec::new(),
    };
    let sources = builder.sources();
    let used: Vec<Option<Arc<Used>>> = pipeline
        .steps
        .iter()
        .map(|step| {
            let loaded = components.load(&step.uses.0, &step.folder, &step.uses.1);
            loaded.map_err(|error| builder.errors.push(error)).ok()
        })
        .collect();
    let Some(order) = builder.order() else { return Err(builder.errors) };
    for index in order {
        if let Some(used) = &used[index] {
            match Granted::find(components.store(), &pipeline.steps[index]) {
                Ok(granted) => builder.step(index, used, &Arc::new(granted)),
                Err(errors) => builder.errors.extend(errors),
            }
        }
    }
    // A step with an error has no nodes, which must not be reported as another error.
    let exports = if builder.errors.is_empty() { builder.exports(&sources) } else { Vec::new() };
    if !builder.errors.is_empty() {
        return Err(builder.errors);
    }
    let mut nodes = builder.nodes;
    for index in (0..nodes.len()).rev() {
        let rank = nodes[index].rank + 1;
        let before: Vec<usize> =
            nodes[index].inputs.iter().flat_map(|input| &input.items).flat_map(|(_, item)| item.nodes()).collect();
        for node in before {
            nodes[node].rank = nodes[node].rank.max(rank);
        }
    }
    Ok(Graph { sources, nodes, exports })
}

impl Builder<'_> {
    fn sources(&mut self) -> Vec<Source> {
        let scope = Scope { params: self.params.clone(), matrix: BTreeMap::new() };
        let mut sources = self.pipeline.sources.clone();
        for source in &mut sources {
            for (text, span) in [Some(&mut source.path), source.filter.as_mut()].into_iter().flatten() {
                match scope.text(text) {
                    Ok(filled) => *text = filled,
                    Err(error) => self.errors.push(Diagnostic::new(error.to_string()).at(span, "here")),
                }
            }
        }
        sources
    }
}
