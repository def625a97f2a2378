//! A process with its duration and its peak memory; medians and tables.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A finished process.
pub struct Measured {
    pub wall: Duration,
    /// Peak resident memory, in bytes, sampled every few milliseconds: pages of mapped files count.
    pub peak: u64,
    pub stdout: String,
}

/// Runs a command to its end.
pub fn process(command: &mut Command) -> Result<Measured> {
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut out = child.stdout.take().context("its output")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut out, &mut text).map(|_| text)
    });
    let status = format!("/proc/{}/status", child.id());
    // Sampled by a thread of its own, so that waiting for the end does not depend on the samples.
    let has_ended = AtomicBool::new(false);
    let (exit, wall, peak) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !has_ended.load(Ordering::Relaxed) {
                peak = peak.max(high_water(Path::new(&status)).unwrap_or(0));
                std::thread::park_timeout(Duration::from_millis(4));
            }
            peak
        });
        let exit = child.wait();
        let wall = started.elapsed();
        has_ended.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        (exit, wall, watcher.join().unwrap_or(0))
    });
    let exit = exit?;
    let stdout = reader.join().ok().context("a reader")??;
    ensure!(exit.success(), "{command:?} ended with {exit}\n{}", reasons(&stdout));
    Ok(Measured { wall, peak, stdout })
}

/// Waits until earlier writes are on the disk, so that they do not disturb a measurement.
pub fn settle() -> Result<()> {
    process(&mut Command::new("sync")).map(drop)
}

/// The lines of a run's output that report failures, else the last ones.
fn reasons(stdout: &str) -> String {
    let lines: Vec<&str> = stdout.lines().collect();
    let failed: Vec<&str> = lines.iter().filter(|line| line.contains("\"status\":\"failed\"")).copied().collect();
    let shown = if failed.is_empty() { &lines[lines.len().saturating_sub(10)..] } else { &failed };
    shown.join("\n")
}

fn high_water(status: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Figures of one measure, by name.
#[derive(Default)]
pub struct Table {
    rows: Vec<(String, Vec<f64>)>,
}

impl Table {
    /// Adds a figure.
    pub fn add(&mut self, name: &str, figure: f64) {
        match self.rows.iter_mut().find(|(known, _)| known == name) {
            Some((_, figures)) => figures.push(figure),
            None => self.rows.push((name.to_owned(), vec![figure])),
        }
    }

    /// The median of the figures of a name.
    pub fn median(&self, name: &str) -> Option<f64> {
        let (_, figures) = self.rows.iter().find(|(known, _)| known == name)?;
        let mut figures = figures.clone();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }

    /// A line for each name: median, least and greatest, and the ratio to one of them.
    #[expect(clippy::print_stdout, reason = "a program for people")]
    pub fn print(&self, title: &str, unit: &str, to: Option<&str>) {
        println!("\n## {title}\n\n| | median {unit} | least – greatest | ratio |\n| --- | --- | --- | --- |");
        let base = to.and_then(|name| self.median(name));
        for (name, figures) in &self.rows {
            let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
            let greatest = figures.iter().copied().fold(0.0, f64::max);
            let median = self.median(name).unwrap_or_default();
            let ratio = base.map_or_else(String::new, |base| format!("{:.2}", median / base));
            println!("| {name} | {median:.2} | {least:.2} – {greatest:.2} | {ratio} |");
        }
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        let row = |(name, figures): &(String, Vec<f64>)| {
            (name.clone(), json!({ "median": self.median(name), "all": figures }))
        };
        Value::Object(self.rows.iter().map(row).collect())
    }
}
