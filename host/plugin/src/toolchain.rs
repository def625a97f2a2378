//! A compiler for guests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A toolchain that compiles guests on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// The `cargo` of this shell, whose toolchain has the guest target.
    Rustup {
        /// The `cargo` to call.
        cargo: PathBuf,
    },
    /// Debian's `cargo-web`, `rustc-web`, `rust-web-src` and `lld`.
    Debian {
        /// The `cargo` to call.
        cargo: PathBuf,
        /// The `rustc` to call.
        rustc: PathBuf,
        /// The linker.
        linker: PathBuf,
    },
}

/// The toolchain to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The first that works, rustup's first.
    #[default]
    Any,
    /// rustup's.
    Rustup,
    /// Debian's.
    Debian,
}

/// No toolchain was found, with what each kind lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no compiler for WebAssembly steps was found\n{}", missing.join("\n"))]
pub struct ToolchainError {
    /// One line for each kind of toolchain.
    pub missing: Vec<String>,
}

/// The initial heap of a guest, in bytes. Growing the memory, and releasing it before the next
/// guest, changes the protection of its pages, for which all threads wait; most tasks need no more
/// than this. Untouched memory is not resident, but counts as used.
const HEAP: u32 = 4 << 20;

/// An iteration of a loop costs fuel regardless of its work, so an iteration does more work: vector
/// loops are interleaved by four, and small loops unrolled, where LLVM would not for this target.
/// Sums of floats keep their order.
const LOOPS: &str = "-force-vector-interleave=4 -unroll-partial-threshold=150";

const TARGET: &str = "wasm32-unknown-unknown";

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The minor version of the oldest compiler that the SDK can be built with.
const OLDEST: u32 = 95;

/// Whether `rustc 1.96.0 (…)` is recent enough.
fn is_recent(version: &str) -> bool {
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    !version.starts_with("rustc 1.") || minor.is_none_or(|minor| minor >= OLDEST)
}

/// What one kind of toolchain lacks.
#[derive(Debug, thiserror::Error)]
enum Missing {
    #[error("there is no `rustc`")]
    Rustc,
    #[error("`rustc` does not have the target; `rustup target add {TARGET}`")]
    Target,
    #[error("`/usr/bin/rustc` is {version}, but 1.{OLDEST} is needed; {INSTALL}")]
    Older { version: String },
    #[error("missing {0}; {INSTALL}")]
    Packages(String),
}

/// The command that installs Debian's packages.
const INSTALL: &str = "`apt-get install --no-install-recommends cargo-web rustc-web rust-web-src lld-22`";

impl Toolchain {
    /// Finds an installed toolchain. `MILLRACE_TOOLCHAIN=rustup|debian` chooses one.
    ///
    /// # Errors
    /// When there is none: what is missing, for each kind of toolchain.
    pub fn find(wanted: Wanted) -> Result<Self, ToolchainError> {
        let wanted = match std::env::var("MILLRACE_TOOLCHAIN").as_deref() {
            Ok("rustup") => Wanted::Rustup,
            Ok("debian") => Wanted::Debian,
            _ => wanted,
        };
        let mut missing = Vec::new();
        if wanted != Wanted::Debian {
            match Self::rustup() {
                Ok(found) => return Ok(found),
                Err(what) => missing.push(format!("  with rustup: {what}")),
            }
        }
        if wanted != Wanted::Rustup {
            match Self::debian() {
                Ok(found) => return Ok(found),
                Err(what) => missing.push(format!("  with Debian's packages: {what}")),
            }
        }
        Err(ToolchainError { missing })
    }

