//! The contract between a task and what it runs in: a host outside the sandbox, or a test.

use std::ops::Range;

use arrow_array::{BooleanArray, UInt32Array};
use arrow_schema::Field;
use millrace_expr::Column;

use crate::error::Result;

/// Which function of the step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// One part.
    Map,
    /// All parts.
    Whole,
    /// One part of a fold.
    Partial,
    /// The end of a fold.
    Merge,
    /// Some of the parts, alongside guests with the others.
    Rounds,
}

/// How the numbers of all guests of a task are reduced to one, in the order of their parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
    /// The sum over the guests before this one: the index of its first row, if each guest
    /// passes its number of rows.
    Before,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For the author of the step.
    Debug,
    /// For following the run.
    Info,
    /// Something to check.
    Warn,
    /// Something went wrong.
    Error,
}

/// The rows of an emitted part.
pub(crate) enum Rows<'a> {
    Same(&'a str),
    Mask(&'a str, &'a BooleanArray),
    Take(&'a [(&'a str, &'a UInt32Array)]),
    New(u64),
}

/// The source of a task: a host outside the sandbox, or a test.
pub(crate) trait Backend {
    fn phase(&self) -> Phase;
    fn tables(&self, port: &str) -> Vec<Box<dyn TableBackend + '_>>;
    fn blobs(&self, port: &str) -> Vec<(String, Vec<u8>)>;
    fn partials(&self) -> usize;
    fn partial(&self, index: usize) -> Vec<u8>;
    fn emit_partial(&self, bytes: &[u8]) -> Result<()>;
    fn all_reduce(&self, how: Reduction, values: &mut [f64]) -> Result<()>;
    fn declare(&self, port: &str, passed: Option<(&str, &[String])>, added: &[Field]) -> Result<()>;
    fn begin(&self, port: &str, rows: Rows<'_>) -> Result<()>;
    fn column(&self, name: &str, column: Column) -> Result<()>;
    fn end(&self) -> Result<()>;
    fn emit_blob(&self, port: &str, bytes: &[u8]) -> Result<()>;
    fn metric(&self, name: &str, value: f64);
    fn log(&self, level: Level, message: &str);
    fn progress(&self, done: u64, total: u64);
}

pub(crate) trait TableBackend {
    fn instance(&self) -> String;
    fn fields(&self) -> Vec<Field>;
    fn parts(&self) -> Vec<u64>;
    fn column(&self, part: usize, column: usize, rows: Range<usize>) -> Result<Column>;
}
