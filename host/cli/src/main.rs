//! `host`: runs pipelines whose steps are WebAssembly components.
//!
//! This crate parses arguments, calls the engine and renders its results.

#[cfg(unix)]
mod allocator;
mod args;
mod commands;
mod exit;
mod render;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // A panic of a reader is reported as a corrupt file.
        if !millrace_engine::is_guarded() {
            default_hook(panic);
        }
    }));
    let args = args::Args::parse();
    let code = match args.command {
        args::Command::Run(args) => commands::run::run(&args),
        args::Command::Plan(args) => commands::plan::run(&args),
        args::Command::Why(args) => commands::why::run(&args),
        args::Command::Show(args) => commands::show::run(&args),
        args::Command::Exec(args) => commands::exec::run(&args),
        args::Command::Graph(args) => commands::graph::run(&args),
        args::Command::Runs(args) => commands::runs::run(&args),
        args::Command::Schema => commands::schema::run(),
        args::Command::Precompile { folder } => commands::precompile::run(&folder),
        args::Command::Completions { shell } => commands::completions::run(shell),
    };
    ExitCode::from(code)
}
