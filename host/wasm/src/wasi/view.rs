//! What a component with WASI sees of the world.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_threads::lock;
use millrace_types::{ActionKey, Grants, Level, LogLine};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::bindings::sync::filesystem::types::DirectoryEntry;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};

use super::printed::{Print, Printed};

/// Streams, files and the like that a guest may hold at a time.
const MAX_RESOURCES: usize = 10_000;

/// The view of one guest.
pub(crate) struct Wasi {
    pub(super) ctx: WasiCtx,
    pub(super) table: ResourceTable,
    printed: Arc<Mutex<Printed>>,
    /// Numbers of files, in the order in which the guest first asked for them.
    pub(super) inodes: HashMap<(u64, u64), u64>,
    /// Folders that are being read: their entries, sorted by name.
    pub(super) folders: HashMap<u32, VecDeque<DirectoryEntry>>,
}

impl Wasi {
    /// The view of a component that describes itself or plans: nothing is granted.
    pub(crate) fn closed() -> Self {
        let (mut builder, printed) = Self::builder(&ActionKey::from_bytes([0; 32]));
        Self::built(&mut builder, printed)
    }

    /// The view of a task.
    ///
    /// # Errors
    /// When a folder that was granted cannot be opened.
    pub(crate) fn new(key: &ActionKey, grants: &Grants) -> wasmtime::Result<Self> {
        let (mut builder, printed) = Self::builder(key);
        for (name, value) in &grants.env {
            builder.env(name, value);
        }
        for (name, folder) in &grants.read {
            builder.preopened_dir(folder, name, FsPerms::ReadOnly)?;
        }
        Ok(Self::built(&mut builder, printed))
    }

    fn builder(key: &ActionKey) -> (WasiCtxBuilder, Arc<Mutex<Printed>>) {
        let printed = Arc::new(Mutex::new(Printed::default()));
        let stream = |level| Print { level, printed: printed.clone() };
        let mut insecure_seed = [0; 16];
        Random::new(key, "insecure seed").0.fill(&mut insecure_seed);
        let mut builder = WasiCtxBuilder::new();
        builder
            .stdout(stream(Level::Info))
            .stderr(stream(Level::Warn))
            .wall_clock(Frozen)
            .monotonic_clock(Frozen)
            .secure_random(Random::new(key, "secure"))
            .insecure_random(Random::new(key, "insecure"))
            .insecure_random_seed(u128::from_le_bytes(insecure_seed));
        (builder, printed)
    }

    fn built(builder: &mut WasiCtxBuilder, printed: Arc<Mutex<Printed>>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self { ctx: builder.build(), table, printed, inodes: HashMap::new(), folders: HashMap::new() }
    }

    /// What the guest printed, as lines.
    pub(crate) fn into_log(self) -> Vec<LogLine> {
        std::mem::take(&mut *lock(&self.printed)).into_lines()
    }
}

/// Clocks that stand at zero.
struct Frozen;

impl HostWallClock for Frozen {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Frozen {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Random bytes that follow from the key of the task: the extended output of BLAKE3.
struct Random(blake3::OutputReader);

impl Random {
    fn new(key: &ActionKey, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 random bytes of a task");
        hasher.update(key.as_bytes()).update(purpose.as_bytes());
        Self(hasher.finalize_xof())
    }

    fn next<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }
}

impl rand_core::TryRng for Random {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(self.next()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes(self.next()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}
