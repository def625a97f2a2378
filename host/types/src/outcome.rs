//! How a task ended. A failure is a value: it has a cost and a log, too.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::action_record::{Cost, LogLine, OutputRecord};
use crate::limits::{ByteSize, Fuel};
use crate::name::PortName;
use crate::table::BlobRef;

/// What a successful task produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Produced {
    /// By port, in name order.
    pub outputs: Vec<(PortName, OutputRecord)>,
    /// The result of a `partial` task.
    pub partial: Option<BlobRef>,
}

/// Why a task did not finish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Failure {
    /// The step returned an error.
    Step {
        /// Its message.
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
    /// The guest broke a rule of the step world.
    Misuse {
        /// The rule that it broke.
        message: String,
    },
    /// The guest asked for more memory than its limit.
    Memory {
        /// The limit.
        limit: ByteSize,
        /// The memory it asked for.
        wanted: ByteSize,
        /// The backtrace at that time.
        backtrace: Vec<String>,
    },
    /// The guest used up its fuel.
    Fuel {
        /// The limit.
        limit: Fuel,
        /// Where it was.
        backtrace: Vec<String>,
    },
    /// The guest ran longer than its time limit.
    Time {
        /// The limit.
        limit: Duration,
        /// Where it was.
        backtrace: Vec<String>,
    },
    /// The user stopped the run.
    Cancelled,
    /// Something that the host needed for the task failed: the disk, the system.
    Host {
        /// What happened.
        message: String,
    },
}

/// How a task ended and what it used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// What it produced, or why it did not finish.
    pub result: Result<Produced, Failure>,
    /// Named numbers, in name order.
    pub metrics: Vec<(String, f64)>,
    /// The lines that it logged.
    pub log: Vec<LogLine>,
    /// What it used.
    pub cost: Cost,
}

impl TaskOutcome {
    /// A failure before the guest did anything.
    pub fn failed(failure: Failure) -> Self {
        Self { result: Err(failure), metrics: Vec::new(), log: Vec::new(), cost: Cost::default() }
    }
}
