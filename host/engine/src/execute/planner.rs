//! What every node reads and makes, asked of its component before anything runs.
//!
//! A planner needs a graph and the schemas of sources. It makes no tasks, emits no events and
//! knows nothing of a run: checks, graphs and runs use it alike. Nodes behind a table whose
//! schema only the run knows are planned when it is declared.

use std::sync::Arc;

use millrace_threads::in_chunks;
use millrace_types::{PlanInput, PortKind, PortName, Schema, StepPlan};

use super::needs::needs;
use super::selections::Selections;
use crate::assemble;
use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Item};
use crate::source::Need;

/// Nodes that a thread plans at least: asking a component takes some 30 µs.
const MIN_CHUNK: usize = 32;

/// Asks the component of a node for its plan.
pub(crate) trait AskPlan: Sync {
    /// The plan of a node with these inputs.
    ///
    /// # Errors
    /// What is wrong with this use of the component.
    fn ask(&self, node: usize, inputs: &[PlanInput]) -> Result<StepPlan, Vec<Diagnostic>>;
}

/// What is planned of a node.
#[derive(Default, Clone)]
struct NodePlan {
    plan: Option<Arc<StepPlan>>,
    /// The schemas of its output tables, as far as known.
    schemas: Vec<(PortName, Option<Schema>)>,
}

/// Plans a graph.
pub(crate) struct Planner<'a> {
    graph: &'a Graph,
    components: &'a dyn AskPlan,
    threads: usize,
    sources: Vec<Option<Schema>>,
    nodes: Vec<NodePlan>,
}

impl<'a> Planner<'a> {
    /// A planner that knows the schemas of some sources, and asks on at most `threads` threads.
    pub(crate) fn new(
        graph: &'a Graph,
        components: &'a dyn AskPlan,
        threads: usize,
        sources: Vec<Option<Schema>>,
    ) -> Self {
        Self { graph, components, threads, sources, nodes: vec![NodePlan::default(); graph.nodes.len()] }
    }

    /// Sets the schemas of sources. Plans stay if no known schema has changed.
    pub(crate) fn set_sources(&mut self, sources: Vec<Option<Schema>>) {
        let mut pairs = self.sources.iter().zip(&sources);
        if !pairs.all(|(known, new)| known.is_none() || known == new) {
            self.nodes = vec![NodePlan::default(); self.graph.nodes.len()];
        }
        self.sources = sources;
    }

    /// The plan of a node.
    pub(crate) fn plan_of(&self, node: usize) -> Option<&Arc<StepPlan>> {
        self.nodes[node].plan.as_ref()
    }

    /// Sets the schema of an output that only the run knows.
    pub(crate) fn declare(&mut self, node: usize, port: &PortName, schema: &Schema) {
        if let Some((_, known)) = self.nodes[node].schemas.iter_mut().find(|(name, _)| name == port) {
            *known = Some(schema.clone());
        }
    }

    /// Which columns of each source the planned nodes and the exports need.
    pub(crate) fn needs(&self) -> Vec<Need> {
        needs(self.graph, self.sources.len(), &|node| self.plan_of(node).map(|plan| &**plan))
    }

