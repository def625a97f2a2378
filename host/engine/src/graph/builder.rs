//! The state that the passes over a pipeline share.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::model::Node;
use crate::diagnostic::Diagnostic;
use crate::pipeline::Pipeline;

/// A graph that is being built, and the errors so far.
pub(super) struct Builder<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) params: &'a BTreeMap<String, Value>,
    pub(super) params_files: &'a [PathBuf],
    pub(super) store: PathBuf,
    pub(super) nodes: Vec<Node>,
    /// The nodes of each step, by the index of the step.
    pub(super) of_step: Vec<Vec<usize>>,
    pub(super) errors: Vec<Diagnostic>,
}
