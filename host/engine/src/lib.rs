//! Pipelines: from TOML to a plan, from a plan to tasks, from tasks to artifacts.
//!
//! ```text
//! pipeline   TOML with the span of everything in it
//! graph      step instances: matrix expanded, references resolved
//! components what `uses` names: bytes, manifest, plans
//! source     files to tables
//! chunks     columns of the store; packs: where they go; integrity: whether they are intact
//! assemble   the record of a task + its inputs = its output tables
//! execute    planning, scheduling, running
//! event      what happened, for renderers; event_log: the same, stored
//! history    runs, for `why` and `show`
//! ```
//!
//! This crate renders nothing: it returns values and emits events.

mod artifacts;
mod assemble;
mod chunks;
pub mod components;
pub mod diagnostic;
pub mod event;
pub mod event_log;
mod execute;
mod export;
#[cfg(test)]
mod fixtures;
mod grants;
mod graph;
pub mod history;
mod integrity;
mod packs;
pub mod pipeline;
pub mod precompile;
mod remote;
mod results;
mod shards;
mod source;
pub mod why;

pub use artifacts::{Artifacts, ShowError, TableHead};
pub use diagnostic::{Diagnostic, PipelineFile, Span};
pub use event::{Event, EventEnvelope, Status, Summary};
pub use execute::{
    EXEC_CACHED, EXEC_FAILED, EXEC_RAN, ExecError, ExecReport, Executor, Loaded, Options, RunError, RunMode, exec,
    execute, load,
};
pub use export::{ExportError, export_to};
pub use graph::{Graph, Node};
pub use millrace_tables::read::{Format, is_guarded};
pub use millrace_types as types;
pub use millrace_types::{Failure, Manifest, Port, PortKind};
pub use millrace_wasm::Cancel;
pub use pipeline::schema::json_schema;
pub use remote::{RemoteError, RemoteReport, finish_remote, with_remote};
