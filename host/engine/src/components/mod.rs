//! The components of a pipeline: found, described, compiled and asked for plans, each once.
//!
//! ```text
//! source   the trait of what finds components, and what it returns
//! std      standard steps inside the host        path     files, and crates that are built
//! folder   a folder that serves as a registry
//! ```
//!
//! A component is compiled only when it has to be asked or run.

mod folder;
mod path;
mod source;
mod std_steps;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use millrace_registry::{Bundled, bundled};
use millrace_store::Store;
use millrace_threads::lock;
use millrace_types::{
    ComponentDigest, DeclaredLimits, Manifest, ManifestName, Mode, PlanInput, PlanName, Problem, StepPlan, Uses,
};
use millrace_wasm::{Component, ComponentError, Engine};

use crate::diagnostic::{Diagnostic, Span};
#[cfg(test)]
pub(crate) use path::BuiltPlugin;
use source::{ComponentBytes, ComponentSource, Resolved, named};

/// A component that a pipeline uses.
pub struct Used {
    /// The reference in the pipeline file.
    pub uses: Uses,
    /// The digest of its bytes.
    pub digest: ComponentDigest,
    /// What it declares about itself.
    pub manifest: Arc<Manifest>,
    bytes: ComponentBytes,
    compiled: Arc<Compiled>,
}

/// A component in the form that runs, once it was needed.
type Compiled = OnceLock<Result<Component, ComponentError>>;

/// The engine and the compiled components, each made by the first thread that needs it.
#[derive(Default)]
struct SharedEngine {
    engine: OnceLock<Result<Engine, ComponentError>>,
    compiled: Mutex<HashMap<ComponentDigest, Arc<Compiled>>>,
}

/// Loads components, each once.
pub struct Components {
    store: Store,
    shared: Arc<SharedEngine>,
    known: HashMap<(PathBuf, Uses), Arc<Used>>,
}

type Planned = Result<StepPlan, Vec<Problem>>;

impl SharedEngine {
    fn compiled(&self, digest: &ComponentDigest) -> Arc<Compiled> {
        lock(&self.compiled).entry(*digest).or_default().clone()
    }
}

impl Components {
    /// An empty library.
    pub fn new(store: Store) -> Self {
        Self { store, shared: Arc::default(), known: HashMap::new() }
    }

    /// Begins to create the engine, which takes some hundred system calls, and to load the code of
    /// standard steps that the last run used, in parallel to all that precedes the first question
    /// to a component.
    pub(crate) fn prepare(&self) {
        let (shared, store) = (self.shared.clone(), self.store.clone());
        let make = move || {
            let Ok(engine) = shared.engine.get_or_init(new_engine) else { return };
            for bundled in bundled() {
                let was_used = || store.is_indexed::<Manifest>(&manifest_name(&bundled.digest));
                let code = store.compiled_path(engine.fingerprint(), &bundled.digest);
                // Code is only loaded: compiling it may be for nothing.
                if was_used() && (shipped(bundled).is_some() || code.exists()) {
                    shared
                        .compiled(&bundled.digest)
                        .get_or_init(|| engine.component(bundled.bytes, shipped(bundled), Some(code)));
                }
            }
        };
        // Without the thread, the first user of the engine creates it.
        let _ = std::thread::Builder::new().name("engine".to_owned()).spawn(make);
    }

    fn engine(&self) -> Result<&Engine, ComponentError> {
        let engine = self.shared.engine.get_or_init(new_engine);
        engine.as_ref().map_err(Clone::clone)
    }

    /// The store of built components, manifests and plans.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The component of a reference in a file of `folder`.
    ///
    /// # Errors
    /// When there is no such component, or it is not a step.
    pub fn load(&mut self, uses: &Uses, folder: &Path, span: &Span) -> Result<Arc<Used>, Diagnostic> {
        let key = (folder.to_owned(), uses.clone());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let Resolved { digest, bytes } = self.source(uses).resolve(uses, folder).map_err(|error| error.at(span))?;
        let name = manifest_name(&digest);
        let mut used = Used {
            uses: uses.clone(),
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
                // Only a cache: the component can be asked again.
                let _ = self.store.put_record(&name, &manifest);
                manifest
            }
        };
        if let Uses::Folder(reference) = uses {
            folder::check_version(reference, &manifest).map_err(|error| error.at(span))?;
        }
        used.manifest = Arc::new(manifest);
        let used = Arc::new(used);
        self.known.insert(key, used.clone());
        Ok(used)
    }

    /// What finds components of this kind.
    fn source(&self, uses: &Uses) -> Box<dyn ComponentSource + '_> {
        match uses {
            Uses::Std(_) => Box::new(std_steps::StdSteps),
            Uses::Path(_) => Box::new(path::Paths { store: &self.store }),
            Uses::Folder(_) => Box::new(folder::Folders { store: &self.store }),
            Uses::Oci(_) => Box::new(source::NoSource),
        }
    }

    /// The components that are not part of the program: the folder of the file that refers to
    /// them, the reference, and the digest.
    pub(crate) fn not_bundled(&self) -> impl Iterator<Item = (PathBuf, String, ComponentDigest)> + '_ {
        let own = self.known.iter().filter(|((_, uses), _)| !matches!(uses, Uses::Std(_)));
        own.map(|((folder, uses), used)| (folder.clone(), uses.to_string(), used.digest))
    }

    /// Whether a reference still means the same component, as far as that is known without
    /// building it.
    pub(crate) fn is_current(&self, uses: &str, folder: &Path, digest: &ComponentDigest) -> bool {
        let Ok(uses) = uses.parse::<Uses>() else { return false };
        self.source(&uses).current(&uses, folder) == Some(*digest)
    }

    /// The compiled component; compiled once, by the first thread that needs it.
    ///
    /// # Errors
    /// When it is not a step.
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
            ComponentBytes::Static(bytes) => return Ok((*bytes).into()),
            ComponentBytes::Owned(bytes) => return Ok(bytes.to_vec().into()),
            ComponentBytes::File(path) => path,
        };
        let not_a_component = |reason: String| ComponentError::NotAComponent { reason };
        let bytes = std::fs::read(path).map_err(|error| not_a_component(format!("`{}`: {error}", path.display())))?;
        if ComponentDigest::of(&bytes) != used.digest {
            return Err(not_a_component("its file changed while the pipeline was read: run again".to_owned()));
        }
        Ok(bytes.into())
    }

    /// The plan of a use of the step; the component is asked once for each different use.
    ///
    /// # Errors
    /// When the component fails to answer.
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

fn manifest_name(component: &ComponentDigest) -> ManifestName {
    named("manifest", component.as_bytes(), &[]).into()
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
