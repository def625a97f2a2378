//! A folder that serves as a registry: the files `NAME/VERSION.wasm`.
//!
//! A reference has an exact version: without a lock file, any other would mean different
//! components on different machines.

use std::path::{Path, PathBuf};

use millrace_store::Store;
use millrace_types::{FolderRef, Manifest, Uses, Version};

use super::path::file;
use super::source::{ComponentSource, ResolveError, Resolved};

/// Finds components in folders.
pub(super) struct Folders<'a> {
    pub(super) store: &'a Store,
}

impl ComponentSource for Folders<'_> {
    fn resolve(&self, uses: &Uses, folder: &Path) -> Result<Resolved, ResolveError> {
        let Uses::Folder(reference) = uses else {
            return Err(ResolveError::new(format!("`{uses}` is not in a folder of components")));
        };
        let FolderRef { folder: registry, name, version } = reference;
        let registry = folder.join(registry);
        let path = version.as_ref().map(|version| file_of(&registry, name.as_str(), version));
        if let Some(path) = path.filter(|path| path.is_file()) {
            return file(self.store, &path);
        }
        let versions = versions(&registry, name.as_str());
        let listed = || versions.iter().map(|version| format!("`{version}`")).collect::<Vec<_>>().join(", ");
        let shown = registry.display();
        Err(match (version, versions.is_empty()) {
            (_, true) => {
                let error = ResolveError::new(format!("there is no component `{name}` in `{shown}`"));
                error.help(format!("its versions would be files `{name}/VERSION.wasm`"))
            }
            (Some(version), false) => {
                let error = ResolveError::new(format!("there is no version {version} of `{name}` in `{shown}`"));
                error.help(format!("there are {}", listed()))
            }
            (None, false) => {
                let error = ResolveError::new(format!("`{uses}` has no version"));
                error.help(format!(
                    "write one, as in `{uses}@{}`; there are {}",
                    versions[versions.len() - 1],
                    listed()
                ))
            }
        })
    }
}

fn file_of(registry: &Path, name: &str, version: &Version) -> PathBuf {
    registry.join(name).join(format!("{version}.wasm"))
}

/// The versions of a component, the highest last.
fn versions(registry: &Path, name: &str) -> Vec<Version> {
    let entries = std::fs::read_dir(registry.join(name)).into_iter().flatten().flatten();
    let version = |entry: std::fs::DirEntry| Version::new(entry.file_name().to_str()?.strip_suffix(".wasm")?);
    let mut versions: Vec<Version> = entries.filter_map(version).collect();
    let numbers = |version: &Version| -> Vec<u64> {
        let numbers = version.as_str().split('-').next().unwrap_or_default();
        numbers.split('.').map(|number| number.parse().unwrap_or(u64::MAX)).collect()
    };
    // A suffix marks a version before the one without.
    versions.sort_by_key(|version| (numbers(version), !version.as_str().contains('-'), version.clone()));
    versions
}

/// Checks that a component declares the version under which the folder has it.
pub(super) fn check_version(reference: &FolderRef, manifest: &Manifest) -> Result<(), ResolveError> {
    let FolderRef { name, version: Some(version), .. } = reference else { return Ok(()) };
    if manifest.version == version.as_str() {
        return Ok(());
    }
    let declared = &manifest.version;
    let error = ResolveError::new(format!("version {version} of `{name}` declares that it is version {declared}"));
    Err(error.help(format!("name its file `{name}/{declared}.wasm`, or replace it by the right component")))
}
