//! The paths of the benchmarks.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The program, the checkout, and the folder for data and environments.
pub struct Workspace {
    /// The program.
    pub host: PathBuf,
    /// The checkout.
    pub root: PathBuf,
    /// Data and environments.
    pub work: PathBuf,
}

impl Workspace {
    /// Finds the paths.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn find() -> Result<Self> {
        let host = std::env::current_exe()?.with_file_name("host");
        ensure!(host.is_file(), "{} is missing: `cargo xtask build`", host.display());
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().context("a folder above")?.to_owned();
        let work = match std::env::var_os("MILLRACE_BENCH") {
            Some(work) => PathBuf::from(work),
            None => PathBuf::from(std::env::var_os("HOME").context("a home")?).join(".cache/millrace-bench"),
        };
        std::fs::create_dir_all(&work)?;
        Ok(Self { host, root, work })
    }
}
