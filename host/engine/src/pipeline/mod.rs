//! A pipeline as it is written: TOML with the place of everything in it.

mod param;
mod read;
mod reference;
pub(crate) mod schema;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_tables::read::Format;
use millrace_types::{ByteSize, DataType, Fuel, PortName, StepName};
use serde_json::Value;

pub use param::{Overrides, Scope, substitute};
pub use read::read;
pub use reference::{Pick, Reference, scalar};
pub use value::Located;

use crate::diagnostic::{Place, SourceFile};

/// Where data comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name.
    pub name: StepName,
    /// Where it is defined.
    pub place: Place,
    /// The files, relative to `folder`; a glob may match several.
    pub path: (String, Place),
    /// The folder of the file that defines it.
    pub folder: PathBuf,
    /// As given, else from the file names.
    pub format: Option<Format>,
    /// Which columns.
    pub columns: Option<Vec<(String, Place)>>,
    /// Which rows.
    pub filter: Option<(String, Place)>,
    /// What counts as missing.
    pub missing: Option<Vec<String>>,
    /// Types that are not to be inferred.
    pub types: BTreeMap<String, (DataType, Place)>,
    /// Rows of a part.
    pub part_rows: Option<usize>,
    /// Between the fields of a CSV file.
    pub delimiter: Option<u8>,
    /// Whether no row at all is fine.
    pub allow_empty: bool,
}

/// When a hit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CachePolicy {
    /// Whenever the key is the same.
    #[default]
    On,
    /// Never; what it makes is kept for those behind it.
    Off,
    /// When it is not older.
    MaxAge(Duration),
}

/// Limits as far as the pipeline names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartialLimits {
    /// Memory of the guest.
    pub memory: Option<ByteSize>,
    /// Its fuel.
    pub fuel: Option<Fuel>,
    /// Its time.
    pub time: Option<Duration>,
}

/// One use of a component.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: StepName,
    /// Where it is defined.
    pub place: Place,
    /// The component: `std:…`, `path:…`.
    pub uses: (String, Place),
    /// The folder of the file that defines it.
    pub folder: PathBuf,
    /// What is connected; no port for the short form `input = …`, which is the
    /// step's first table port.
    pub inputs: Vec<(Option<PortName>, String, Place)>,
    /// Its params, with `${…}` still in them.
    pub params: Located,
    /// Its matrix: names and values.
    pub matrix: Vec<(String, Vec<Value>, Place)>,
    /// Its limits.
    pub limits: PartialLimits,
    /// What else a component with WASI may see.
    pub grants: StepGrants,
    /// When a hit counts.
    pub cache: CachePolicy,
}

/// What a step is granted besides its inputs.
#[derive(Debug, Clone, Default)]
pub struct StepGrants {
    /// Folders to read, relative to the step's.
    pub read: Vec<(String, Place)>,
    /// Names of variables.
    pub env: Vec<(String, Place)>,
}

/// A file to write.
#[derive(Debug, Clone)]
pub struct Export {
    /// Where, relative to `folder`.
    pub path: String,
    /// The folder of the file that defines it.
    pub folder: PathBuf,
    /// What.
    pub reference: String,
    /// Where it is written.
    pub place: Place,
}

/// A param of the pipeline.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Where it is defined.
    pub place: Place,
    /// Its type, if given: `float`, `int`, `string`, `bool`, `list`.
    pub ty: Option<String>,
    /// Its value, unless it is set.
    pub default: Option<Value>,
    /// Least value.
    pub min: Option<f64>,
    /// Greatest value.
    pub max: Option<f64>,
    /// What it is for.
    pub doc: Option<String>,
}

/// A pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name.
    pub name: String,
    /// The file that was given.
    pub file: Arc<SourceFile>,
    /// All files that it was read from.
    pub files: Vec<Arc<SourceFile>>,
    /// What can be set.
    pub params: Vec<Param>,
    /// Where data comes from.
    pub sources: Vec<Source>,
    /// What is done with it.
    pub steps: Vec<Step>,
    /// What is written.
    pub exports: Vec<Export>,
}
