//! Finds or installs a compiler for guests.

use std::process::Command;

use anyhow::{Result, anyhow};
use millrace_plugin::{Toolchain, Wanted};

/// The toolchain; installed if it is missing and can be installed.
pub fn toolchain() -> Result<Toolchain> {
    let missing = match Toolchain::find(Wanted::Any) {
        Ok(found) => return Ok(found),
        Err(missing) => missing,
    };
    eprintln!("no compiler for WebAssembly steps yet; trying to get one");
    let quiet = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    if quiet(Command::new("rustup").args(["target", "add", "wasm32-unknown-unknown"]))
        && let Ok(found) = Toolchain::find(Wanted::Any)
    {
        return Ok(found);
    }
    let apt =
        |arguments: &[&str]| quiet(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"));
    for linker in ["lld-22", "lld-19"] {
        let packages = ["install", "-y", "--no-install-recommends", "rustc-web", "cargo-web", "rust-web-src", linker];
        if (apt(&packages) || (apt(&["update"]) && apt(&packages)))
            && let Ok(found) = Toolchain::find(Wanted::Any)
        {
            return Ok(found);
        }
    }
    Err(anyhow!("{}\nneither could be installed from here", Toolchain::find(Wanted::Any).err().unwrap_or(missing)))
}
