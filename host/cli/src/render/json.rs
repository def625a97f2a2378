//! Events as JSON lines. The names here are stable: scripts rely on them.

use std::collections::BTreeMap;
use std::io::{BufWriter, Stdout, Write};

use millrace_engine::event::{Counts, TaskEnd};
use millrace_engine::types::ActionKey;
use millrace_engine::{Event, EventEnvelope, Status, Summary};
use serde::Serialize;
use serde_json::{Value, json};

/// Writes events to standard output, each on a line.
pub struct Json {
    out: BufWriter<Stdout>,
}

impl Json {
    /// A writer with an empty buffer.
    pub fn new() -> Self {
        Self { out: BufWriter::with_capacity(64 << 10, std::io::stdout()) }
    }

    /// Writes the line of an event. Those of cached tasks come by the thousand in no
    /// time, and wait for the next other line.
    pub fn event(&mut self, EventEnvelope { elapsed, event, .. }: &EventEnvelope) {
        let elapsed_ms = ms(elapsed.as_micros() as u64);
        let written = match event {
            Event::TaskFinished(end) if end.status == Status::Cached && end.log.is_empty() => {
                write_line(&TaskLine::new(end, elapsed_ms), &mut self.out)
            }
            Event::RunFinished(summary) => {
                write_line(&RunLine::new(summary, elapsed_ms), &mut self.out).and_then(|()| self.out.flush())
            }
            _ => match line(event, elapsed_ms) {
                Some(line) => writeln!(self.out, "{line}").and_then(|()| self.out.flush()),
                None => Ok(()),
            },
        };
        Self::check(written);
    }

    /// Writes what waits.
    pub fn finish(&mut self) {
        let written = self.out.flush();
        Self::check(written);
    }

    /// A reader that went away ends the program quietly, as it ends `cat`.
    fn check(written: std::io::Result<()>) {
        if written.is_err() {
            std::process::exit(i32::from(crate::exit::UNREAD));
        }
    }
}

/// What every `task-finished` line has.
#[derive(Serialize)]
struct TaskLine<'a> {
    event: &'static str,
    elapsed_ms: f64,
    step: &'a str,
    part: Option<usize>,
    phase: &'static str,
    key: Option<&'a ActionKey>,
    status: Status,
    rows_read: u64,
    fuel: u64,
    peak_memory_bytes: u64,
    wall_ms: f64,
    cpu_ms: f64,
    bytes_read: u64,
    bytes_written: u64,
}

impl<'a> TaskLine<'a> {
    fn new(end: &'a TaskEnd, elapsed_ms: f64) -> Self {
        let TaskEnd { step, part, phase, key, status, rows_read, cost, .. } = end;
        Self {
            event: "task-finished",
            elapsed_ms,
            step,
            part: *part,
            phase: phase.as_str(),
            key: key.as_ref(),
            status: *status,
            rows_read: *rows_read,
            fuel: cost.fuel,
            peak_memory_bytes: cost.peak_memory_bytes,
            wall_ms: ms(cost.wall_us),
            cpu_ms: ms(cost.cpu_us),
            bytes_read: cost.bytes_read,
            bytes_written: cost.bytes_written,
        }
    }
}

/// The last line.
#[derive(Serialize)]
struct RunLine<'a> {
    event: &'static str,
    elapsed_ms: f64,
    ok: bool,
    tasks: Counts,
    wall_ms: f64,
    fuel: u64,
    peak_memory_bytes: u64,
    bytes_read: u64,
    bytes_written: u64,
    metrics: &'a BTreeMap<String, BTreeMap<String, f64>>,
    outputs: &'a BTreeMap<String, BTreeMap<String, String>>,
    selected: &'a BTreeMap<String, String>,
}

impl<'a> RunLine<'a> {
    fn new(summary: &'a Summary, elapsed_ms: f64) -> Self {
        Self {
            event: "run-finished",
            elapsed_ms,
            ok: summary.ok,
            tasks: summary.tasks,
            wall_ms: summary.wall_ms,
            fuel: summary.fuel,
            peak_memory_bytes: summary.peak_memory_bytes,
            bytes_read: summary.bytes_read,
            bytes_written: summary.bytes_written,
            metrics: &summary.metrics,
            outputs: &summary.outputs,
            selected: &summary.selected,
        }
    }
}

fn write_line(line: &impl Serialize, out: &mut impl Write) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// The line of most other events; none for those that only move a progress bar.
fn line(event: &Event, elapsed_ms: f64) -> Option<Value> {
    let mut line = match event {
        Event::RunStarted { run, pipeline, instances, .. } => {
            json!({ "event": "run-started", "run": run, "pipeline": pipeline, "instances": instances })
        }
        Event::SourceFinished { source, cached, rows, parts, wall_us } => json!({
            "event": "source-finished", "source": source, "status": if *cached { "cached" } else { "ran" },
            "rows": rows, "parts": parts, "wall_ms": ms(*wall_us),
        }),
        Event::SourceStarted { .. }
        | Event::TasksPlanned { .. }
        | Event::TaskProgressed { .. }
        | Event::StepFinished { .. } => return None,
        Event::TaskStarted { step, part } => json!({ "event": "task-started", "step": step, "part": part }),
        Event::TaskFinished(end) => {
            let TaskEnd { log, failure, near, reason, .. } = &**end;
            let mut line = json!(TaskLine::new(end, elapsed_ms));
            if !log.is_empty() {
                line["log"] = log.iter().map(|line| json!({ "level": line.level, "message": line.message })).collect();
            }
            if let Some(failure) = failure {
                line["error"] = super::words::failure(failure).into();
            }
            if !near.is_empty() {
                line["near_limits"] =
                    near.iter().map(|near| json!({ "limit": near.limit.as_str(), "percent": near.percent })).collect();
            }
            if let Some(reason) = reason {
                line["reasons"] = super::words::reason(reason).into();
            }
            line
        }
        Event::StepRefused { step, problems } => json!({
            "event": "step-refused", "step": step,
            "problems": problems.iter().map(|problem| json!({ "message": problem.message, "help": problem.help })).collect::<Vec<_>>(),
        }),
        Event::Exported { path, unchanged } => json!({ "event": "exported", "path": path, "unchanged": unchanged }),
        Event::ExportFailed { path, message } => json!({ "event": "export-failed", "path": path, "error": message }),
        Event::RemoteFinished(report) => json!({
            "event": "remote-finished", "fetched": report.fetched, "fetched_bytes": report.fetched_bytes,
            "uploaded": report.uploaded, "uploaded_bytes": report.uploaded_bytes, "error": report.error,
        }),
        Event::RunFinished(_) => return None,
    };
    line["elapsed_ms"] = elapsed_ms.into();
    Some(line)
}

fn ms(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}
