//! Bounds on everything that comes from outside.
//!
//! What exceeds a bound is refused with the name of the bound, so that no file, component or peer
//! can make the host use unlimited memory or time.

/// Bytes in the name of a step or a port.
pub const NAME_BYTES: usize = 200;
/// Bytes of a pipeline file.
pub const PIPELINE_BYTES: u64 = 16 << 20;
/// Bytes of a component.
pub const COMPONENT_BYTES: u64 = 256 << 20;
/// Bytes of one record of a text file: more is a file with an unclosed quote.
pub const TEXT_RECORD_BYTES: usize = 64 << 20;
/// Bytes of a record in the store.
pub const RECORD_BYTES: u64 = 256 << 20;
/// Instances of one step, from its matrix and those of its inputs.
pub const INSTANCES: usize = 100_000;
/// Columns of a table.
pub const COLUMNS: usize = 100_000;
/// Rows of a part: offsets and indices are 32-bit.
pub const PART_ROWS: u64 = 1 << 31;
/// Parts that one task may emit.
pub const PARTS_PER_TASK: usize = 1 << 20;
/// Bytes that cross between a guest and the host in one call.
pub const CALL_BYTES: usize = 4 << 30;
/// Log lines stored for one task; further ones are only counted.
pub const LOG_LINES: usize = 1_000;
/// Bytes of one log line; longer ones are truncated.
pub const LOG_LINE_BYTES: usize = 4 << 10;
/// Named numbers of one task.
pub const METRICS: usize = 10_000;
/// Problems that a plan may report.
pub const PROBLEMS: usize = 1_000;
/// Bytes of a message from a guest; longer ones are truncated.
pub const MESSAGE_BYTES: usize = 16 << 10;
/// Memory of a guest that only describes itself or plans.
pub const PLAN_MEMORY_BYTES: u64 = 256 << 20;
/// Fuel of a guest that only describes itself or plans: about a second.
pub const PLAN_FUEL: u64 = 1_000_000_000;
/// Depth of an expression.
pub const EXPRESSION_DEPTH: usize = 200;

/// Files, folders and links in a folder that a step is granted.
pub const GRANTED_FILES: usize = 100_000;

/// Bytes of the copies of records that one pipeline may have.
pub const INDEX_BYTES: u64 = 1 << 30;
