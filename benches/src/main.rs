//! `cargo xtask bench [dag | features | tenfold] [ROUNDS]`: Millrace and its peers in turn, in one
//! run, since machines are noisy: ratios count, not seconds.
//!
//! Data, Python and the packages of the peers are in `MILLRACE_BENCH` (by default
//! `~/.cache/millrace-bench`), outside the checkout, and are created if missing. Every measurement
//! is of a complete process; figures are medians.

mod dag;
mod features;
mod measure;
mod peers;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.get(1).map_or(Ok(3), |rounds| rounds.parse()).context("ROUNDS is a number")?;
    let workspace = workspace::Workspace::find()?;
    match arguments.first().map(String::as_str) {
        Some("dag") => dag::run(&workspace, rounds),
        Some("features") => features::run(&workspace, rounds),
        Some("tenfold") => features::tenfold(&workspace, rounds),
        None => {
            dag::run(&workspace, rounds)?;
            features::run(&workspace, rounds)
        }
        Some(other) => bail!("there is no benchmark `{other}`: dag, features or tenfold"),
    }
}

#[expect(clippy::print_stderr, reason = "a program for people")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
