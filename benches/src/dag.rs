//! Orchestration overhead: many trivial tasks, compared with ninja.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::measure::{Measured, Table, process, settle};
use crate::peers;
use crate::workspace::Workspace;

/// A pipeline of `steps` steps that each rename a column.
fn pipeline(steps: usize, changed: Option<usize>) -> Result<String> {
    let mut text = String::from("[sources.rows]\npath = \"rows.csv\"\n");
    for i in 0..steps {
        let name = if changed == Some(i) { "changed".to_owned() } else { format!("x{i}") };
        writeln!(
            text,
            "[steps.s{i}]\nuses = \"std:select\"\ninput = \"rows\"\nparams = {{ rename = {{ x = \"{name}\" }} }}"
        )?;
    }
    Ok(text)
}

/// The same number of copies, for ninja.
fn ninja(folder: &Path, steps: usize) -> Result<()> {
    let mut text = String::from("rule copy\n  command = cp $in $out\n");
    for i in 0..steps {
        std::fs::write(folder.join(format!("in{i}")), i.to_string())?;
        writeln!(text, "build out{i}: copy in{i}")?;
    }
    Ok(std::fs::write(folder.join("build.ninja"), text)?)
}

/// Runs the benchmark.
pub fn run(workspace: &Workspace, rounds: usize) -> Result<()> {
    let python = peers::python(workspace)?;
    let ninja_program = python.with_file_name("ninja");
    let (mut cached, mut cold, mut leaf) = (Table::default(), Table::default(), Table::default());
    for steps in [1000, 10_000, 100_000] {
        // A folder for each round of cold runs: file systems are slow where many files were removed
        // recently.
        let folder = tempfile::tempdir_in(&workspace.work)?;
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("rows.csv"), "x\n1\n")?;
        std::fs::write(file("pipeline.toml"), pipeline(steps, None)?)?;
        std::fs::write(file("one.toml"), pipeline(1, None)?)?;
        let host = |pipeline: &str, store: &str| -> Result<Measured> {
            let mut command = Command::new(&workspace.host);
            process(command.args(["run", "--json", pipeline, "--store", store]).current_dir(&folder))
        };
        let count = |measured: &Measured, what: &str| -> Result<u64> {
            let last: serde_json::Value = serde_json::from_str(measured.stdout.lines().last().context("a line")?)?;
            last["tasks"][what].as_u64().context("a count")
        };
        let ninja_folder = file("ninja");
        std::fs::create_dir(&ninja_folder)?;
        ninja(&ninja_folder, steps)?;
        let ninja = || process(Command::new(&ninja_program).current_dir(&ninja_folder));
        ninja()?;
        // A single measurement is unreliable: the system may still be writing.
        let (rounds, turns) = if steps > 10_000 { (1, 3) } else { (rounds.max(3), rounds * 5) };
        for round in 0..rounds {
            let store = format!("store{round}");
            host("one.toml", &store)?;
            let first = host("pipeline.toml", &store)?;
            ensure!(count(&first, "total")? == steps as u64);
            cold.add(&format!("millrace, {steps} tasks"), first.wall.as_secs_f64() * 1e3);
        }
        settle()?;
        for round in 0..turns {
            let again = host("pipeline.toml", "store0")?;
            ensure!(count(&again, "cached")? == steps as u64);
            cached.add(&format!("millrace, {steps} tasks"), again.wall.as_secs_f64() * 1e3);
            cached.add(&format!("ninja, {steps} files"), ninja()?.wall.as_secs_f64() * 1e3);
            if steps == 1000 {
                std::fs::write(file("pipeline.toml"), pipeline(steps, Some(round))?)?;
                leaf.add("millrace, 1 of 1000 changed", host("pipeline.toml", "store0")?.wall.as_secs_f64() * 1e3);
                std::fs::write(file("pipeline.toml"), pipeline(steps, None)?)?;
                host("pipeline.toml", "store0")?;
                std::fs::write(ninja_folder.join(format!("in{round}")), format!("new {round}"))?;
                leaf.add("ninja, 1 of 1000 changed", ninja()?.wall.as_secs_f64() * 1e3);
            }
        }
    }
    let mut start = Table::default();
    for _ in 0..rounds * 5 {
        start.add("host --version", process(Command::new(&workspace.host).arg("--version"))?.wall.as_secs_f64() * 1e3);
    }
    cached.print("Nothing changed, whole process", "ms", Some("ninja, 1000 files"));
    cold.print("Cold, the component compiled, whole process", "ms", None);
    leaf.print("One leaf changed", "ms", Some("ninja, 1 of 1000 changed"));
    start.print("Start of the process", "ms", None);
    let all =
        json!({ "cached_ms": cached.json(), "cold_ms": cold.json(), "leaf_ms": leaf.json(), "start_ms": start.json() });
    std::fs::write(workspace.work.join("dag.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}
