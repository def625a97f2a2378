//! Bundles the standard steps that `cargo xtask` built into the host. Without them the host
//! still builds, and reports a missing step when one is used.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| manifest.join("../../target"), PathBuf::from);
    let folder = target.join("components");
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let mut found: Vec<PathBuf> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect();
    found.sort();
    let compiled = compiled(&folder.join("code"));
    let mut code = String::from("pub(crate) static BUNDLED: &[Bundled] = &[\n");
    for path in found {
        println!("cargo::rerun-if-changed={}", path.display());
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).expect("a component that was listed");
        let digest = blake3::hash(&bytes);
        let path = path.canonicalize().expect("a component that was listed");
        writeln!(
            code,
            "    Bundled {{ name: {name:?}, digest: ComponentDigest::from_bytes({:?}), bytes: include_bytes!({:?}), code: {} }},",
            digest.as_bytes(),
            path.display().to_string(),
            compiled.get(digest.to_hex().as_str()).map_or("None", String::as_str),
        )
        .expect("writing to a string");
    }
    code.push_str("];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
    std::fs::write(Path::new(&out).join("bundled.rs"), code).expect("a writable OUT_DIR");
}

/// The compiled code of each component that has some, by the digest of the component, as an
/// expression. Its file is `VERSION/DIGEST`.
fn compiled(folder: &Path) -> BTreeMap<String, String> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = BTreeMap::new();
    for version in entries(folder) {
        for code in entries(&version.path()) {
            println!("cargo::rerun-if-changed={}", code.path().display());
            let text = |name: std::ffi::OsString| name.to_string_lossy().into_owned();
            let path = code.path().display().to_string();
            let value = format!("Some(({:?}, include_bytes!({path:?})))", text(version.file_name()));
            found.insert(text(code.file_name()), value);
        }
    }
    found
}
