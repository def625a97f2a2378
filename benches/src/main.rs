//! `cargo xtask bench [dag | features | tenfold] [ROUNDS]`: Millrace and its peers in turn, in
//! one run, since machines are noisy: ratios count, not seconds.
//!
//! Data, Python and what the peers need lie in `MILLRACE_BENCH` (without it in
//! `~/.cache/millrace-bench`), outside of the checkout, and are made when they are
//! missing. Everything measured is a whole process; figures are medians.

mod dag;
mod features;
mod measure;
mod peers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

/// Where things are.
struct Place {
    host: PathBuf,
    /// The checkout.
    root: PathBuf,
    /// For data and environments.
    work: PathBuf,
}

fn place() -> Result<Place> {
    let host = std::env::current_exe()?.with_file_name("host");
    ensure!(host.is_file(), "{} is missing: `cargo xtask build`", host.display());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("a folder above")?.to_owned();
    let work = match std::env::var_os("MILLRACE_BENCH") {
        Some(work) => PathBuf::from(work),
        None => PathBuf::from(std::env::var_os("HOME").context("a home")?).join(".cache/millrace-bench"),
    };
    std::fs::create_dir_all(&work)?;
    Ok(Place { host, root, work })
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rounds = arguments.get(1).map_or(Ok(3), |rounds| rounds.parse()).context("ROUNDS is a number")?;
    let place = place()?;
    match arguments.first().map(String::as_str) {
        Some("dag") => dag::run(&place, rounds),
        Some("features") => features::run(&place, rounds),
        Some("tenfold") => features::tenfold(&place, rounds),
        None => {
            dag::run(&place, rounds)?;
            features::run(&place, rounds)
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
