//! The action key: a digest of all that can influence what a task produces.
//!
//! | in the key | why |
//! | --- | --- |
//! | version of this table, version of the step world | a change of rules is a miss |
//! | component digest | the code, to the byte |
//! | params, as canonical JSON | the settings, after `--set`, defaults of the pipeline and matrix |
//! | phase | map, whole, partial and merge are different work |
//! | for each input port, in name order, and each item on it: | what the task can see |
//! | · the instance, on a port that gathers a matrix | `task` tells it to the guest |
//! | · a blob's digest | its bytes |
//! | · the rows of each part the task sees | the guest can ask for them, and a selection is checked against them |
//! | · for each column in the plan's read set: name, type, nullability, the digest of each chunk in order | nothing else can be read |
//! | · the digests of the partials, in `merge` | its input |
//! | digest of each grant | what else a component with WASI can see |
//!
//! Not in the key: limits, cache policy, the names of step, pipeline, source and
//! file, the machine, time, thread count, order of execution, columns outside
//! the read set, and the other parts in a `map` or `partial` task. None of
//! these reaches the guest.
//!
//! Every item is preceded by its length, every list by its count, so that no
//! two different keys have the same preimage.

use serde::{Deserialize, Serialize};

use crate::digest::{ActionKey, BlobDigest, ColumnDigest, ComponentDigest};
use crate::json::CanonicalJson;
use crate::name::{ColumnName, PortName};
use crate::schema::DataType;

/// Version of the rules above. A change of it is a miss for every task.
pub const KEY_VERSION: u32 = 2;
/// Version of `millrace:step`.
pub const WORLD_VERSION: &str = "0.4.0";

/// Which function of the step a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// One part.
    Map,
    /// All parts.
    Whole,
    /// One part of a fold.
    Partial,
    /// The end of a fold.
    Merge,
    /// All parts at once, in guests that exchange reductions.
    Rounds,
}

impl Phase {
    /// Its name in events and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Whole => "whole",
            Self::Partial => "partial",
            Self::Merge => "merge",
            Self::Rounds => "rounds",
        }
    }
}

/// One column of a read set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnParts {
    /// Its name.
    pub name: ColumnName,
    /// Its type.
    pub data_type: DataType,
    /// Whether the schema allows nulls.
    pub nullable: bool,
    /// One for each part the task sees.
    pub chunks: Vec<ColumnDigest>,
}

/// What the task can see of one item on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A blob.
    Blob(BlobDigest),
    /// A table, reduced to the read set.
    Table {
        /// Rows of each part the task sees.
        rows: Vec<u64>,
        /// The read set, in the order of the schema.
        columns: Vec<ColumnParts>,
    },
    /// The results of the `partial` tasks, in the order of parts.
    Partials(Vec<BlobDigest>),
}

/// One item on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemParts {
    /// Matrix values, on a port that gathers instances.
    pub instance: Option<CanonicalJson>,
    /// Its content.
    pub content: Content,
}

/// One input port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputParts {
    /// Its name.
    pub port: PortName,
    /// One, or several on a port that gathers instances.
    pub items: Vec<ItemParts>,
}

/// All that goes into an action key, stored with the record so that a later miss can be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParts {
    /// The code.
    pub component: ComponentDigest,
    /// The settings.
    pub params: CanonicalJson,
    /// Which function of the step.
    pub phase: Phase,
    /// What it sees, in the order of port names.
    pub inputs: Vec<InputParts>,
    /// Digest of each granted directory or variable, by its name.
    pub grants: Vec<(String, BlobDigest)>,
}

struct Preimage(blake3::Hasher);

impl Preimage {
    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    fn tag(&mut self, tag: u8) {
        self.0.update(&[tag]);
    }
}

impl KeyParts {
    /// The key. Destructured to the last field: a new one does not compile until its place in the
    /// key is decided.
    pub fn key(&self) -> ActionKey {
        let Self { component, params, phase, inputs, grants } = self;
        let mut out = Preimage(blake3::Hasher::new_derive_key("millrace 2026-11 action key"));
        out.0.update(&KEY_VERSION.to_le_bytes());
        out.bytes(WORLD_VERSION.as_bytes());
        out.0.update(component.as_bytes());
        out.bytes(params.as_str().as_bytes());
        out.tag(*phase as u8);
        out.count(inputs.len());
        for InputParts { port, items } in inputs {
            out.bytes(port.as_str().as_bytes());
            out.count(items.len());
            for ItemParts { instance, content } in items {
                match instance {
                    None => out.tag(0),
                    Some(instance) => {
                        out.tag(1);
                        out.bytes(instance.as_str().as_bytes());
                    }
                }
                out.content(content);
            }
        }
        out.count(grants.len());
        for (name, digest) in grants {
            out.bytes(name.as_bytes());
            out.0.update(digest.as_bytes());
        }
        out.0.finalize().into()
    }
}

impl Preimage {
    fn content(&mut self, content: &Content) {
        match content {
            Content::Blob(digest) => {
                self.tag(0);
                self.0.update(digest.as_bytes());
            }
            Content::Table { rows, columns } => {
                self.tag(1);
                self.count(rows.len());
                for rows in rows {
                    self.0.update(&rows.to_le_bytes());
                }
                self.count(columns.len());
                for ColumnParts { name, data_type, nullable, chunks } in columns {
                    self.bytes(name.as_str().as_bytes());
                    self.bytes(data_type.to_string().as_bytes());
                    self.tag(u8::from(*nullable));
                    self.count(chunks.len());
                    for chunk in chunks {
                        self.0.update(chunk.as_bytes());
                    }
                }
            }
            Content::Partials(digests) => {
                self.tag(2);
                self.count(digests.len());
                for digest in digests {
                    self.0.update(digest.as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
