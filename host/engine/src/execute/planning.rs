//! Planning: what each node reads and makes, asked of its component before anything
//! runs, and of nodes behind tables that only a run knows as soon as they are known.

use std::sync::Arc;

use millrace_types::{Schema, Table};
use millrace_wasm::{PlanInput, PortKind, StepPlan};

use super::helper::{helper, joined};
use super::run::Run;
use super::say::explain;
use super::screen::Emit;
use super::state::{OutputState, TableState};
use super::{Loaded, Options};
use crate::assemble;
use crate::diagnostic::Diagnostic;

/// Nodes that a thread plans at a time: asking a component takes some 30 µs.
const AT_ONCE: usize = 32;

/// Plans with the schemas that sources may turn out to have, of each source any number:
/// what is wrong with all of them in the same words is wrong whatever the data say.
pub(super) fn check(options: &Options, loaded: &Loaded, possible: &[Vec<Schema>]) -> Result<(), Vec<Diagnostic>> {
    let mut certain: Option<Vec<Diagnostic>> = None;
    for world in 0..possible.iter().map(Vec::len).max().unwrap_or(0) {
        let table = |schema: &Schema| Arc::new(Table { schema: schema.clone(), parts: Vec::new() });
        let sources = possible.iter().map(|schemas| schemas.get(world).or(schemas.last()).map(table)).collect();
        let mut silent = |_| {};
        let wrong =
            Run::new(options, loaded, sources, None, Emit::Now(&mut silent)).plan_all().err().unwrap_or_default();
        let certain = certain.get_or_insert_with(|| wrong.clone());
        certain.retain(|error| wrong.contains(error));
        if certain.is_empty() {
            break;
        }
    }
    certain.filter(|certain| !certain.is_empty()).map_or(Ok(()), Err)
}

/// What a component answered, or why it cannot be used.
type Answer = Result<StepPlan, Vec<Diagnostic>>;

impl Loaded {
    /// Asks the component of a node.
    fn ask(&self, index: usize, inputs: &[PlanInput]) -> Answer {
        let node = &self.graph.nodes[index];
        let step = &self.pipeline.steps[node.definition];
        let refused = |error: millrace_wasm::ComponentError| {
            let message = format!("`{}` cannot be used: {error}", node.used.uses);
            vec![Diagnostic::new(message).at(&step.uses.1, "this component")]
        };
        let planned = self.components.plan(&node.used, node.params.as_str(), inputs).map_err(refused)?;
        planned.map_err(|problems| problems.into_iter().map(|problem| explain(node, step, problem)).collect())
    }
}

impl Run<'_> {
    /// Plans every node whose inputs have known schemas, before anything runs.
    pub(super) fn plan_all(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        // Nodes come after those that they read: one whose inputs are not known yet may
        // wait for those before it that nobody has asked.
        let mut asked = Vec::new();
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].plan.is_none()).collect::<Vec<_>>() {
            let mut question = self.question(node);
            if question.is_none() && !asked.is_empty() {
                errors.extend(self.ask_all(std::mem::take(&mut asked)));
                question = self.question(node);
            }
            asked.extend(question.map(|inputs| (node, inputs)));
        }
        errors.extend(self.ask_all(asked));
        // One mistake in a step with a matrix is one mistake.
        let mut seen: Vec<Diagnostic> = Vec::new();
        for error in errors {
            if !seen.contains(&error) {
                seen.push(error);
            }
        }
        if seen.is_empty() { Ok(()) } else { Err(seen) }
    }

    /// Plans a node if it can be: `Ok(false)` when an input is not known enough.
    pub(super) fn plan(&mut self, node: usize) -> Result<bool, Vec<Diagnostic>> {
        if self.nodes[node].plan.is_some() {
            return Ok(true);
        }
        let Some(inputs) = self.question(node) else { return Ok(false) };
        self.planned(node, self.loaded.ask(node, &inputs)?);
        Ok(true)
    }

    /// What the component of a node is to be told, when that is known.
    fn question(&self, node: usize) -> Option<Vec<PlanInput>> {
        let inputs = self.graph.nodes[node].inputs.iter().filter_map(|input| {
            let (_, item) = input.items.first()?;
            let schema = match input.port.kind {
                PortKind::Blob => Some(None),
                PortKind::Table => self.table(item).map(|view| Some(view.schema.clone())),
            };
            Some(schema.map(|schema| PlanInput { port: input.port.name.clone(), schema }))
        });
        inputs.collect()
    }

    /// Asks for nodes of which none waits for another, on as many threads as pay.
    fn ask_all(&mut self, questions: Vec<(usize, Vec<PlanInput>)>) -> Vec<Diagnostic> {
        let loaded = self.loaded;
        let ask = |piece: &[(usize, Vec<PlanInput>)]| -> Vec<Answer> {
            piece.iter().map(|(node, inputs)| loaded.ask(*node, inputs)).collect()
        };
        let size = questions.len().div_ceil(self.options.jobs).max(AT_ONCE);
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let mut pieces = questions.chunks(size);
            let first = pieces.next().unwrap_or_default();
            let others: Vec<_> = pieces.map(|piece| (piece, helper(scope, || ask(piece)))).collect();
            let mut answers = ask(first);
            // A thread that was lost has its part done here.
            answers.extend(others.into_iter().flat_map(|(piece, other)| joined(other).unwrap_or_else(|| ask(piece))));
            answers
        });
        let mut errors = Vec::new();
        for ((node, _), answer) in questions.into_iter().zip(answers) {
            match answer {
                Ok(plan) => self.planned(node, plan),
                Err(more) => errors.extend(more),
            }
        }
        errors
    }

    fn planned(&mut self, node: usize, plan: StepPlan) {
        let state = &mut self.nodes[node];
        for port in &self.graph.nodes[node].used.manifest.outputs {
            let output = match port.kind {
                PortKind::Blob => OutputState::Blob(None),
                PortKind::Table => {
                    let fields = plan.outputs.iter().find(|(name, _)| *name == port.name).and_then(|(_, f)| f.clone());
                    let schema = fields.as_ref().map(|fields| assemble::schema(fields));
                    OutputState::Table(TableState { fields, schema, ..TableState::default() })
                }
            };
            state.outputs.push((port.name.clone(), output));
        }
        state.plan = Some(Arc::new(plan));
    }
}
