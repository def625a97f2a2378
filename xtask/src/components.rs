//! The standard steps: every crate in `plugins/`, built at once.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use crate::setup;
use crate::workspace::{root, run, target};

/// Builds `target/components/NAME.wasm` for each of them.
pub fn build() -> Result<PathBuf> {
    let toolchain = setup::toolchain()?;
    let mut names: Vec<String> = std::fs::read_dir(root().join("plugins"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| root().join("plugins").join(name).join("Cargo.toml").is_file())
        .collect();
    names.sort();
    let guests = target().join(toolchain.folder());
    let mut remap = vec![(root().to_owned(), "/millrace")];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    remap.extend(home.map(|home| (home, "/cargo")));
    let mut command = toolchain.command(&remap);
    command.current_dir(root()).env("CARGO_TARGET_DIR", &guests);
    for name in &names {
        command.arg("--package").arg(format!("millrace-{name}"));
    }
    run(command.arg("--lib"))?;

    let folder = target().join("components");
    std::fs::create_dir_all(&folder)?;
    for name in &names {
        let module = format!("millrace_{}.wasm", name.replace('-', "_"));
        let module = guests.join("wasm32-unknown-unknown/component").join(module);
        let bytes = std::fs::read(&module).with_context(|| module.display().to_string())?;
        let component = millrace_plugin::component_of(&bytes).map_err(|reason| anyhow!("{name}: {reason}"))?;
        let file = folder.join(format!("{name}.wasm"));
        // An unchanged file must not cause another build of the host.
        if std::fs::read(&file).is_ok_and(|known| known == component) {
            continue;
        }
        std::fs::write(&file, component)?;
    }
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if !names.contains(&stem) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(folder)
}
