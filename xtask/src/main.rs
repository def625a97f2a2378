//! `cargo xtask …`: sets up the machine, builds, tests, checks, runs the demo.

mod components;
mod portable;
mod setup;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use workspace::{cargo, root, run, target};

const HELP: &str = "\
cargo xtask demo        build everything, run examples/churn, run it again from the cache
cargo xtask build       the standard steps, and the host with them inside: target/release/host
cargo xtask components  the standard steps alone: target/components/*.wasm
cargo xtask test        build, then every test
cargo xtask check       what CI runs: fmt, clippy, doc, tidy, deny, test
cargo xtask portable    whether the host compiles for other systems (`cargo check`, without linking)
cargo xtask deny        licences, sources and known defects of dependencies
cargo xtask bench NAME  compares with the peers: `dag` (tasks cached and cold), `features` (3 M rows),
                         `tenfold` (30 M rows), `micro` (single operations) or `sandbox` (steps in it and native;
                         with FOLDER…: components of folders in turn; `--step NAME`: one step)
cargo xtask toolchain   the compiler for WebAssembly, or what is missing
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("demo") => demo(),
        Some("build") => build().map(drop),
        Some("components") => components::build().map(drop),
        Some("test") => test(),
        Some("check") => check(),
        Some("tidy") => tidy::check(),
        Some("portable") => portable::check(),
        Some("deny") => deny(),
        Some("bench") => bench(&arguments[1..]),
        Some("toolchain") => setup::toolchain().map(|found| println!("{found:#?}")),
        _ => {
            print!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<PathBuf> {
    let components = components::build()?;
    let host = target().join("release/host");
    let build = || run(cargo().args(["build", "--release", "--package", "millrace-cli"]));
    build()?;
    // The host compiles the steps, and the second build includes their code: nothing else differs,
    // so only the crates after the registry are built again.
    run(Command::new(&host).arg("precompile").arg(components.join("code")))?;
    build()?;
    Ok(host)
}

fn demo() -> Result<()> {
    let host = build()?;
    let store = target().join("demo-store");
    if store.exists() {
        std::fs::remove_dir_all(&store).context("the store of the last demo")?;
    }
    for title in ["the first run", "the second run: everything comes from the cache"] {
        println!("\n── {title}: host run examples/churn/pipeline.toml");
        let mut command = Command::new(&host);
        command.arg("run").arg("examples/churn/pipeline.toml").arg("--store").arg(&store);
        run(command.current_dir(root()))?;
    }
    Ok(())
}

fn test() -> Result<()> {
    build()?;
    run(cargo().args(["test", "--release", "--workspace", "--quiet"]))
}

fn check() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::check()?;
    components::build()?;
    run(cargo().args(["clippy", "--release", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    deny()?;
    run(cargo()
        .args(["doc", "--release", "--workspace", "--no-deps", "--quiet"])
        .env("RUSTDOCFLAGS", "--deny warnings"))?;
    test()
}

/// Checks the dependencies against `deny.toml`, with a `cargo-deny` of our own if the machine has
/// none. Advisories are checked if their database is available.
fn deny() -> Result<()> {
    let own = target().join("tools/bin/cargo-deny");
    let has = Command::new("cargo-deny").arg("--version").output().is_ok_and(|found| found.status.success());
    if !has && !own.exists() {
        let version = ["--version", "0.20.2", "--locked", "--quiet"];
        run(cargo().args(["install", "cargo-deny"]).args(version).arg("--root").arg(target().join("tools")))?;
    }
    let deny = || {
        let mut command = Command::new(if has { "cargo-deny".as_ref() } else { own.as_os_str() });
        command.current_dir(root()).args(["--log-level", "error"]);
        command
    };
    run(deny().args(["check", "licenses", "bans", "sources"]))?;
    if deny().args(["fetch", "db"]).output().is_ok_and(|fetched| fetched.status.success()) {
        return run(deny().args(["check", "advisories"]));
    }
    println!("advisories were not checked: their database is not available here");
    Ok(())
}

fn bench(arguments: &[String]) -> Result<()> {
    build()?;
    if let Some(name @ ("micro" | "sandbox")) = arguments.first().map(String::as_str) {
        let bench = || {
            let mut command = cargo();
            command.args(["bench", "--package", "millrace-benches", "--profile", "release", "--bench", name]);
            command
        };
        let words = &arguments[1..];
        if name == "sandbox" && !words.is_empty() {
            return run(bench().arg("--").args(words));
        }
        if name == "sandbox" {
            // Guests are compiled for this processor, and so is the native code they are first
            // compared with; in a folder of its own, since everything is compiled again.
            let native = target().join("native");
            run(bench().env("RUSTFLAGS", "-C target-cpu=native").arg("--target-dir").arg(native))?;
        }
        return run(&mut bench());
    }
    let command = ["run", "--release", "--quiet", "--package", "millrace-benches", "--bin", "bench", "--"];
    run(cargo().args(command).args(arguments))
}
