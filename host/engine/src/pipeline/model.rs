//! A pipeline as written, with the span of everything in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_tables::read::Format;
use millrace_types::{DataType, DeclaredLimits, PortName, StepName, Uses};
use serde_json::Value;

use super::value::Located;
use crate::diagnostic::{PipelineFile, Span};

/// A source of data.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub name: StepName,
    /// The span of its definition.
    pub span: Span,
    /// The files, relative to `folder`; a glob may match several.
    pub path: (String, Span),
    /// The folder of the file that defines it.
    pub folder: PathBuf,
    /// The format, if given; otherwise the file name decides.
    pub format: Option<Format>,
    /// The columns to read, if not all.
    pub columns: Option<Vec<(String, Span)>>,
    /// A condition on rows.
    pub filter: Option<(String, Span)>,
    /// Field values that count as missing.
    pub missing: Option<Vec<String>>,
    /// Types that are given instead of inferred.
    pub types: BTreeMap<String, (DataType, Span)>,
    /// Rows of a part.
    pub part_rows: Option<usize>,
    /// The byte between the fields of a CSV file.
    pub delimiter: Option<u8>,
    /// Whether the source may have no rows.
    pub allow_empty: bool,
}

/// Whether a cached result is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CachePolicy {
    /// Always.
    #[default]
    On,
    /// Never; results are stored for the steps that follow.
    Off,
    /// If it is not older than this.
    MaxAge(Duration),
}

/// One use of a component.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: StepName,
    /// Where it is defined.
    pub span: Span,
    /// The component: `std:…`, `path:…`.
    pub uses: (Uses, Span),
    /// The folder of the file that defines it.
    pub folder: PathBuf,
    /// The connected inputs; without a port in the short form `input = …`, which means the
    /// step's mapped or first port.
    pub inputs: Vec<(Option<PortName>, String, Span)>,
    /// Its params, before `${…}` is substituted.
    pub params: Located,
    /// Its matrix: names and values.
    pub matrix: Vec<(String, Vec<Value>, Span)>,
    /// Its limits.
    pub limits: DeclaredLimits,
    /// What a component with WASI may read besides its inputs.
    pub grants: StepGrants,
    /// Whether a cached result is accepted.
    pub cache: CachePolicy,
}

/// Grants of a step besides its inputs.
#[derive(Debug, Clone, Default)]
pub struct StepGrants {
    /// Folders to read, relative to the step's.
    pub read: Vec<(String, Span)>,
    /// Names of variables.
    pub env: Vec<(String, Span)>,
}

/// A file to write.
#[derive(Debug, Clone)]
pub struct Export {
    /// The path, relative to `folder`.
    pub path: String,
    /// The folder of the file that defines it.
    pub folder: PathBuf,
    /// The artifact.
    pub reference: String,
    /// The span in the pipeline file that names it.
    pub span: Span,
}

/// A param of the pipeline.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Where it is defined.
    pub span: Span,
    /// Its type, if given: `float`, `int`, `string`, `bool`, `list`.
    pub ty: Option<String>,
    /// Its default value.
    pub default: Option<Value>,
    /// Least value.
    pub min: Option<f64>,
    /// Greatest value.
    pub max: Option<f64>,
    /// Its documentation.
    pub doc: Option<String>,
}

/// A pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// The file that was given.
    pub file: Arc<PipelineFile>,
    /// All files that it was read from.
    pub files: Vec<Arc<PipelineFile>>,
    /// The params that can be set.
    pub params: Vec<Param>,
    /// The sources.
    pub sources: Vec<Source>,
    /// The steps.
    pub steps: Vec<Step>,
    /// The files to write.
    pub exports: Vec<Export>,
}
