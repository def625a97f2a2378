//! Components at a path: files, and crates that are built when their sources have changed.

use std::path::{Path, PathBuf};

use millrace_store::Store;
use millrace_types::wire::Kind;
use millrace_types::{ComponentDigest, PluginName, Record, Reference, Uses, bounds};
use serde::{Deserialize, Serialize};

use super::source::{ComponentBytes, ComponentSource, ResolveError, Resolved, named};

#[derive(Serialize, Deserialize)]
pub(crate) struct BuiltPlugin {
    stamp: millrace_plugin::SourceStamp,
    file: PathBuf,
}

impl Record for BuiltPlugin {
    const KIND: Kind = Kind::Plugin;
    type Name = PluginName;

    fn references(&self) -> Vec<Reference> {
        // Its component is a blob, found by the path; a build makes it again.
        Vec::new()
    }
}

/// Why a crate does not give a component.
#[derive(Debug, thiserror::Error)]
enum PluginError {
    #[error("cannot read the plugin `{}`: {error}", folder.display())]
    Read { folder: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Build(#[from] millrace_plugin::BuildError),
    #[error(transparent)]
    Store(#[from] millrace_store::StoreError),
}

/// Finds components at paths.
pub(super) struct Paths<'a> {
    pub(super) store: &'a Store,
}

impl ComponentSource for Paths<'_> {
    fn resolve(&self, uses: &Uses, folder: &Path) -> Result<Resolved, ResolveError> {
        let path = path_of(uses, folder);
        let missing = |error| ResolveError::new(format!("there is no component at `{}`: {error}", path.display()));
        if std::fs::metadata(&path).map_err(missing)?.is_dir() {
            return self.plugin(&path).map_err(|error| ResolveError::new(error.to_string()));
        }
        file(self.store, &path)
    }

    fn current(&self, uses: &Uses, folder: &Path) -> Option<ComponentDigest> {
        let path = path_of(uses, folder);
        let file = if std::fs::metadata(&path).ok()?.is_dir() { self.built(&path.canonicalize().ok()?)? } else { path };
        let digest = self.store.source_digest(&file).ok()?;
        Some(ComponentDigest::from_bytes(*digest.as_bytes()))
    }
}

fn path_of(uses: &Uses, folder: &Path) -> PathBuf {
    match uses {
        Uses::Path(path) => folder.join(path),
        _ => folder.to_owned(),
    }
}

/// The component in a file.
pub(super) fn file(store: &Store, path: &Path) -> Result<Resolved, ResolveError> {
    let io = |error: std::io::Error| ResolveError::new(format!("cannot read `{}`: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > bounds::COMPONENT_BYTES {
        let most = bounds::COMPONENT_BYTES;
        let message = format!("`{}` has {size} bytes, and a component has at most {most}", path.display());
        return Err(ResolveError::new(message));
    }
    let digest = store.source_digest(path).map_err(|error| ResolveError::new(error.to_string()))?;
    let digest = ComponentDigest::from_bytes(*digest.as_bytes());
    Ok(Resolved { digest, bytes: ComponentBytes::File(path.to_owned()) })
}

impl Paths<'_> {
    /// The component of a crate, which is built if its sources have changed since the last build.
    fn plugin(&self, folder: &Path) -> Result<Resolved, PluginError> {
        let io = |error: std::io::Error| PluginError::Read { folder: folder.to_owned(), error };
        let absolute = folder.canonicalize().map_err(io)?;
        let digest_of = |file: &Path| {
            let digest = self.store.source_digest(file)?;
            let digest = ComponentDigest::from_bytes(*digest.as_bytes());
            Ok::<_, PluginError>(Resolved { digest, bytes: ComponentBytes::File(file.to_owned()) })
        };
        if let Some(file) = self.built(&absolute) {
            return digest_of(&file);
        }
        let began = std::time::SystemTime::now();
        let millrace_plugin::Built { component: bytes, read } = millrace_plugin::build(&absolute)?;
        let blob = self.store.put_blob(&bytes)?;
        let file = self.store.blob_file(&blob.digest);
        // Building writes a lock file, which is a source.
        let stamp = millrace_plugin::stamp(&absolute).and_then(|stamp| stamp.with(&read)).map_err(io)?;
        if !stamp.is_newer_than(began) {
            let name = plugin_name(&absolute);
            let built = BuiltPlugin { stamp, file };
            self.store.put_record(&name, &built)?;
        }
        let digest = ComponentDigest::from_bytes(*blob.digest.as_bytes());
        Ok(Resolved { digest, bytes: ComponentBytes::Owned(bytes.into()) })
    }

    /// The file of the component of a crate, if it was built from the current sources.
    fn built(&self, absolute: &Path) -> Option<PathBuf> {
        let built = self.store.record::<BuiltPlugin>(&plugin_name(absolute))?;
        let digest = self.store.source_digest(&built.file).ok()?;
        // The file is a blob of the store, which may be corrupt.
        let is_intact = built.file.file_name().is_some_and(|name| name == digest.hex().as_str());
        if !is_intact {
            let _ = std::fs::remove_file(&built.file);
        }
        (is_intact && built.stamp.is_current(absolute)).then_some(built.file)
    }
}

fn plugin_name(absolute: &Path) -> PluginName {
    named("plugin", absolute.as_os_str().as_encoded_bytes(), &[]).into()
}
