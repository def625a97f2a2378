//! Components: from bytes to code, from code to plans, from plans to tasks.
//!
//! The only crate that uses wasmtime. It knows the step world (`wit/step.wit`)
//! and nothing of pipelines, schedules or the store: columns come from and go to
//! a [`Data`]. Nothing that a guest does, says or leaves out may panic, hang or
//! fill this process; what it hands over is checked before it is kept.

mod claims;
mod compile;
mod component;
mod engine;
mod failure;
mod host;
mod limits;
mod outcome;
mod output;
mod rewrite;
mod rounds;
mod slots;
mod task;
mod wasi;
mod world;

pub use component::{Component, ComponentError, Manifest, Mode, PlanInput, Port, PortKind, Problem, StepPlan};
pub use engine::{Cancel, Engine, SLOTS};
pub use outcome::{Failure, Produced, TaskOutcome};
pub use output::{OutputField, OutputPlan};
pub use slots::{Slot, Slots};
pub use task::{Data, DataError, Grants, InputItem, PackFile, Progress, TablePart, TaskInput, TaskSpec, keep_pack};
