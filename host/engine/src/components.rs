//! What `uses` names: the bytes of a component, what it says of itself, and what
//! it says of one use. Compiled only when something has to be asked or run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use millrace_registry::{Bundled, bundled};
use millrace_store::Store;
use millrace_threads::lock;
use millrace_types::wire::Kind;
use millrace_types::{
    ComponentDigest, DeclaredLimits, Manifest, ManifestName, Mode, PlanInput, PlanName, PluginName, Problem, Record,
    Reference, StepPlan, bounds,
};
use millrace_wasm::{Component, ComponentError, Engine};
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Span};

enum Bytes {
    Static(&'static [u8]),
    File(PathBuf),
    Owned(Arc<[u8]>),
}

/// A component that a pipeline uses.
pub struct Used {
    /// As written.
    pub uses: String,
    /// Of its bytes.
    pub digest: ComponentDigest,
    /// What it says of itself.
    pub manifest: Arc<Manifest>,
    bytes: Bytes,
    compiled: Arc<Compiled>,
}

/// A component in the form that runs, when somebody has asked for it.
type Compiled = OnceLock<Result<Component, ComponentError>>;

/// What is made once, whoever needs it first.
#[derive(Default)]
struct Shared {
    engine: OnceLock<Result<Engine, ComponentError>>,
    compiled: Mutex<HashMap<ComponentDigest, Arc<Compiled>>>,
}

/// Loads components, each once.
pub struct Components {
    store: Store,
    shared: Arc<Shared>,
    known: HashMap<(PathBuf, String), Arc<Used>>,
}

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

type Planned = Result<StepPlan, Vec<Problem>>;

impl Shared {
    fn compiled(&self, digest: &ComponentDigest) -> Arc<Compiled> {
        lock(&self.compiled).entry(*digest).or_default().clone()
    }
}

impl Components {
    /// None loaded yet.
    pub fn new(store: Store) -> Self {
        Self { store, shared: Arc::default(), known: HashMap::new() }
    }

    /// Begins to make the engine, some hundred calls of the system, and to load the code of
    /// standard steps that the last run used, beside whatever else is to be done before the first
    /// component is asked.
    pub(crate) fn prepare(&self) {
        let (shared, store) = (self.shared.clone(), self.store.clone());
        let make = move || {
            let Ok(engine) = shared.engine.get_or_init(new_engine) else { return };
            for bundled in bundled() {
                let was_used = || store.is_indexed::<Manifest>(&manifest_name(&bundled.digest));
                let code = store.compiled_path(engine.fingerprint(), &bundled.digest);
                // To compile it may be for nothing.
                if was_used() && (shipped(bundled).is_some() || code.exists()) {
                    shared
                        .compiled(&bundled.digest)
                        .get_or_init(|| engine.component(bundled.bytes, shipped(bundled), Some(code)));
                }
            }
        };
        // Whoever needs it makes it, if this does not.
        let _ = std::thread::Builder::new().name("engine".to_owned()).spawn(make);
    }

    fn engine(&self) -> Result<&Engine, ComponentError> {
        let engine = self.shared.engine.get_or_init(new_engine);
        engine.as_ref().map_err(Clone::clone)
    }

    /// The store that they are kept in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The component that `uses` names, written in a file of `folder`.
    ///
    /// # Errors
    /// When there is no such component, or it is no step.
    pub fn load(&mut self, uses: &str, folder: &Path, span: &Span) -> Result<Arc<Used>, Diagnostic> {
        let key = (folder.to_owned(), uses.to_owned());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let (digest, bytes) = self.find(uses, folder, span)?;
        let name = manifest_name(&digest);
        let mut used = Used {
            uses: uses.to_owned(),
            digest,
            manifest: Arc::new(empty_manifest()),
            bytes,
            compiled: self.shared.compiled(&digest),
        };
        let manifest = match self.store.record::<Manifest>(&name) {
            Some(manifest) => manifest,
            None => {
                let component = self.component(&used);
                let manifest = component.and_then(|component| component.describe()).map_err(|error| {
                    Diagnostic::new(format!("`{uses}` cannot be used: {error}")).at(span, "this component")
                })?;
                // A cache of what can be asked again: not to have it is no failure.
                let _ = self.store.put_record(&name, &manifest);
                manifest
            }
        };
        used.manifest = Arc::new(manifest);
        let used = Arc::new(used);
        self.known.insert(key, used.clone());
        Ok(used)
    }

