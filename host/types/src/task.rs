//! A task: everything that a guest receives, as a value that another process can run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::action_key::Phase;
use crate::digest::ActionKey;
use crate::limits::Limits;
use crate::name::PortName;
use crate::schema::Field;
use crate::step::OutputPlan;
use crate::table::{BlobRef, Chunk};

/// One part of a table, reduced to the columns that a task reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePart {
    /// Rows in it.
    pub rows: u64,
    /// The columns of the read set.
    pub columns: Vec<Chunk>,
}

/// One item on an input port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputItem {
    /// A table, reduced to what the task may see.
    Table {
        /// Matrix values as canonical JSON; `{}` on a port that takes one instance.
        instance: String,
        /// The read set.
        fields: Vec<Field>,
        /// The parts that the task sees.
        parts: Vec<TablePart>,
    },
    /// A blob.
    Blob {
        /// As above.
        instance: String,
        /// Its bytes.
        blob: BlobRef,
    },
}

/// One input port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInput {
    /// Its name.
    pub port: PortName,
    /// One item, or several on a port that takes all instances.
    pub items: Vec<InputItem>,
}

/// What a component with WASI may read besides its inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Folders to read: the name that the guest sees, and the path on this machine.
    pub read: Vec<(String, PathBuf)>,
    /// Environment variables: name and value.
    pub env: Vec<(String, String)>,
}

impl Grants {
    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.env.is_empty()
    }
}

/// Everything that a task receives. Built from the same values as its action key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The key of the task; the random bytes of a component with WASI follow from it.
    pub key: ActionKey,
    /// What it may read besides its inputs.
    pub grants: Grants,
    /// Canonical JSON.
    pub params: String,
    /// Which function of the step runs.
    pub phase: Phase,
    /// By port.
    pub inputs: Vec<TaskInput>,
    /// The port that is divided into parts.
    pub mapped: Option<PortName>,
    /// For `merge`: the results of the `partial` tasks, in the order of parts.
    pub partials: Vec<BlobRef>,
    /// The outputs that it must produce.
    pub outputs: Vec<OutputPlan>,
    /// What it may use.
    pub limits: Limits,
}

impl TaskSpec {
    /// The index of the mapped port among the inputs, and the parts on it.
    pub fn mapped_parts(&self) -> Option<(usize, &[TablePart])> {
        let index = self.inputs.iter().position(|input| self.mapped.as_ref() == Some(&input.port))?;
        match self.inputs[index].items.first() {
            Some(InputItem::Table { parts, .. }) => Some((index, parts)),
            _ => None,
        }
    }
}
