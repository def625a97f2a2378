//! The action record: what a task decided and what it cost.
//!
//! A record holds what the guest made, never what the host can derive: computed columns
//! and selections, but no column that is passed through. The key does not cover passed
//! columns, so the record must not contain them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::action_key::KeyParts;
use crate::digest::ActionKey;
use crate::name::{ColumnName, PortName};
use crate::object::ObjectRef;
use crate::schema::Field;
use crate::table::{BlobRef, StoredChunk};

/// What one run of a task used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Fuel that the guest used: the same on every machine with one engine version.
    pub fuel: u64,
    /// Largest size of the guest's linear memory.
    pub peak_memory_bytes: u64,
    /// From admission to the last byte written, in microseconds.
    pub wall_us: u64,
    /// Processor time of the thread, in microseconds.
    pub cpu_us: u64,
    /// Bytes of buffers and blobs handed to the guest.
    pub bytes_read: u64,
    /// Bytes of buffers and blobs taken from it.
    pub bytes_written: u64,
}

impl std::ops::AddAssign for Cost {
    /// Sums all amounts except peak memory, of which the larger stays.
    fn add_assign(&mut self, other: Self) {
        let Self { fuel, peak_memory_bytes, wall_us, cpu_us, bytes_read, bytes_written } = other;
        self.fuel += fuel;
        self.peak_memory_bytes = self.peak_memory_bytes.max(peak_memory_bytes);
        self.wall_us += wall_us;
        self.cpu_us += cpu_us;
        self.bytes_read += bytes_read;
        self.bytes_written += bytes_written;
    }
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// For the author of the step.
    Debug,
    /// For the user who follows a run.
    Info,
    /// Something to check.
    Warn,
    /// Something went wrong.
    Error,
}

/// A line that a step wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// The line, truncated to [`crate::bounds::LOG_LINE_BYTES`].
    pub message: String,
}

/// The rows of an emitted part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowsRecord {
    /// Those of the same part of a port.
    SameRows {
        /// The port.
        port: PortName,
    },
    /// Those of the same part of a port that a mask keeps.
    Mask {
        /// The port.
        port: PortName,
        /// A boolean for each of its rows.
        selection: Arc<StoredChunk>,
    },
    /// Rows of ports, by index.
    Take {
        /// For each port the indices into all its rows that the task sees; none when they are the
        /// unchanged rows of its one part.
        from: Vec<(PortName, Option<Arc<StoredChunk>>)>,
    },
    /// New rows.
    Rows,
}

/// A part that a task emitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Rows in it.
    pub rows: u64,
    /// The origin of its rows.
    pub origin: RowsRecord,
    /// The computed columns.
    pub columns: Vec<(ColumnName, Arc<StoredChunk>)>,
}

/// The schema of an output that only the run can know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// All columns of this port except these are passed through. By exclusion: the guest does not
    /// know the columns that it does not read.
    pub passed: Option<(PortName, Vec<ColumnName>)>,
    /// The computed columns after them.
    pub added: Vec<Field>,
}

/// The output of a task on one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputRecord {
    /// Bytes.
    Blob(BlobRef),
    /// Parts of a table.
    Table {
        /// The schema, when the plan did not know it.
        declared: Option<Declared>,
        /// In the order in which they were emitted.
        parts: Vec<PartRecord>,
    },
}

/// What a task produced and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The key it is stored under.
    pub key: ActionKey,
    /// The values that the key is a digest of.
    pub parts: KeyParts,
    /// By port, in name order.
    pub outputs: Vec<(PortName, OutputRecord)>,
    /// The result of a `partial` task.
    pub partial: Option<BlobRef>,
    /// Named numbers, in name order.
    pub metrics: Vec<(String, f64)>,
    /// What it logged, up to [`crate::bounds::LOG_LINES`] lines.
    pub log: Vec<LogLine>,
    /// What it used.
    pub cost: Cost,
    /// When it ran, in seconds since 1970, for policies by age.
    pub finished_at: u64,
}

impl ActionRecord {
    /// Every object that the record names.
    pub fn objects(&self) -> Vec<ObjectRef> {
        let mut objects = Vec::new();
        let pack = |chunk: &StoredChunk| chunk.object();
        for (_, output) in &self.outputs {
            match output {
                OutputRecord::Blob(blob) => objects.push(blob.object()),
                OutputRecord::Table { parts, .. } => {
                    for part in parts {
                        match &part.origin {
                            RowsRecord::Mask { selection, .. } => objects.push(pack(selection)),
                            RowsRecord::Take { from } => {
                                objects.extend(from.iter().filter_map(|(_, chunk)| chunk.as_deref().map(pack)));
                            }
                            RowsRecord::SameRows { .. } | RowsRecord::Rows => {}
                        }
                        objects.extend(part.columns.iter().map(|(_, chunk)| pack(chunk)));
                    }
                }
            }
        }
        if let Some(partial) = &self.partial {
            objects.push(partial.object());
        }
        objects.sort_unstable();
        objects.dedup();
        objects
    }
}
