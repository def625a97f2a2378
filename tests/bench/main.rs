//! Orchestration overhead: `cargo xtask bench`. Medians of whole processes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const STEPS: usize = 1000;
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let host = std::env::current_exe()?.with_file_name("host");
    ensure!(host.is_file(), "{} is missing: `cargo xtask build`", host.display());
    let folder = tempfile::tempdir()?;
    let mut pipeline = String::from("[sources.rows]\npath = \"rows.csv\"\n");
    for i in 0..STEPS {
        write!(
            pipeline,
            "[steps.s{i}]\nuses = \"std:select\"\ninput = \"rows\"\nparams = {{ rename = {{ x = \"x{i}\" }} }}\n"
        )?;
    }
    std::fs::write(folder.path().join("pipeline.toml"), &pipeline)?;
    std::fs::write(folder.path().join("rows.csv"), "x\n1\n")?;
    let run = |store: &str| -> Result<(Duration, serde_json::Value)> {
        let started = Instant::now();
        let output = Command::new(&host).args(["run", "--json", "--store", store]).current_dir(&folder).output()?;
        let wall = started.elapsed();
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        Ok((wall, serde_json::from_str(text.lines().last().context("a last line")?)?))
    };
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };

    // Components compiled and plans known, no task known: actions are removed.
    run("store")?;
    let mut cold = Vec::new();
    for _ in 0..5 {
        remove(&folder.path().join("store/actions"))?;
        let (wall, last) = run("store")?;
        ensure!(last["tasks"]["ran"] == STEPS);
        cold.push(wall);
    }
    let mut cached = Vec::new();
    for _ in 0..ROUNDS {
        let (wall, last) = run("store")?;
        ensure!(last["tasks"]["cached"] == STEPS);
        cached.push(wall);
    }
    let mut start = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        ensure!(Command::new(&host).arg("--version").output()?.status.success());
        start.push(started.elapsed());
    }
    let (cold, cached, start) = (median(cold), median(cached), median(start));
    let each = (cold.saturating_sub(cached)).as_micros() as f64 / STEPS as f64;
    println!("| measure | median |\n| --- | --- |");
    println!("| start of the process | {:.1} ms |", start.as_secs_f64() * 1e3);
    println!("| {STEPS} tasks, all cached, whole process | {:.1} ms |", cached.as_secs_f64() * 1e3);
    println!("| {STEPS} tasks, cold but compiled, whole process | {:.1} ms |", cold.as_secs_f64() * 1e3);
    println!("| a task, cold but compiled, over a cached one | {each:.0} µs |");
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
}
