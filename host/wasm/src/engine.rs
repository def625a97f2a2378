//! wasmtime, set up so that the same component and the same input give the same
//! bytes on every machine, and so that a guest can be stopped.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, RegallocAlgorithm};

use crate::host;
use crate::task::TaskState;

/// How often a running guest looks whether it should stop.
const TICK: Duration = Duration::from_millis(10);

/// A wish to stop, shared by all tasks of a run.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks all tasks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Compiles components and runs them. One for a process; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: wasmtime::Engine,
    pub(crate) linker: Arc<Linker<TaskState>>,
    fingerprint: Arc<str>,
    _ticker: Arc<Ticker>,
}

/// Advances the epoch while there is an engine.
struct Ticker(Arc<AtomicBool>);

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn config() -> Config {
    let mut config = Config::new();
    // The same bits everywhere: NaNs have one form, relaxed SIMD one meaning.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    // Fuel is counted the same everywhere; the epoch only ever ends a task.
    config.consume_fuel(true);
    config.epoch_interruption(true);
    config.max_wasm_stack(1 << 20);
    config.cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking);
    config
}

impl Engine {
    /// Sets the engine up.
    ///
    /// # Errors
    /// When this machine cannot run WebAssembly.
    pub fn new() -> wasmtime::Result<Self> {
        let inner = wasmtime::Engine::new(&config())?;
        let mut linker = Linker::new(&inner);
        host::link(&mut linker)?;
        // A fixed hasher: std's default keys are constant when made this way.
        let mut hasher = std::hash::DefaultHasher::new();
        inner.precompile_compatibility_hash().hash(&mut hasher);
        let fingerprint = format!("wasmtime-48-{}-{:016x}", std::env::consts::ARCH, hasher.finish());
        let stop = Arc::new(AtomicBool::new(false));
        let (engine, stopped) = (inner.clone(), stop.clone());
        std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(Self { inner, linker: Arc::new(linker), fingerprint: fingerprint.into(), _ticker: Arc::new(Ticker(stop)) })
    }

    /// Names the code that this engine makes: another version, target or
    /// configuration has another.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
