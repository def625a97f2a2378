//! WASI, for components of other toolchains: closed, and the same on every machine.
//!
//! Such a component sees no network and no terminal; of files and of the environment
//! what its step was granted, to read. Its clocks stand still, a wait is over at once,
//! and its random bytes follow from the key of its task. What it prints becomes its log.
//! What machines say differently of the same file is taken away: times, links, places on
//! the disk, the order of a folder.
//!
//! Interfaces that are not here (sockets, HTTP) can be imported, for toolchains import
//! what they do not use; a call of them is a trap.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millrace_types::{Level, LogLine, bounds};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasData, Linker, Resource, ResourceTable, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::sync::filesystem::types::{
    self as files, Descriptor, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode,
    HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, PathFlags,
};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem};
use wasmtime_wasi::p2::{DynPollable, FsResult, OutputStream, Pollable, StreamResult, bindings, subscribe};
use wasmtime_wasi::random::{WasiRandom, WasiRandomCtx};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::output::EmitError;
use crate::task::{Grants, TaskState, cut};

/// Version that the bindings of `wasmtime-wasi` have.
const VERSION: &str = "0.2.12";

/// Streams, files and the like that a guest may hold at a time.
const RESOURCES: usize = 10_000;

/// Entries of folders that are being read at a time.
const ENTRIES: usize = 1_000_000;

/// Bytes of a line that a guest prints without an end.
const LINE: usize = bounds::LOG_LINE_BYTES;

/// What a component with WASI sees of the world.
pub(crate) struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    printed: Arc<Mutex<Printed>>,
    /// Numbers of files in the order in which they were looked at.
    seen: HashMap<(u64, u64), u64>,
    /// Folders that are being read: entries in the order of their names.
    folders: HashMap<u32, VecDeque<DirectoryEntry>>,
}

impl Wasi {
    /// Nothing granted.
    pub(crate) fn closed(seed: &[u8; 32]) -> Self {
        let (mut builder, printed) = Self::builder(seed);
        Self::built(&mut builder, printed)
    }

    /// # Errors
    /// When a folder that was granted cannot be opened.
    pub(crate) fn new(seed: &[u8; 32], grants: &Grants) -> wasmtime::Result<Self> {
        let (mut builder, printed) = Self::builder(seed);
        for (name, value) in &grants.env {
            builder.env(name, value);
        }
        for (name, folder) in &grants.read {
            builder.preopened_dir(folder, name, FsPerms::ReadOnly)?;
        }
        Ok(Self::built(&mut builder, printed))
    }

    fn builder(seed: &[u8; 32]) -> (WasiCtxBuilder, Arc<Mutex<Printed>>) {
        let printed = Arc::new(Mutex::new(Printed::default()));
        let stream = |level| Print { level, printed: printed.clone() };
        let mut insecure_seed = [0; 16];
        Random::new(seed, "insecure seed").0.fill(&mut insecure_seed);
        let mut builder = WasiCtxBuilder::new();
        builder
            .stdout(stream(Level::Info))
            .stderr(stream(Level::Warn))
            .wall_clock(Frozen)
            .monotonic_clock(Frozen)
            .secure_random(Random::new(seed, "secure"))
            .insecure_random(Random::new(seed, "insecure"))
            .insecure_random_seed(u128::from_le_bytes(insecure_seed));
        (builder, printed)
    }

    fn built(builder: &mut WasiCtxBuilder, printed: Arc<Mutex<Printed>>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Self { ctx: builder.build(), table, printed, seen: HashMap::new(), folders: HashMap::new() }
    }

    /// What the guest printed, as lines.
    pub(crate) fn into_log(self) -> Vec<LogLine> {
        let mut printed = std::mem::take(&mut *self.printed.lock().unwrap_or_else(PoisonError::into_inner));
        for level in [Level::Info, Level::Warn] {
            printed.end_line(level);
        }
        printed.lines
    }
}

impl WasiView for TaskState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Wasi { ctx, table, .. } = self.wasi();
        WasiCtxView { ctx, table }
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

/// A wait that is over.
struct Over;

#[wasmtime_wasi::async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}

/// Bytes that follow from a seed: the output of BLAKE3, as long as it is asked for.
struct Random(blake3::OutputReader);

