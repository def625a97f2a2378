//! `host completions`

use clap::CommandFactory;

use crate::{args, exit, render};

/// Prints completions for a shell.
pub fn run(shell: clap_complete::Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::Args::command(), "host", &mut script);
    render::out(String::from_utf8_lossy(&script).trim_end());
    exit::DONE
}
