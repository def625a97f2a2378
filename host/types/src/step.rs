//! What a component declares: its manifest, and its plan for one use of it.
//!
//! Manifests and plans are stored, so a change of a type here needs a new version in
//! [`crate::wire`]. The SDK has its own mirror of these types: guests link no host crate.

use serde::{Deserialize, Serialize};

use crate::limits::DeclaredLimits;
use crate::name::{ColumnName, PortName};
use crate::schema::{Field, Schema};

/// What a port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortKind {
    /// Columns.
    Table,
    /// Bytes.
    Blob,
}

/// How the host may divide the work of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Each part by itself.
    Map,
    /// `partial` for each part, then one `merge`.
    Fold,
    /// All parts, in order, in one guest.
    Whole,
    /// All parts at once, in guests that exchange reductions.
    Rounds,
}

/// A port as the manifest declares it. An output is never optional, many or mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: PortName,
    /// What it carries.
    pub kind: PortKind,
    /// What it is for.
    pub doc: String,
    /// The pipeline may leave it unconnected.
    pub optional: bool,
    /// It takes all instances of a matrix step.
    pub many: bool,
    /// It is the port whose parts `map` and `fold` divide among tasks.
    pub mapped: bool,
}

/// What a component declares about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub doc: String,
    /// Its mode, unless a plan chooses another.
    pub mode: Mode,
    /// Its inputs.
    pub inputs: Vec<Port>,
    /// Its outputs.
    pub outputs: Vec<Port>,
    /// JSON Schema of its params.
    pub params_schema: String,
    /// Limits that suit it where the pipeline sets none.
    pub limits: DeclaredLimits,
}

/// The input of `plan` for a connected port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanInput {
    /// The port.
    pub port: PortName,
    /// The schema of the table; `None` for a blob.
    pub schema: Option<Schema>,
}

/// What a step declares for one use of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its mode in this use.
    pub mode: Mode,
    /// The read set: the columns it can see, by port, in the order of the schema.
    pub reads: Vec<(PortName, Vec<ColumnName>)>,
    /// The columns of its output tables; `None` where only the run knows them.
    pub outputs: Vec<(PortName, Option<Vec<OutputField>>)>,
}

/// A column of an output table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputField {
    /// Name, type, nullability.
    pub field: Field,
    /// The port and column that it is passed through from, if it is.
    pub source: Option<(PortName, ColumnName)>,
}

/// What a task must produce on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputPlan {
    /// A blob.
    Blob {
        /// The port.
        port: PortName,
    },
    /// A table.
    Table {
        /// The port.
        port: PortName,
        /// Its columns; `None` when only the run knows them.
        fields: Option<Vec<OutputField>>,
    },
}

impl OutputPlan {
    /// The port.
    pub fn port(&self) -> &PortName {
        match self {
            Self::Blob { port } | Self::Table { port, .. } => port,
        }
    }
}

/// An error that a step reports about one use of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path of the param that it is about.
    pub param: Option<String>,
    /// What is wrong.
    pub message: String,
    /// The name that does not exist.
    pub missing: Option<String>,
    /// The names that exist.
    pub candidates: Vec<String>,
    /// The byte range within the text of the param.
    pub span: Option<(u32, u32)>,
}
