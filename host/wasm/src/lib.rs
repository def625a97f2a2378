//! Components: from bytes to code, from code to plans, from plans to tasks.
//!
//! The only crate that uses wasmtime. It knows the step world (`wit/step.wit`) and nothing of
//! pipelines, schedules or the store: columns come from and go to a
//! [`ChunkStore`](millrace_tables::ChunkStore). Nothing that a guest does, says or leaves out
//! may panic, hang or exhaust this process; what it hands over is checked before it is kept.
//!
//! Layers, each importing only those below: [`run`](Component::run) and rounds; component,
//! engine and compile; host functions and WASI; the state of a guest, its outputs and limits;
//! the collective; traps, text and clocks.

mod cancel;
mod claims;
mod collective;
mod compile;
mod component;
mod conclude;
mod context;
mod engine;
mod error;
mod failure;
mod host;
mod limits;
mod output;
mod rewrite;
mod rounds;
mod run;
mod state;
mod text;
mod trap;
mod wasi;
mod world;

pub use cancel::Cancel;
pub use compile::precompile;
pub use component::Component;
pub use context::{Progress, TaskContext};
pub use engine::{Engine, MAX_JOBS};
pub use error::ComponentError;
