//! Compiled code, kept on disk: a component is compiled once per machine.
//!
//! ```text
//! HEX               a record by the digest of a component: the digest of its code
//! HEX.everywhere    likewise for the code with checks in all loops (`rewrite/fuel`)
//! code-HEX          the code with this digest
//! ```
//!
//! Compiled code is machine code: a process that can write the file can run anything as this
//! user. So it is read only from the store of this user, never from a registry or a remote
//! store, and only when its digest matches, which proves that it is intact, not that it is
//! honest. It is mapped, not read: one run needs little of it.
//!
//! The code of standard steps ships with the host, as part of the program.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use millrace_types::wire::{self, Kind};
use wasmtime::component::Component as Compiled;

use crate::engine::Engine;
use crate::rewrite::{self, FuelChecks};

/// Compiles a component for all processors of this kind, to be part of a host.
///
/// # Errors
/// When it cannot be compiled.
pub fn precompile(bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
    have_threads();
    let malformed = |_| wasmtime::format_err!("it is malformed");
    Engine::portable()?.precompile_component(&rewrite::rewritten(bytes, FuelChecks::AtCalls).map_err(malformed)?)
}

/// The code of a component: `shipped` if this machine can run it, else loaded from beside `path`
/// if it is there, else compiled and kept.
pub(crate) fn load_or_compile(
    engine: &Engine,
    bytes: &[u8],
    shipped: Option<&'static [u8]>,
    path: Option<&Path>,
    checks: FuelChecks,
) -> wasmtime::Result<Compiled> {
    if checks == FuelChecks::AtCalls
        && let Some(compiled) = shipped.and_then(|code| load_shipped(engine, code))
    {
        return Ok(compiled);
    }
    let Some(path) = path else { return compile(engine, bytes, checks) };
    let path = &match checks {
        FuelChecks::AtCalls => path.to_owned(),
        FuelChecks::AtLoops => path.with_extension("everywhere"),
    };
    if let Some(compiled) = load(engine, path) {
        return Ok(compiled);
    }
    let compiled = compile(engine, bytes, checks)?;
    // Code that cannot be kept is compiled again next time.
    if let Ok(code) = compiled.serialize() {
        let _ = keep(path, &code);
    }
    Ok(compiled)
}

/// Makes the rayon pool that wasmtime compiles with. Where the system has no threads, the
/// calling thread compiles alone: rayon would panic.
fn have_threads() {
    static ARE_THERE: OnceLock<bool> = OnceLock::new();
    let all = || rayon_core::ThreadPoolBuilder::new().build_global().is_ok();
    if !*ARE_THERE.get_or_init(all) {
        // Fails on a thread that is in a pool already. Kept for the life of the thread.
        std::mem::forget(rayon_core::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build());
    }
}

/// Compiles a component after rewriting it. A component that cannot be rewritten is never run:
/// the original is compiled only for the error message.
fn compile(engine: &Engine, bytes: &[u8], checks: FuelChecks) -> wasmtime::Result<Compiled> {
    have_threads();
    let rewritten = rewrite::rewritten(bytes, checks);
    let compiled = rewritten.ok().map(|rewritten| Compiled::from_binary(&engine.inner, &rewritten));
    match compiled {
        Some(Ok(compiled)) => Ok(compiled),
        failed => {
            Compiled::from_binary(&engine.inner, bytes)?;
            let why = wasmtime::format_err!("this host cannot rewrite it: please report this");
            Err(failed.and_then(Result::err).map_or(why, |error| error.context("after rewriting")))
        }
    }
}

fn name(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], |name| name.as_encoded_bytes())
}

fn code_path(path: &Path, digest: &blake3::Hash) -> PathBuf {
    path.with_file_name(format!("code-{}", digest.to_hex()))
}

fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let digest = blake3::hash(code);
    std::fs::create_dir_all(path.parent().unwrap_or(path))?;
    write(&code_path(path, &digest), code)?;
    write(path, &wire::encode(Kind::Code, name(path), digest.as_bytes()))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path))?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[expect(unsafe_code, reason = "wasmtime cannot check compiled code; see the head of this module")]
fn load_shipped(engine: &Engine, code: &'static [u8]) -> Option<Compiled> {
    // SAFETY: `deserialize` must only see bytes that wasmtime serialized. These are part of this
    // program, as its own code is. Code for another version, configuration or processor is
    // refused by wasmtime.
    unsafe { Compiled::deserialize(&engine.inner, code) }.ok()
}

#[expect(unsafe_code, reason = "wasmtime cannot check compiled code; see the head of this module")]
fn load(engine: &Engine, path: &Path) -> Option<Compiled> {
    let digest = blake3::Hash::from_bytes(wire::decode(Kind::Code, name(path), &std::fs::read(path).ok()?)?);
    let path = code_path(path, &digest);
    if blake3::Hasher::new().update_mmap(&path).ok()?.finalize() != digest {
        return None;
    }
    // SAFETY: `deserialize_file` must only see bytes that `serialize` returned, and the file
    // must not change while it is mapped. It is in this user's store, under the engine's
    // fingerprint, was renamed into place when complete, is only ever replaced by another
    // file, and its digest matches. Another version of wasmtime refuses it by itself.
    unsafe { Compiled::deserialize_file(&engine.inner, path) }.ok()
}
