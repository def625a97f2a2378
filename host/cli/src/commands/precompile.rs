//! `host precompile`, which `cargo xtask build` calls.

use std::path::Path;

use millrace_engine::precompile::precompile_standard_steps;

use crate::{exit, render};

/// Compiles the standard steps into a folder.
pub fn run(folder: &Path) -> u8 {
    match precompile_standard_steps(folder) {
        Ok(()) => exit::DONE,
        Err(error) => {
            render::note(&format!("error: {error}"));
            exit::FAILED
        }
    }
}