    /// The components that are not part of the program: the folder of the file that names
    /// them, the name, and what they are.
    pub(crate) fn not_bundled(&self) -> impl Iterator<Item = (PathBuf, String, ComponentDigest)> + '_ {
        let own = self.known.iter().filter(|((_, uses), _)| !uses.starts_with("std:"));
        own.map(|((folder, uses), used)| (folder.clone(), uses.clone(), used.digest))
    }

    /// Whether a name still means the same component; one that has to be built first does not.
    pub(crate) fn is_current(&self, uses: &str, folder: &Path, digest: &ComponentDigest) -> bool {
        let path = uses.strip_prefix("path:").map(|rest| folder.join(rest));
        let Some(meta) = path.as_ref().and_then(|path| std::fs::metadata(path).ok()) else { return false };
        let path = path.unwrap_or_default();
        let found = if meta.is_dir() {
            path.canonicalize().ok().and_then(|path| self.built(&path)).map(|file| self.store.source_digest(&file))
        } else {
            Some(self.store.source_digest(&path))
        };
        found.is_some_and(|found| found.is_ok_and(|found| found.as_bytes() == digest.as_bytes()))
    }

    fn find(&self, uses: &str, folder: &Path, span: &Span) -> Result<(ComponentDigest, Bytes), Diagnostic> {
        let Some((scheme, rest)) = uses.split_once(':') else {
            let error = Diagnostic::new(format!("`{uses}` names no component")).at(span, "no scheme");
            return Err(
                error.help(format!("write `std:{uses}` for a standard step, or `path:{uses}` for one of yours"))
            );
        };
        match scheme {
            "std" => {
                let Some(found) = bundled().iter().find(|bundled| bundled.name == rest) else {
                    let error = Diagnostic::new(format!("there is no standard step `{rest}`")).at(span, "not known");
                    if bundled().is_empty() {
                        return Err(error.help(
                            "this host was built without the standard steps: build it with `cargo xtask build`",
                        ));
                    }
                    return Err(error.suggest(rest, bundled().iter().map(|bundled| bundled.name)));
                };
                Ok((found.digest, Bytes::Static(found.bytes)))
            }
            "path" => self.local(&folder.join(rest), span),
            "oci" => Err(Diagnostic::new("components from registries are not known to this version").at(span, "here")),
            _ => {
                let error = Diagnostic::new(format!("`{scheme}:` is no kind of component")).at(span, "not known");
                Err(error.suggest(scheme, ["std", "path", "oci"]))
            }
        }
    }

    fn local(&self, path: &Path, span: &Span) -> Result<(ComponentDigest, Bytes), Diagnostic> {
        let fail = |what: String| Diagnostic::new(what).at(span, "this component");
        let meta = std::fs::metadata(path)
            .map_err(|error| fail(format!("there is no component at `{}`: {error}", path.display())))?;
        if meta.is_dir() {
            return self.plugin(path).map_err(|error| fail(error.to_string()));
        }
        if meta.len() > bounds::COMPONENT_BYTES {
            let most = bounds::COMPONENT_BYTES;
            return Err(fail(format!(
                "`{}` has {} bytes, and a component has at most {most}",
                path.display(),
                meta.len()
            )));
        }
        let digest = self.store.source_digest(path).map_err(|error| fail(error.to_string()))?;
        Ok((ComponentDigest::from_bytes(*digest.as_bytes()), Bytes::File(path.to_owned())))
    }