impl Random {
    fn new(seed: &[u8; 32], what: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 random bytes of a task");
        hasher.update(seed).update(what.as_bytes());
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

/// Lines so far, and those that have no end yet.
#[derive(Default)]
struct Printed {
    lines: Vec<LogLine>,
    open: [Vec<u8>; 2],
}

impl Printed {
    fn place(level: Level) -> usize {
        usize::from(level == Level::Warn)
    }

    fn push(&mut self, level: Level, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let open = &mut self.open[Self::place(level)];
            // A little more than a line may have, so that it is seen to be cut.
            let room = (LINE + 4).saturating_sub(open.len());
            open.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                // An empty line is a line.
                open.push(b' ');
                self.end_line(level);
            }
        }
    }

    fn end_line(&mut self, level: Level) {
        let bytes = std::mem::take(&mut self.open[Self::place(level)]);
        if !bytes.is_empty() && self.lines.len() < bounds::LOG_LINES {
            let message = cut(String::from_utf8_lossy(&bytes).trim_end().to_owned(), LINE);
            self.lines.push(LogLine { level, message });
        }
    }
}

/// Standard output or error.
#[derive(Clone)]
struct Print {
    level: Level,
    printed: Arc<Mutex<Printed>>,
}

impl IsTerminal for Print {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Print {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Print {
    async fn ready(&mut self) {}
}

impl OutputStream for Print {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).push(self.level, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

type Cx<'a> = StoreContextMut<'a, TaskState>;

/// Whether a name that a component imports is WASI's.
pub(crate) fn is_wasi(import: &str) -> bool {
    import.starts_with("wasi:")
}

/// Defines all of it.
pub(crate) fn link(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    use bindings::sync::io;
    type T = TaskState;
    fn random(state: &mut T) -> &mut WasiRandomCtx {
        state.wasi().ctx.random()
    }
    fn table(state: &mut T) -> &mut ResourceTable {
        &mut state.wasi().table
    }
    bindings::random::random::add_to_linker::<T, WasiRandom>(linker, random)?;
    bindings::random::insecure::add_to_linker::<T, WasiRandom>(linker, random)?;
    bindings::random::insecure_seed::add_to_linker::<T, WasiRandom>(linker, random)?;
    clocks::wall_clock::add_to_linker::<T, WasiClocks>(linker, T::clocks)?;
    clocks::monotonic_clock::add_to_linker::<T, WasiClocks>(linker, T::clocks)?;
    filesystem::preopens::add_to_linker::<T, WasiFilesystem>(linker, T::filesystem)?;
    files::add_to_linker::<T, WasiFilesystem>(linker, T::filesystem)?;
    cli::exit::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::environment::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stdin::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stdout::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stderr::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_input::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_output::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdin::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdout::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stderr::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    io::error::add_to_linker::<T, Io>(linker, table)?;
    io::poll::add_to_linker::<T, Io>(linker, table)?;
    io::streams::add_to_linker::<T, Io>(linker, table)?;
    linker.allow_shadowing(true);
    shadow_waiting(linker)?;
    shadow_files(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Packages that [`link`] defines.
const DEFINED: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

/// Resources of `wasi:io`, which others only name.
const OF_IO: [&str; 4] = ["error", "input-stream", "output-stream", "pollable"];

/// A resource that nobody ever has.
struct Absent;

/// Defines what a component imports of the rest of WASI: a call of it is an error.
pub(crate) fn stub(linker: &mut Linker<TaskState>, code: &Component, engine: &Engine) -> wasmtime::Result<()> {
    for (name, item) in code.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(ty) = item.ty else { continue };
        if !is_wasi(name) || DEFINED.iter().any(|package| name.starts_with(package)) {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (inner, item) in ty.exports(engine) {
            match item.ty {
                ComponentItem::ComponentFunc(_) => {
                    let message = format!("it called `{inner}` of `{name}`, which is not there");
                    let call = move |_: Cx<'_>, _, _: &[Val], _: &mut [Val]| {
                        Err(wasmtime::Error::new(EmitError::Misuse(message.clone())))
                    };
                    instance.func_new(inner, call)?;
                }
                ComponentItem::Resource(_) if !OF_IO.contains(&inner) => {
                    instance.resource(inner, ResourceType::host::<Absent>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// On clocks that stand still nobody waits.
fn shadow_waiting(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    fn over(mut cx: Cx<'_>, _: (u64,)) -> wasmtime::Result<(Resource<DynPollable>,)> {
        let table = &mut cx.data_mut().wasi().table;
        let over = table.push(Over)?;
        Ok((subscribe(table, over)?,))
    }
    let mut clock = linker.instance(&format!("wasi:clocks/monotonic-clock@{VERSION}"))?;
    clock.func_wrap("subscribe-instant", over)?;
    clock.func_wrap("subscribe-duration", over)
}

/// What a function of WASI's files gives back: a value, or the code of an error.
type Answer<R> = wasmtime::Result<(Result<R, ErrorCode>,)>;

fn answer<R>(result: FsResult<R>) -> Answer<R> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?.into()),)),
    }
}

/// What is the same on every machine.
fn plain(stat: DescriptorStat) -> DescriptorStat {
    let size = if stat.type_ == DescriptorType::RegularFile { stat.size } else { 0 };
    DescriptorStat {
        type_: stat.type_,
        size,
        link_count: 1,
        data_access_timestamp: None,
        data_modification_timestamp: None,
        status_change_timestamp: None,
    }
}

/// The number of a file, in the order in which the guest met them.
fn number(wasi: &mut Wasi, hash: &MetadataHashValue) -> MetadataHashValue {
    let next = wasi.seen.len() as u64 + 1;
    let lower = *wasi.seen.entry((hash.lower, hash.upper)).or_insert(next);
    MetadataHashValue { lower, upper: 0 }
}

fn shadow_files(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    let mut types = linker.instance(&format!("wasi:filesystem/types@{VERSION}"))?;
    types.func_wrap("[method]descriptor.stat", |mut cx: Cx<'_>, (file,): (Resource<Descriptor>,)| {
        answer(HostDescriptor::stat(&mut cx.data_mut().filesystem(), file).map(plain))
    })?;
    types.func_wrap(
        "[method]descriptor.stat-at",
        |mut cx: Cx<'_>, (file, flags, path): (Resource<Descriptor>, PathFlags, String)| {
            answer(HostDescriptor::stat_at(&mut cx.data_mut().filesystem(), file, flags, path).map(plain))
        },
    )?;
    types.func_wrap("[method]descriptor.metadata-hash", |mut cx: Cx<'_>, (file,): (Resource<Descriptor>,)| {
        let hash = HostDescriptor::metadata_hash(&mut cx.data_mut().filesystem(), file);
        answer(hash.map(|hash| number(cx.data_mut().wasi(), &hash)))
    })?;
    types.func_wrap(
        "[method]descriptor.metadata-hash-at",
        |mut cx: Cx<'_>, (file, flags, path): (Resource<Descriptor>, PathFlags, String)| {
            let hash = HostDescriptor::metadata_hash_at(&mut cx.data_mut().filesystem(), file, flags, path);
            answer(hash.map(|hash| number(cx.data_mut().wasi(), &hash)))
        },
    )?;
    types.func_wrap("[method]descriptor.read-directory", |mut cx: Cx<'_>, (file,): (Resource<Descriptor>,)| {
        let mut view = cx.data_mut().filesystem();
        let mut read = HostDescriptor::read_directory(&mut view, file).and_then(|stream| {
            let mut entries = VecDeque::new();
            let rep = stream.rep();
            while let Some(entry) =
                HostDirectoryEntryStream::read_directory_entry(&mut view, Resource::new_borrow(rep))?
            {
                entries.push_back(entry);
            }
            entries.make_contiguous().sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok((stream, entries))
        });
        let folders = &mut cx.data_mut().wasi().folders;
        let held: usize = folders.values().map(VecDeque::len).sum();
        if let Ok((stream, entries)) = &mut read {
            if held + entries.len() > ENTRIES {
                return Err(wasmtime::Error::msg("it reads too many folders at a time"));
            }
            folders.insert(stream.rep(), std::mem::take(entries));
        }
        answer(read.map(|(stream, _)| stream))
    })?;
    types.func_wrap(
        "[method]directory-entry-stream.read-directory-entry",
        |mut cx: Cx<'_>, (stream,): (Resource<DirectoryEntryStream>,)| {
            let entry = cx.data_mut().wasi().folders.get_mut(&stream.rep()).and_then(VecDeque::pop_front);
            Ok((Ok::<_, ErrorCode>(entry),))
        },
    )
}
