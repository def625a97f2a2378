//! How a task ended. A failure is a value: it has a cost and a log too.

use millrace_types::{BlobRef, ByteSize, Cost, Fuel, LogLine, OutputRecord, PortName};
use std::time::Duration;

/// What a task left.
#[derive(Debug, Clone, PartialEq)]
pub struct Produced {
    /// By port, in name order.
    pub outputs: Vec<(PortName, OutputRecord)>,
    /// Of a `partial` task.
    pub partial: Option<BlobRef>,
}

/// Why a task did not finish.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The step said so.
    Step {
        /// What it said.
        message: String,
        /// The column it named.
        column: Option<String>,
        /// The row it named, from 0 in the part.
        row: Option<u64>,
    },
    /// The guest trapped.
    Trap {
        /// The panic message, or the kind of trap.
        message: String,
        /// Functions, innermost first, when the component has names.
        backtrace: Vec<String>,
    },
    /// The guest broke the rules of the step world.
    Misuse {
        /// Which one.
        message: String,
    },
    /// It wanted more memory than it may have.
    Memory {
        /// What it may have.
        limit: ByteSize,
        /// What it wanted.
        wanted: ByteSize,
        /// Where it was.
        backtrace: Vec<String>,
    },
    /// It used up its fuel.
    Fuel {
        /// What it had.
        limit: Fuel,
        /// Where it was.
        backtrace: Vec<String>,
    },
    /// It took too long.
    Time {
        /// What it had.
        limit: Duration,
        /// Where it was.
        backtrace: Vec<String>,
    },
    /// The user stopped the run.
    Cancelled,
    /// Something that the host needed did not work: the disk, the system.
    Host {
        /// What happened.
        message: String,
    },
}

impl TaskOutcome {
    /// One that came to nothing, and used nothing.
    pub(crate) fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), metrics: Vec::new(), log: Vec::new(), cost: Cost::default() }
    }
}

/// How a task ended and what it used.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOutcome {
    /// What it left, or why it did not finish.
    pub result: Result<Produced, Failure>,
    /// Named numbers, in name order.
    pub metrics: Vec<(String, f64)>,
    /// What it wrote.
    pub log: Vec<LogLine>,
    /// What it used.
    pub cost: Cost,
}
