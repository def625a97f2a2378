//! Builds crates and encodes them as components.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::{Toolchain, ToolchainError, Wanted};

/// A step that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no compiler.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// The folder is not the crate of a step.
    #[error("`{}` is not the crate of a step: {reason}", path.display())]
    NotAPlugin {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The compiler failed.
    #[error("building `{}` failed\n{output}", path.display())]
    Compile {
        /// The folder.
        path: PathBuf,
        /// The last lines of the compiler's output.
        output: String,
    },
    /// The result of the build is not a step.
    #[error("the build of `{}` cannot be made into a component: {reason}", path.display())]
    Encode {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system reported an error.
    #[error("cannot use `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
}

/// Why a module cannot be encoded as a component.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EncodeError(String);

/// Encodes a core module that contains the world as a component.
///
/// # Errors
/// When the bytes are not such a module.
pub fn component_of(module: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let module = crate::names::shorten(module).map_err(|error| EncodeError(error.to_string()))?;
    let encode =
        || wit_component::ComponentEncoder::default().debug_names(false).validate(true).module(&module)?.encode();
    encode().map_err(|error| EncodeError(format!("{error:#}")))
}

fn metadata(folder: &Path) -> Result<serde_json::Value, BuildError> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--no-deps"]).current_dir(folder);
    let output = command.output().map_err(|source| BuildError::Io { path: folder.to_owned(), source })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BuildError::NotAPlugin { path: folder.to_owned(), reason });
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| BuildError::NotAPlugin { path: folder.to_owned(), reason: error.to_string() })
}

/// The result of a build, and the files that it was built from.
pub struct Built {
    /// The component.
    pub component: Vec<u8>,
    /// The files that the compiler read, outside of registries.
    pub read: Vec<PathBuf>,
}

/// Builds the crate in a folder and returns the component.
///
/// # Errors
/// When there is no compiler, or the crate is not a step.
pub fn build(folder: &Path) -> Result<Built, BuildError> {
    let not = |reason: &str| BuildError::NotAPlugin { path: folder.to_owned(), reason: reason.to_owned() };
    let toolchain = Toolchain::find(Wanted::Any)?;
    let absolute = folder.canonicalize().map_err(|source| BuildError::Io { path: folder.to_owned(), source })?;
    let manifest = absolute.join("Cargo.toml");
    let metadata = metadata(&absolute)?;
    let packages = metadata["packages"].as_array().ok_or_else(|| not("cargo does not know it"))?;
    let package = packages.iter().find(|package| package["manifest_path"].as_str().map(Path::new) == Some(&manifest));
    let package = package.ok_or_else(|| not("it has no package"))?;
    let is_cdylib = |target: &&serde_json::Value| {
        target["crate_types"].as_array().is_some_and(|types| types.iter().any(|ty| ty == "cdylib"))
    };
    let library = package["targets"].as_array().and_then(|targets| targets.iter().find(is_cdylib));
    let library = library
        .ok_or_else(|| not("its library is not a `cdylib`; add `crate-type = [\"cdylib\", \"rlib\"]` under `[lib]`"))?;
    let name = package["name"].as_str().unwrap_or_default();
    let file = library["name"].as_str().unwrap_or_default().replace('-', "_");
    let root = metadata["workspace_root"].as_str().map_or_else(|| absolute.clone(), PathBuf::from);
    let target = metadata["target_directory"].as_str().map_or_else(|| absolute.join("target"), PathBuf::from);
    let target = target.join(toolchain.folder());

    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut remap = vec![(root, "/step")];
    remap.extend(cargo_home.map(|home| (home, "/cargo")));
    let mut command = toolchain.command(&remap);
    command.args(["--package", name, "--quiet"]).env("CARGO_TARGET_DIR", &target).current_dir(&absolute);
    let output = command.output().map_err(|source| BuildError::Io { path: folder.to_owned(), source })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let output = lines[lines.len().saturating_sub(60)..].join("\n");
        return Err(BuildError::Compile { path: folder.to_owned(), output });
    }
    let module = target.join("wasm32-unknown-unknown/component").join(format!("{file}.wasm"));
    // Next to it, cargo writes a list of the files that it was built from.
    let list = std::fs::read_to_string(module.with_extension("d")).unwrap_or_default();
    let bytes = std::fs::read(&module).map_err(|source| BuildError::Io { path: module, source })?;
    let component = component_of(&bytes)
        .map_err(|error| BuildError::Encode { path: folder.to_owned(), reason: error.to_string() })?;
    Ok(Built { component, read: read_by_compiler(&list) })
}

/// The files after the colon of a line in the syntax of `make`, where a space in a name has a
/// backslash before it.
fn read_by_compiler(list: &str) -> Vec<PathBuf> {
    let Some((_, files)) = list.lines().next().and_then(|line| line.split_once(": ")) else { return Vec::new() };
    let marked = files.replace("\\ ", "\0");
    marked.split(' ').filter(|file| !file.is_empty()).map(|file| PathBuf::from(file.replace('\0', " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_the_compiler_read_are_those_after_the_colon() {
        let list = "/t/x.wasm: /a/src/lib.rs /b\\ c/words.txt /d.rs\n\nother: /e\n";
        assert_eq!(read_by_compiler(list), ["/a/src/lib.rs", "/b c/words.txt", "/d.rs"].map(PathBuf::from));
        assert!(read_by_compiler("").is_empty());
    }

    #[test]
    fn a_stamp_covers_files_outside_the_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("step/src")).unwrap();
        std::fs::write(path("step/src/lib.rs"), "one").unwrap();
        std::fs::write(path("words.txt"), "one").unwrap();
        let read = [path("step/src/lib.rs"), path("words.txt")];
        let stamp = || crate::stamp(&path("step")).unwrap().with(&read).unwrap();
        let first = stamp();
        assert!(first.is_current(&path("step")));
        std::fs::write(path("words.txt"), "three").unwrap();
        assert!(!first.is_current(&path("step")));
        let second = stamp();
        std::fs::write(path("step/new.rs"), "").unwrap();
        assert!(!second.is_current(&path("step")));
        let third = stamp();
        std::fs::remove_file(path("words.txt")).unwrap();
        assert!(!third.is_current(&path("step")));
    }

    /// Neither the size nor the modification time, which can be set, shows whether a source was
    /// written.
    #[test]
    fn a_written_source_is_detected_even_with_its_old_size_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lib.rs");
        std::fs::write(&file, "one").unwrap();
        let before = crate::stamp(folder.path()).unwrap();
        let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::write(&file, "two").unwrap();
        std::fs::File::options().append(true).open(&file).unwrap().set_modified(modified).unwrap();
        assert!(!before.is_current(folder.path()));
    }

    /// A build may or may not have read what is written after it began.
    #[test]
    fn sources_newer_than_a_build_are_detected() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), "x").unwrap();
        let stamp = || crate::stamp(folder.path()).unwrap();
        write("lib.rs");
        std::thread::sleep(std::time::Duration::from_millis(60));
        let began = std::time::SystemTime::now();
        assert!(!stamp().is_newer_than(began));
        // Cargo writes this file itself.
        write("Cargo.lock");
        assert!(!stamp().is_newer_than(began));
        write("lib.rs");
        assert!(stamp().is_newer_than(began));
    }
}
