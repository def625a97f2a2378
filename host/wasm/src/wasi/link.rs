//! The functions of WASI, with those replaced that would differ between machines.

use std::collections::VecDeque;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasData, Linker, Resource, ResourceTable, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::sync::filesystem::types::{
    self as files, Descriptor, DescriptorStat, DescriptorType, DirectoryEntryStream, ErrorCode, HostDescriptor,
    HostDirectoryEntryStream, MetadataHashValue, PathFlags,
};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem};
use wasmtime_wasi::p2::{DynPollable, FsResult, Pollable, bindings, subscribe};
use wasmtime_wasi::random::{WasiRandom, WasiRandomCtx};
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::view::Wasi;
use crate::state::TaskState;
use crate::trap::EmitError;

/// The version of the bindings of `wasmtime-wasi`.
const VERSION: &str = "0.2.12";

/// Entries of folders that are being read at a time.
const MAX_ENTRIES: usize = 1_000_000;

impl WasiView for TaskState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Wasi { ctx, table, .. } = self.wasi();
        WasiCtxView { ctx, table }
    }
}

/// A wait that is over.
struct Over;

#[wasmtime_wasi::async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}

/// The data of `wasi:io`.
struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

type Cx<'a> = StoreContextMut<'a, TaskState>;

/// Whether an import of a component belongs to WASI.
pub(crate) fn is_wasi(import: &str) -> bool {
    import.starts_with("wasi:")
}

/// Defines the interfaces of WASI that a guest can use.
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

/// The packages that [`link`] defines.
const DEFINED: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

/// Resources of `wasi:io`, which other packages only name.
const OF_IO: [&str; 4] = ["error", "input-stream", "output-stream", "pollable"];

/// A resource of which there is no instance.
struct Absent;

/// Defines what else of WASI a component imports, as functions that fail.
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

/// Makes every wait return at once: the clocks stand still.
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

/// What a function of WASI's file system returns: a value, or an error code.
type Answer<R> = wasmtime::Result<(Result<R, ErrorCode>,)>;

fn answer<R>(result: FsResult<R>) -> Answer<R> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?.into()),)),
    }
}

/// The stat of a file without what differs between machines.
fn portable(stat: DescriptorStat) -> DescriptorStat {
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

/// The number of a file, by the order in which the guest asked for files.
fn number(wasi: &mut Wasi, hash: &MetadataHashValue) -> MetadataHashValue {
    let next = wasi.inodes.len() as u64 + 1;
    let lower = *wasi.inodes.entry((hash.lower, hash.upper)).or_insert(next);
    MetadataHashValue { lower, upper: 0 }
}

fn shadow_files(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    let mut types = linker.instance(&format!("wasi:filesystem/types@{VERSION}"))?;
    types.func_wrap("[method]descriptor.stat", |mut cx: Cx<'_>, (file,): (Resource<Descriptor>,)| {
        answer(HostDescriptor::stat(&mut cx.data_mut().filesystem(), file).map(portable))
    })?;
    types.func_wrap(
        "[method]descriptor.stat-at",
        |mut cx: Cx<'_>, (file, flags, path): (Resource<Descriptor>, PathFlags, String)| {
            answer(HostDescriptor::stat_at(&mut cx.data_mut().filesystem(), file, flags, path).map(portable))
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
            if held + entries.len() > MAX_ENTRIES {
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
