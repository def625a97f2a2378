//! One file for each command: parse, call the engine, render, choose the status.

pub mod completions;
pub mod graph;
pub mod plan;
pub mod run;
pub mod runs;
pub mod schema;
pub mod show;
pub mod why;

use millrace_store::Store;

use crate::args::StoreArgs;
use crate::{exit, render};

/// The store, or the status to leave with.
fn open(store: &StoreArgs) -> Result<Store, u8> {
    store.open().map_err(|error| {
        render::note(&format!("error: {error}"));
        exit::WRONG
    })
}
