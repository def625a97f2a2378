//! Checks that the host compiles for other systems, without their linkers and C libraries.
//!
//! `cargo check` runs build scripts, which compile C code. A stand-in for the C compiler writes
//! empty files in its place: nothing is linked, so nothing misses them. Only Rust code is checked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{cargo, run, target};

/// The targets that are checked.
const TARGETS: [&str; 4] =
    ["aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"];

const COMPILER: &str = r#"#!/bin/sh
out=
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out="$2"; shift ;;
    -Fo*) out="${1#-Fo}" ;;
    -E | --version) echo "clang version 18"; exit 0 ;;
  esac
  shift
done
[ -n "$out" ] && : > "$out"
exit 0
"#;

const ARCHIVER: &str = r#"#!/bin/sh
for argument in "$@"; do
  case "$argument" in
    -out:* | /out:* | -OUT:* | /OUT:*) : > "${argument#*:}"; exit 0 ;;
    *.a | *.lib) : > "$argument"; exit 0 ;;
  esac
done
exit 0
"#;

/// Checks the host for every target whose standard library is installed.
///
/// # Errors
/// When a check fails, or no target is installed.
pub fn check() -> Result<()> {
    let tools = target().join("portable/tools");
    std::fs::create_dir_all(&tools)?;
    let compiler = script(&tools.join("cc"), COMPILER)?;
    let archiver = script(&tools.join("ar"), ARCHIVER)?;
    let allocator = tools.join("libjemalloc.a");
    std::fs::write(&allocator, [])?;
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    let installed = installed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let (checked, missing): (Vec<&str>, Vec<&str>) =
        TARGETS.iter().partition(|triple| installed.lines().any(|line| line == **triple));
    for triple in &checked {
        let variable = triple.replace('-', "_");
        let mut command = cargo();
        command.args(["check", "--quiet", "--package", "millrace-cli", "--target", triple]);
        command.arg("--target-dir").arg(target().join("portable"));
        for name in ["CC", "CXX"] {
            command.env(format!("{name}_{variable}"), &compiler);
        }
        command.env(format!("AR_{variable}"), &archiver);
        // blake3 without its assembly, and jemalloc without its build.
        command.env("CARGO_FEATURE_PURE", "1").env("JEMALLOC_OVERRIDE", &allocator);
        run(&mut command)?;
        println!("{triple}: checked");
    }
    for triple in &missing {
        println!("{triple}: not checked, its standard library is missing: `rustup target add {triple}`");
    }
    if checked.is_empty() { bail!("no target was checked") } else { Ok(()) }
}

fn script(path: &Path, text: &str) -> Result<PathBuf> {
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(path.to_owned())
}
