//! The options of a run, and the errors that prevent it.

use std::path::PathBuf;

use millrace_store::Store;
use millrace_types::{PlanInput, StepPlan};
use millrace_wasm::{Cancel, ComponentError};

use super::planner::AskPlan;
use crate::components::Components;
use crate::diagnostic::{Diagnostic, narrow};
use crate::graph::{self, Graph, Node};
use crate::pipeline::{self, Overrides, Pipeline, Step};

/// Whether to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    /// Run the tasks that have to run.
    Run,
    /// Only report which tasks would run.
    Plan,
}

/// Where tasks are computed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Executor {
    /// In this process.
    #[default]
    Local,
    /// Each in a process of its own.
    Process {
        /// The program, which is called as `PROGRAM exec KEY --store DIR`.
        program: PathBuf,
        /// Further arguments, such as those that name the remote store.
        arguments: Vec<String>,
    },
}

/// The options of a run.
#[derive(Clone)]
pub struct Options {
    /// The store of its results.
    pub store: Store,
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// Params that are set from outside.
    pub overrides: Overrides,
    /// Tasks that run, and threads that read, at a time.
    pub jobs: usize,
    /// Bytes that all guests may use together.
    pub memory: u64,
    /// Whether no further task is begun after the first failure.
    pub fail_fast: bool,
    /// Whether to run.
    pub mode: RunMode,
    /// Where tasks are computed.
    pub executor: Executor,
    /// The request to stop.
    pub cancel: Cancel,
}

/// Why there was no run.
#[derive(Debug)]
pub enum RunError {
    /// The pipeline or its data is not valid.
    Invalid(Vec<Diagnostic>),
    /// The system refused something that the run cannot do without.
    System(String),
}

/// A pipeline with its graph and components.
pub struct Loaded {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Its graph.
    pub graph: Graph,
    /// Its components.
    pub components: Components,
}

/// Reads a pipeline and builds its graph, without reading data.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(options: &Options) -> Result<Loaded, RunError> {
    let mut components = Components::new(options.store.clone());
    components.prepare();
    let pipeline = pipeline::read(&options.pipeline).map_err(RunError::Invalid)?;
    let params = pipeline.values(&options.overrides).map_err(RunError::Invalid)?;
    let graph =
        graph::build(&pipeline, &params, &options.overrides.files, &mut components).map_err(RunError::Invalid)?;
    Ok(Loaded { pipeline, graph, components })
}

impl AskPlan for Loaded {
    fn ask(&self, node: usize, inputs: &[PlanInput]) -> Result<StepPlan, Vec<Diagnostic>> {
        let node = &self.graph.nodes[node];
        let step = &self.pipeline.steps[node.definition];
        let refused = |error: ComponentError| {
            let message = format!("`{}` cannot be used: {error}", node.used.uses);
            vec![Diagnostic::new(message).at(&step.uses.1, "this component")]
        };
        let planned = self.components.plan(&node.used, node.params.as_str(), inputs).map_err(refused)?;
        planned.map_err(|problems| problems.into_iter().map(|problem| explain(node, step, problem)).collect())
    }
}

/// An error that a step reported, with the span in the pipeline file that it is about.
fn explain(node: &Node, step: &Step, problem: millrace_types::Problem) -> Diagnostic {
    let span = match &problem.param {
        Some(path) => step.params.span(path).unwrap_or(&step.span).clone(),
        None => step.span.clone(),
    };
    let span = match problem.span {
        Some((start, end)) => narrow(&span, (start as usize, end as usize)),
        None => span,
    };
    let error = Diagnostic::new(format!("{}: {}", node.step, problem.message)).at(&span, "here");
    match &problem.missing {
        Some(missing) => error.suggest(missing, problem.candidates.iter().map(String::as_str)),
        None => error,
    }
}
