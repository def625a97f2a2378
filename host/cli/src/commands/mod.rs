//! One file for each command: parse, call the engine, render, choose the status.

pub mod completions;
pub mod exec;
pub mod graph;
pub mod plan;
pub mod precompile;
pub mod run;
pub mod runs;
pub mod schema;
pub mod show;
pub mod why;

use millrace_engine::Cancel;
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

/// A cancellation that Ctrl-C requests. A second Ctrl-C ends the process without waiting for
/// guests to notice.
fn cancel_on_interrupt() -> Cancel {
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let _ = ctrlc::set_handler(move || {
        if stop.is_cancelled() {
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
        stop.cancel();
    });
    cancel
}
