//! wasmtime, set up so that the same component and the same input give the same
//! bytes on every machine, and so that a guest can be stopped.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use millrace_threads::Slots;
use wasmtime::component::Linker;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig, RegallocAlgorithm};

use crate::collective::MAX_RANKS;
use crate::host;
use crate::rewrite;
use crate::state::TaskState;

/// Guests at a time, of all threads: the largest number of jobs.
pub const MAX_JOBS: u32 = 256;

/// Guests of tasks in rounds at a time. Those of one task wait for each other, so a task
/// begins only when there is room for all of them.
const ROUNDS_GUESTS: u32 = 2 * MAX_RANKS as u32;

/// Core instances of one component: its own and the adapters of its imports.
const CORES: u32 = 16;

/// Tables of one component: as many of their own, and one more in each for `fuel`.
const TABLES: u32 = 2 * CORES;

/// Bytes of a pool slot that stay resident between two guests. wasmtime keeps up to 100 warm
/// slots, by component and thread, so what they hold grows with both.
const RESIDENT: usize = 8 << 20;

/// Compiles components and runs them. One for a process; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: wasmtime::Engine,
    pub(crate) linker: Arc<Linker<TaskState>>,
    fingerprint: Arc<str>,
    /// Room for the guests of tasks in rounds.
    pub(crate) guests: Arc<Slots>,
    /// Whether wasmtime counts fuel, besides the components themselves.
    pub(crate) counts: bool,
    /// An engine that does, for composed components: made when there is one.
    composed: Arc<OnceLock<Option<Engine>>>,
}

fn config(counts: bool) -> Config {
    let mut config = Config::new();
    // The same bits everywhere: relaxed SIMD is deterministic, and a component is rewritten
    // to canonicalise NaNs before it is compiled (`rewrite`).
    config.relaxed_simd_deterministic(true);
    // Components count fuel themselves and mark cold branches (`rewrite/fuel`).
    config.wasm_branch_hinting(true);
    config.consume_fuel(counts);
    config.max_wasm_stack(1 << 20);
    config.cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking);
    config
}

/// Pooled slots for guests: mapping and unmapping 4 GiB of addresses for each task costs more
/// than a small task does, and the TLB shootdown stops the other threads. A slot is zeroed
/// before its next guest.
fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    let guests = MAX_JOBS + ROUNDS_GUESTS;
    pool.total_component_instances(guests);
    pool.total_core_instances(guests * CORES);
    pool.total_memories(guests * 2);
    pool.total_tables(guests * TABLES);
    // For guests in rounds. Each costs a system call when the engine is made.
    pool.total_stacks(ROUNDS_GUESTS);
    pool.max_core_instances_per_component(CORES);
    pool.max_memories_per_component(2);
    pool.max_tables_per_component(TABLES);
    pool.max_tables_per_module(CORES);
    pool.max_component_instance_size(16 << 20);
    pool.max_core_instance_size(16 << 20);
    pool.table_elements(1 << 20);
    pool.max_memory_size(4 << 30);
    // Memory that is zeroed instead of being returned to the system.
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
        Self::made(false, Slots::new(ROUNDS_GUESTS as usize))
    }

    /// The engine for composed components: copies between their parts are code of wasmtime,
    /// which only wasmtime can count. That is slower, so other components do not use it.
    pub(crate) fn for_composed(&self) -> wasmtime::Result<Self> {
        let made = self.composed.get_or_init(|| Self::made(true, self.guests.clone()).ok());
        made.clone().ok_or_else(|| wasmtime::format_err!("this machine has no room for another engine"))
    }

    fn made(counts: bool, guests: Arc<Slots>) -> wasmtime::Result<Self> {
        let mut config = config(counts);
        // Where the system refuses that many addresses, each guest is allocated on demand.
        // Compiled code is the same for both.
        let inner = wasmtime::Engine::new(config.allocation_strategy(pool()))
            .or_else(|_| wasmtime::Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand)))?;
        let mut linker = Linker::new(&inner);
        host::link(&mut linker)?;
        // A fixed hasher: std's default keys are constant when made this way.
        let mut hasher = std::hash::DefaultHasher::new();
        inner.precompile_compatibility_hash().hash(&mut hasher);
        rewrite::VERSION.hash(&mut hasher);
        let fingerprint = format!("wasmtime-48-{}-{:016x}", std::env::consts::ARCH, hasher.finish());
        let (linker, fingerprint) = (Arc::new(linker), fingerprint.into());
        Ok(Self { inner, linker, fingerprint, guests, counts, composed: Arc::default() })
    }

    /// Identifies the code that [`precompile`](crate::precompile) makes, as far as wasmtime does
    /// not check it: its own version, the configuration and the features of the processor are
    /// checked when the code is loaded.
    pub fn shipped_version() -> String {
        format!("wasmtime-48-{}-{}", std::env::consts::ARCH, rewrite::VERSION)
    }

    /// An engine that compiles for all processors of this kind, not for this one: on x86-64
    /// those of x86-64-v3, since a guest without FMA instructions would be many times slower.
    pub(crate) fn portable() -> wasmtime::Result<wasmtime::Engine> {
        let mut config = config(false);
        config.allocation_strategy(pool());
        config.target(&host_triple())?;
        portable_features(&mut config);
        wasmtime::Engine::new(&config)
    }

    /// Identifies the code that this engine makes: another version, target or configuration has
    /// another fingerprint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The triple of this host, in the form that wasmtime parses.
fn host_triple() -> String {
    let arch = std::env::consts::ARCH;
    match std::env::consts::OS {
        "macos" => format!("{arch}-apple-darwin"),
        "windows" => format!("{arch}-pc-windows-msvc"),
        os => format!("{arch}-unknown-{os}-gnu"),
    }
}

/// Enables the features of x86-64-v3 that Cranelift knows; other kinds of processors have what
/// is needed in their base.
#[expect(unsafe_code, reason = "wasmtime cannot check flags that are set by name")]
fn portable_features(config: &mut Config) {
    if cfg!(target_arch = "x86_64") {
        for feature in [
            "has_sse3",
            "has_ssse3",
            "has_cmpxchg16b",
            "has_sse41",
            "has_sse42",
            "has_popcnt",
            "has_avx",
            "has_avx2",
            "has_fma",
            "has_bmi1",
            "has_bmi2",
            "has_lzcnt",
        ] {
            // SAFETY: code for a processor with these features is run only after wasmtime has
            // checked, as it loads the code, that this processor has them.
            unsafe {
                config.cranelift_flag_enable(feature);
            }
        }
    }
}