    /// A crate: built when its sources are not those of the last build.
    fn plugin(&self, folder: &Path) -> Result<(ComponentDigest, Bytes), PluginError> {
        let io = |error: std::io::Error| PluginError::Read { folder: folder.to_owned(), error };
        let absolute = folder.canonicalize().map_err(io)?;
        let digest_of = |file: &Path| {
            let digest = self.store.source_digest(file)?;
            Ok::<_, PluginError>((ComponentDigest::from_bytes(*digest.as_bytes()), Bytes::File(file.to_owned())))
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
        Ok((digest, Bytes::Owned(bytes.into())))
    }

    /// The component of a crate, if it was built from what the crate is now.
    fn built(&self, absolute: &Path) -> Option<PathBuf> {
        let built = self.store.record::<BuiltPlugin>(&plugin_name(absolute))?;
        let digest = self.store.source_digest(&built.file).ok()?;
        // The file is a blob of the store, which may have been harmed.
        let is_whole = built.file.file_name().is_some_and(|name| name == digest.hex().as_str());
        if !is_whole {
            let _ = std::fs::remove_file(&built.file);
        }
        (is_whole && built.stamp.is_current(absolute)).then_some(built.file)
    }

    /// The compiled component; compiled once, however many ask at a time.
    ///
    /// # Errors
    /// When it is no step.
    pub fn component<'a>(&self, used: &'a Used) -> Result<&'a Component, ComponentError> {
        let compiled = used.compiled.get_or_init(|| {
            let engine = self.engine()?;
            let bytes = self.bytes(used)?;
            let code = self.store.compiled_path(engine.fingerprint(), &used.digest);
            engine.component(bytes, shipped_code(&used.digest), Some(code))
        });
        compiled.as_ref().map_err(Clone::clone)
    }

    /// The bytes of a component.
    ///
    /// # Errors
    /// When its file cannot be read, or has changed.
    pub(crate) fn bytes(&self, used: &Used) -> Result<Cow<'static, [u8]>, ComponentError> {
        let path = match &used.bytes {
            Bytes::Static(bytes) => return Ok((*bytes).into()),
            Bytes::Owned(bytes) => return Ok(bytes.to_vec().into()),
            Bytes::File(path) => path,
        };
        let not_a_component = |reason: String| ComponentError::NotAComponent { reason };
        let bytes = std::fs::read(path).map_err(|error| not_a_component(format!("`{}`: {error}", path.display())))?;
        if ComponentDigest::of(&bytes) != used.digest {
            return Err(not_a_component("its file changed while the pipeline was read: run again".to_owned()));
        }
        Ok(bytes.into())
    }

    /// What the step says of a use; asked once for each different use.
    ///
    /// # Errors
    /// When the component does not answer.
    pub fn plan(&self, used: &Used, params: &str, inputs: &[PlanInput]) -> Result<Planned, ComponentError> {
        let question = (params, inputs.iter().map(|input| (&input.port, &input.schema)).collect::<Vec<_>>());
        let question = serde_json::to_vec(&question).unwrap_or_default();
        let name = PlanName::from(named("plan", used.digest.as_bytes(), &question));
        if let Some(plan) = self.store.record::<StepPlan>(&name) {
            return Ok(Ok(plan));
        }
        let planned = self.component(used)?.plan(&used.manifest, params, inputs)?;
        if let Ok(plan) = &planned {
            let _ = self.store.put_record(&name, plan);
        }
        Ok(planned)
    }
}

/// The code that ships with this host for a standard step, if it is of the version that this
/// host runs.
fn shipped(bundled: &Bundled) -> Option<&'static [u8]> {
    static VERSION: LazyLock<String> = LazyLock::new(Engine::shipped_version);
    bundled.code.filter(|(version, _)| *version == *VERSION).map(|(_, code)| code)
}

/// The code that ships with this host for a component.
pub(crate) fn shipped_code(digest: &ComponentDigest) -> Option<&'static [u8]> {
    bundled().iter().find(|bundled| bundled.digest == *digest).and_then(shipped)
}

fn new_engine() -> Result<Engine, ComponentError> {
    Engine::new().map_err(|error| ComponentError::Link { reason: format!("{error:#}") })
}

fn plugin_name(absolute: &Path) -> PluginName {
    named("plugin", absolute.as_os_str().as_encoded_bytes(), &[]).into()
}

fn manifest_name(component: &ComponentDigest) -> ManifestName {
    named("manifest", component.as_bytes(), &[]).into()
}

/// A name that depends on the version of the step world.
fn named(kind: &str, digest: &[u8], more: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 component record");
    for bytes in [kind.as_bytes(), millrace_types::action_key::WORLD_VERSION.as_bytes(), digest, more] {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize()
}

fn empty_manifest() -> Manifest {
    Manifest {
        name: String::new(),
        version: String::new(),
        doc: String::new(),
        mode: Mode::Whole,
        inputs: Vec::new(),
        outputs: Vec::new(),
        params_schema: String::new(),
        limits: DeclaredLimits::default(),
    }
}
