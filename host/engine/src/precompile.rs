//! Compiles the standard steps for the build of a host that ships their code.

use std::path::{Path, PathBuf};

use millrace_registry::bundled;
use millrace_wasm::Engine;

/// Why the standard steps cannot be compiled ahead of time.
#[derive(Debug, thiserror::Error)]
pub enum PrecompileError {
    /// A step cannot be compiled.
    #[error("cannot compile `std:{step}`: {reason}")]
    Compile {
        /// Its name.
        step: &'static str,
        /// Why.
        reason: String,
    },
    /// The system reported an error.
    #[error("cannot write `{}`: {error}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Compiles the standard steps of this host for all machines of its kind, into
/// `folder/VERSION/DIGEST`, where the build of the next host reads them. Files that are current are
/// not written; others in `folder` are removed.
///
/// # Errors
/// When a step cannot be compiled or a file cannot be written.
pub fn precompile_standard_steps(folder: &Path) -> Result<(), PrecompileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| PrecompileError::Write { path, error }
    };
    let version = folder.join(Engine::shipped_version());
    std::fs::create_dir_all(&version).map_err(failed(&version))?;
    let mut written = vec![version.clone()];
    for step in bundled() {
        let compiled = millrace_wasm::precompile(step.bytes);
        let code =
            compiled.map_err(|error| PrecompileError::Compile { step: step.name, reason: format!("{error:#}") })?;
        let path = version.join(step.digest.hex());
        if std::fs::read(&path).ok().as_ref() != Some(&code) {
            std::fs::write(&path, code).map_err(failed(&path))?;
        }
        written.push(path);
    }
    let entries = |folder: &Path| std::fs::read_dir(folder).map_err(failed(folder));
    for entry in entries(folder)?.chain(entries(&version)?).flatten().filter(|entry| !written.contains(&entry.path())) {
        let path = entry.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(failed(&path))?;
    }
    Ok(())
}
