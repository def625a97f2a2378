//! Pipelines: from TOML to a plan, from a plan to tasks, from tasks to artifacts.
//!
//! ```text
//! pipeline   TOML with the place of everything in it
//! graph      step instances: matrix spread out, references resolved
//! components what `uses` names: bytes, manifest, plans
//! source     files to tables
//! assemble   what a task decided + what its inputs were = its output table
//! execute    the loop: plan what can be planned, look up, admit, run
//! event      what happened, for whoever shows it
//! history    runs, for `why` and `show`
//! ```
//!
//! This crate renders nothing: it returns values and emits events.

mod artifacts;
mod assemble;
pub mod components;
mod data;
pub mod diagnostic;
pub mod event;
mod execute;
mod export;
mod grants;
mod graph;
pub mod history;
pub mod pipeline;
mod source;
mod verify;
pub mod why;

pub use artifacts::{Artifacts, Head, ShowError};
pub use diagnostic::{Diagnostic, Place, SourceFile};
pub use event::{Event, Status, Summary};
pub use execute::{Loaded, Mode as ExecuteMode, Options, RunError, execute, load};
pub use export::export_to;
pub use graph::{Graph, Node};
pub use millrace_tables::read::Format;
pub use millrace_tables::read::is_guarded;
pub use millrace_types as types;
pub use millrace_wasm::{Cancel, Failure, Manifest, Port, PortKind};
pub use pipeline::schema::json_schema;