    fn rustup() -> Result<Self, Missing> {
        let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"])).ok_or(Missing::Rustc)?;
        let library = Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib");
        if !library.is_dir() {
            return Err(Missing::Target);
        }
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self::Rustup { cargo })
    }

    /// The packages put their programs into `/usr/bin`, which comes after rustup's folder in
    /// most `PATH`s, so they are called with their folder.
    fn debian() -> Result<Self, Missing> {
        let existing = |path: &str| Some(PathBuf::from(path)).filter(|path| path.is_file());
        let cargo = existing("/usr/bin/cargo");
        let rustc = existing("/usr/bin/rustc");
        let linker = ["/usr/bin/wasm-ld-22", "/usr/bin/wasm-ld-19"].into_iter().find_map(existing);
        let ask = |flag: &[&str]| rustc.as_ref().and_then(|rustc| output(Command::new(rustc).args(flag)));
        let source = ask(&["--print", "sysroot"])
            .map(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml"));
        let mut missing = Vec::new();
        let found = [
            (cargo.is_some(), "cargo-web"),
            (rustc.is_some(), "rustc-web"),
            (source.is_some_and(|source| source.is_file()), "rust-web-src"),
            (linker.is_some(), "lld-22 or lld-19"),
        ];
        missing.extend(found.iter().filter(|(found, _)| !found).map(|(_, package)| *package));
        if let Some(version) = ask(&["--version"])
            && !is_recent(&version)
        {
            return Err(Missing::Older { version });
        }
        match (cargo, rustc, linker) {
            (Some(cargo), Some(rustc), Some(linker)) if missing.is_empty() => Ok(Self::Debian { cargo, rustc, linker }),
            _ => Err(Missing::Packages(missing.join(", "))),
        }
    }

    /// A `cargo build` for guests, without the choice of packages. `remap` lists folders whose
    /// names must not get into a component, so that its bytes do not depend on where it was built.
    pub fn command(&self, remap: &[(PathBuf, &str)]) -> Command {
        let mut flags = vec![
            "-Ctarget-feature=+simd128,+relaxed-simd".to_owned(),
            format!("-Cllvm-args={LOOPS}"),
            format!("-Clink-arg=--initial-heap={HEAP}"),
        ];
        flags.extend(remap.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())));
        let (mut command, linker) = match self {
            Self::Rustup { cargo } => (Command::new(cargo), None),
            Self::Debian { cargo, rustc, linker } => {
                let mut command = Command::new(cargo);
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                // Rustup's cargo sets these for its own compiler.
                command.env_remove("LD_LIBRARY_PATH").env_remove("RUSTUP_TOOLCHAIN");
                (command, Some(linker))
            }
        };
        command.arg("build").args(["--profile", "component", "--target", TARGET]);
        if let Some(linker) = linker {
            command.arg("-Zbuild-std=std,panic_abort");
            command.args(["--config", &format!("target.{TARGET}.linker={:?}", linker.display().to_string())]);
        }
        command.args(["--config", &format!("target.{TARGET}.rustflags={flags:?}")]);
        // The workspace of a step need not define the profile.
        for setting in [
            "inherits=\"release\"",
            "opt-level=3",
            "lto=\"fat\"",
            "codegen-units=1",
            "panic=\"abort\"",
            "strip=\"debuginfo\"",
        ] {
            command.args(["--config", &format!("profile.component.{setting}")]);
        }
        command.args(["--config", "profile.component.package.\"*\".opt-level=\"s\""]);
        // The settings that this process was built with must not leak into the guest.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
            command.env_remove(name);
        }
        command
    }

    /// The folder below the target folder for the output of this toolchain: the two must not
    /// overwrite each other's output.
    pub fn folder(&self) -> &'static str {
        match self {
            Self::Rustup { .. } => "guest",
            Self::Debian { .. } => "guest-debian",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compiler_is_not_recent() {
        assert!(is_recent("rustc 1.96.0 (ac68faa20 2026-05-01)"));
        assert!(!is_recent("rustc 1.63.0"));
    }

    /// Each kind of toolchain on its own: it works where it is installed, else the error
    /// reports what is missing.
    #[test]
    fn each_toolchain_is_found_or_reports_what_is_missing() {
        for (wanted, word) in [(Toolchain::rustup(), "rustup target add"), (Toolchain::debian(), "apt-get install")] {
            match wanted {
                Ok(found) => {
                    let command = format!("{:?}", found.command(&[]));
                    assert!(command.contains("wasm32-unknown-unknown"), "{command}");
                    assert_eq!(command.contains("build-std"), matches!(found, Toolchain::Debian { .. }));
                }
                Err(what) => {
                    let what = what.to_string();
                    assert!(what.contains(word) || what.contains("there is no `rustc`"), "{what}");
                }
            }
        }
    }
}
