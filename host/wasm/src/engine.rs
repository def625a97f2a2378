//! wasmtime, set up so that the same component and the same input give the same
//! bytes on every machine, and so that a guest can be stopped.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use wasmtime::component::Linker;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig, RegallocAlgorithm};

use crate::host;
use crate::slots::Slots;
use crate::task::TaskState;

/// Guests at a time, of all threads: more jobs than this there cannot be.
pub const SLOTS: u32 = 256;

/// Guests of tasks in rounds at a time: of one they all wait for each other, so that they
/// begin only when there is room for all of them.
const SEATS: u32 = 2 * crate::rounds::GUESTS as u32;

/// Core instances of one component: its own and the adapters of its imports.
const CORES: u32 = 16;

/// Tables of one component: as many of their own, and one more in each for `fuel`.
const TABLES: u32 = 2 * CORES;

/// Bytes of a slot that stay with the process between two guests. Each component keeps its slots,
/// and each thread its own ones, up to wasmtime's 100: what they keep grows with both.
const RESIDENT: usize = 8 << 20;

/// A wish to stop, shared by all tasks of a run.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks all tasks to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Set when somebody asked.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
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
    pub(crate) seats: Arc<Slots>,
    /// Whether wasmtime counts fuel, too.
    pub(crate) counts: bool,
    /// One that does, for components of several: made when there is one.
    composed: Arc<OnceLock<Option<Engine>>>,
}

fn config(counts: bool) -> Config {
    let mut config = Config::new();
    // The same bits everywhere: relaxed SIMD has one meaning, and that NaNs have one form is
    // written into a component before it is compiled (`rewrite`).
    config.relaxed_simd_deterministic(true);
    // Fuel is counted by components themselves, which say where they seldom go (`rewrite/fuel`).
    config.wasm_branch_hinting(true);
    config.consume_fuel(counts);
    config.max_wasm_stack(1 << 20);
    config.cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking);
    config
}

/// Slots for guests, used again: making and unmapping 4 GiB of addresses for each
/// task costs more than a small task does, and stops the other threads while the
/// processors forget the pages. A slot is zeroed before its next guest.
fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    let guests = SLOTS + SEATS;
    pool.total_component_instances(guests);
    pool.total_core_instances(guests * CORES);
    pool.total_memories(guests * 2);
    pool.total_tables(guests * TABLES);
    // For guests that wait for others. Each costs a call when the engine is made.
    pool.total_stacks(SEATS);
    pool.max_core_instances_per_component(CORES);
    pool.max_memories_per_component(2);
    pool.max_tables_per_component(TABLES);
    pool.max_tables_per_module(CORES);
    pool.max_component_instance_size(16 << 20);
    pool.max_core_instance_size(16 << 20);
    pool.table_elements(1 << 20);
    pool.max_memory_size(4 << 30);
    // What is zeroed by hand instead of being given back to the system.
    pool.pagemap_scan(wasmtime::Enabled::Auto);
    pool.linear_memory_keep_resident(RESIDENT);
    pool.table_keep_resident(64 << 10);
    InstanceAllocationStrategy::Pooling(pool)
}

impl Engine {
    /// Sets the engine up.
    ///
    /// # Errors
    /// When this machine cannot run WebAssembly.
    pub fn new() -> wasmtime::Result<Self> {
        Self::made(false, Slots::new(SEATS as usize))
    }

    /// For a component of several: what is copied between them is code of wasmtime, which only
    /// wasmtime can count. It costs more than to count in the components, and nobody else pays it.
    pub(crate) fn for_composed(&self) -> wasmtime::Result<Self> {
        let made = self.composed.get_or_init(|| Self::made(true, self.seats.clone()).ok());
        made.clone().ok_or_else(|| wasmtime::format_err!("this machine has no room for another engine"))
    }

    fn made(counts: bool, seats: Arc<Slots>) -> wasmtime::Result<Self> {
        let mut config = config(counts);
        // Where so many addresses cannot be had, each guest gets its own. Compiled
        // code is the same for both.
        let inner = wasmtime::Engine::new(config.allocation_strategy(pool()))
            .or_else(|_| wasmtime::Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand)))?;
        let mut linker = Linker::new(&inner);
        host::link(&mut linker)?;
        // A fixed hasher: std's default keys are constant when made this way.
        let mut hasher = std::hash::DefaultHasher::new();
        inner.precompile_compatibility_hash().hash(&mut hasher);
        crate::rewrite::VERSION.hash(&mut hasher);
        let fingerprint = format!("wasmtime-48-{}-{:016x}", std::env::consts::ARCH, hasher.finish());
        let (linker, fingerprint) = (Arc::new(linker), fingerprint.into());
        Ok(Self { inner, linker, fingerprint, seats, counts, composed: Arc::default() })
    }

    /// Names the code that this engine makes: another version, target or
    /// configuration has another.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
