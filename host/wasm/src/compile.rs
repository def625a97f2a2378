//! Compiled code, kept on disk: a component is compiled once on a machine.
//!
//! Compiled code is machine code, and whoever can write the file can run
//! anything as this user. So it is read only from the store of this user, never
//! from a registry or a remote store, and only when its checksum is right, which
//! says that it is whole, not that it is honest.

use std::path::Path;

use wasmtime::component::Component as Compiled;

use crate::engine::Engine;

const CHECKSUM: usize = 32;

/// The code of a component, from `path` if it is there, else compiled and kept.
pub(crate) fn load_or_compile(engine: &Engine, bytes: &[u8], path: Option<&Path>) -> wasmtime::Result<Compiled> {
    let Some(path) = path else { return Compiled::from_binary(&engine.inner, bytes) };
    if let Some(compiled) = load(engine, path) {
        return Ok(compiled);
    }
    let compiled = Compiled::from_binary(&engine.inner, bytes)?;
    // What cannot be kept is compiled again next time.
    if let Ok(code) = compiled.serialize() {
        let _ = keep(path, &code);
    }
    Ok(compiled)
}

fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(blake3::hash(code).as_bytes())?;
    file.write_all(code)?;
    file.persist(path)?;
    Ok(())
}

#[expect(unsafe_code, reason = "wasmtime cannot check compiled code; see the head of this module")]
fn load(engine: &Engine, path: &Path) -> Option<Compiled> {
    let bytes = std::fs::read(path).ok()?;
    let (checksum, code) = bytes.split_at_checked(CHECKSUM)?;
    if blake3::hash(code).as_bytes() != checksum {
        return None;
    }
    // SAFETY: `deserialize` must only see what `serialize` gave. The file lies in
    // this user's store, under a name with the engine's fingerprint, was renamed
    // into place when whole, and its checksum is right. Another version of
    // wasmtime refuses it by itself.
    unsafe { Compiled::deserialize(&engine.inner, code) }.ok()
}
