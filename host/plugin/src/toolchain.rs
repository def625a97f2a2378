//! A compiler for guests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// How guests are compiled on this machine.
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

/// Which toolchain to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The one that works, rustup's first.
    #[default]
    Any,
    /// rustup's.
    Rustup,
    /// Debian's.
    Debian,
}

/// No toolchain: what is missing, exactly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no compiler for WebAssembly steps was found\n{}", missing.join("\n"))]
pub struct ToolchainError {
    /// A line for each way.
    pub missing: Vec<String>,
}

const TARGET: &str = "wasm32-unknown-unknown";

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn first_on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names
        .iter()
        .find_map(|name| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()))
}

impl Toolchain {
    /// Looks for a toolchain that is there. `MILLRACE_TOOLCHAIN=rustup|debian`
    /// chooses.
    ///
    /// # Errors
    /// What is missing, for each way.
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

    fn rustup() -> Result<Self, String> {
        let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"])).ok_or("there is no `rustc`")?;
        let library = Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib");
        if !library.is_dir() {
            return Err(format!("`rustc` does not have the target; `rustup target add {TARGET}`"));
        }
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self::Rustup { cargo })
    }

    fn debian() -> Result<Self, String> {
        let cargo =
            first_on_path(&["cargo-web"]).or_else(|| system(&["/usr/share/cargo-web/bin/cargo", "/usr/bin/cargo-web"]));
        let rustc = first_on_path(&["rustc-web"]).or_else(|| system(&["/usr/bin/rustc-web"]));
        let linker = first_on_path(&["wasm-ld-22", "wasm-ld-19", "wasm-ld"]);
        let source = rustc.as_ref().and_then(|rustc| output(Command::new(rustc).args(["--print", "sysroot"])));
        let source = source.map(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml"));
        let mut missing = Vec::new();
        for (found, package) in
            [(cargo.is_some(), "cargo-web"), (rustc.is_some(), "rustc-web"), (linker.is_some(), "lld-22 or lld-19")]
        {
            if !found {
                missing.push(package);
            }
        }
        if !source.is_some_and(|source| source.is_file()) {
            missing.push("rust-web-src");
        }
        match (cargo, rustc, linker) {
            (Some(cargo), Some(rustc), Some(linker)) if missing.is_empty() => Ok(Self::Debian { cargo, rustc, linker }),
            _ => Err(format!(
                "missing {}; `apt-get install --no-install-recommends cargo-web rustc-web rust-web-src lld-22`",
                missing.join(", ")
            )),
        }
    }

    /// A `cargo build` for guests, up to the choice of packages. `remap` are
    /// folders whose names must not get into a component, lest its bytes depend
    /// on where it was built.
    pub fn command(&self, remap: &[(PathBuf, &str)]) -> Command {
        let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
        flags.extend(remap.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())));
        let (mut command, linker) = match self {
            Self::Rustup { cargo } => (Command::new(cargo), None),
            Self::Debian { cargo, rustc, linker } => {
                let mut command = Command::new(cargo);
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                (command, Some(linker))
            }
        };
        command.arg("build").args(["--profile", "component", "--target", TARGET]);
        if let Some(linker) = linker {
            command.arg("-Zbuild-std=std,panic_abort");
            command.args(["--config", &format!("target.{TARGET}.linker={:?}", linker.display().to_string())]);
        }
        command.args(["--config", &format!("target.{TARGET}.rustflags={flags:?}")]);
        // A step's own workspace need not know the profile.
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
        // What this process was built with must not leak into the guest.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"] {
            command.env_remove(name);
        }
        command
    }

    /// Where this toolchain puts what it builds, below the target folder: the
    /// two must not overwrite each other's.
    pub fn folder(&self) -> &'static str {
        match self {
            Self::Rustup { .. } => "guest",
            Self::Debian { .. } => "guest-debian",
        }
    }
}

fn system(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.is_file())
}