    /// Plans every node whose input schemas are known.
    ///
    /// # Errors
    /// The errors of all nodes together.
    pub(crate) fn plan_all(&mut self, selections: &Selections) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        // Nodes come after those that they read: one whose inputs are not known yet may depend
        // on the nodes before it that are about to be asked.
        let mut asked = Vec::new();
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].plan.is_none()).collect::<Vec<_>>() {
            let mut question = self.question(node, selections);
            if question.is_none() && !asked.is_empty() {
                errors.extend(self.ask_all(std::mem::take(&mut asked)));
                question = self.question(node, selections);
            }
            asked.extend(question.map(|inputs| (node, inputs)));
        }
        errors.extend(self.ask_all(asked));
        // One error in a step with a matrix is one error.
        let mut distinct: Vec<Diagnostic> = Vec::new();
        for error in errors {
            if !distinct.contains(&error) {
                distinct.push(error);
            }
        }
        if distinct.is_empty() { Ok(()) } else { Err(distinct) }
    }

    /// Plans a node if its input schemas are known.
    ///
    /// # Errors
    /// What is wrong with this use of the component.
    pub(crate) fn plan(
        &mut self,
        node: usize,
        selections: &Selections,
    ) -> Result<Option<Arc<StepPlan>>, Vec<Diagnostic>> {
        if self.nodes[node].plan.is_none() {
            let Some(inputs) = self.question(node, selections) else { return Ok(None) };
            let plan = self.components.ask(node, &inputs)?;
            self.planned(node, plan);
        }
        Ok(self.nodes[node].plan.clone())
    }

    fn schema(&self, item: &Item, selections: &Selections) -> Option<&Schema> {
        if let Item::Source(source) = item {
            return self.sources[*source].as_ref();
        }
        let (node, port) = selections.resolve(&self.graph.nodes, item)?;
        self.nodes[node].schemas.iter().find(|(name, _)| name == port)?.1.as_ref()
    }

    /// The inputs of a node as its component is told; `None` while a schema is not known.
    fn question(&self, node: usize, selections: &Selections) -> Option<Vec<PlanInput>> {
        let inputs = self.graph.nodes[node].inputs.iter().filter_map(|input| {
            let (_, item) = input.items.first()?;
            let schema = match input.port.kind {
                PortKind::Blob => Some(None),
                PortKind::Table => self.schema(item, selections).cloned().map(Some),
            };
            Some(schema.map(|schema| PlanInput { port: input.port.name.clone(), schema }))
        });
        inputs.collect()
    }

    /// Asks for the plans of nodes that do not depend on each other.
    fn ask_all(&mut self, questions: Vec<(usize, Vec<PlanInput>)>) -> Vec<Diagnostic> {
        let components = self.components;
        let ask = |chunk: &[(usize, Vec<PlanInput>)]| -> Vec<Result<StepPlan, Vec<Diagnostic>>> {
            chunk.iter().map(|(node, inputs)| components.ask(*node, inputs)).collect()
        };
        let answers = in_chunks(&questions, self.threads, MIN_CHUNK, ask);
        let mut errors = Vec::new();
        for ((node, _), answer) in questions.into_iter().zip(answers.into_iter().flatten()) {
            match answer {
                Ok(plan) => self.planned(node, plan),
                Err(more) => errors.extend(more),
            }
        }
        errors
    }

    fn planned(&mut self, node: usize, plan: StepPlan) {
        let outputs = &self.graph.nodes[node].used.manifest.outputs;
        let schema = |port: &PortName| {
            let planned = plan.outputs.iter().find(|(name, _)| name == port);
            planned.and_then(|(_, fields)| fields.as_deref()).map(assemble::schema)
        };
        let tables = outputs.iter().filter(|port| port.kind == PortKind::Table);
        let schemas = tables.map(|port| (port.name.clone(), schema(&port.name))).collect();
        self.nodes[node] = NodePlan { plan: Some(Arc::new(plan)), schemas };
    }
}

/// Plans with every combination of schemas that the sources may have. An error that all of
/// them share is an error whatever the data are.
///
/// # Errors
/// The errors that are certain.
pub(crate) fn check(
    graph: &Graph,
    components: &dyn AskPlan,
    threads: usize,
    possible: &[&[Schema]],
) -> Result<(), Vec<Diagnostic>> {
    let mut certain: Option<Vec<Diagnostic>> = None;
    for candidate in 0..possible.iter().map(|schemas| schemas.len()).max().unwrap_or(0) {
        let sources = possible.iter().map(|schemas| schemas.get(candidate).or(schemas.last()).cloned()).collect();
        let mut planner = Planner::new(graph, components, threads, sources);
        let errors = planner.plan_all(&Selections::default()).err().unwrap_or_default();
        let certain = certain.get_or_insert_with(|| errors.clone());
        certain.retain(|error| errors.contains(error));
        if certain.is_empty() {
            break;
        }
    }
    certain.filter(|certain| !certain.is_empty()).map_or(Ok(()), Err)
}
