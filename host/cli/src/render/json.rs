//! Events as JSON lines. The names here are stable: scripts rely on them.

use millrace_engine::Event;
use serde_json::{Value, json};

/// The line of an event; none for those that only move a progress bar.
pub fn line(event: &Event) -> Option<Value> {
    Some(match event {
        Event::RunStarted { run, pipeline, instances } => {
            json!({ "event": "run-started", "run": run, "pipeline": pipeline, "instances": instances })
        }
        Event::SourceFinished { source, cached, rows, parts, wall_us } => json!({
            "event": "source-finished", "source": source, "status": if *cached { "cached" } else { "ran" },
            "rows": rows, "parts": parts, "wall_ms": ms(*wall_us),
        }),
        Event::TasksFound { .. } | Event::TaskProgressed { .. } => return None,
        Event::TaskStarted { step, part } => json!({ "event": "task-started", "step": step, "part": part }),
        Event::TaskFinished { step, part, phase, key, status, cost, log, failure, near, reason } => {
            let mut line = json!({
                "event": "task-finished", "step": step, "part": part, "phase": phase,
                "key": key.map(|key| key.to_string()), "status": status,
                "fuel": cost.fuel, "peak_memory_bytes": cost.peak_memory_bytes, "wall_ms": ms(cost.wall_us),
                "cpu_ms": ms(cost.cpu_us), "bytes_read": cost.bytes_read, "bytes_written": cost.bytes_written,
            });
            if !log.is_empty() {
                line["log"] = log.iter().map(|line| json!({ "level": line.level, "message": line.message })).collect();
            }
            if let Some(failure) = failure {
                line["error"] = super::words::failure(failure).into();
            }
            if !near.is_empty() {
                line["near_limits"] =
                    near.iter().map(|near| json!({ "limit": near.limit, "percent": near.percent })).collect();
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
        Event::RunFinished(summary) => json!({
            "event": "run-finished", "ok": summary.ok, "tasks": summary.tasks, "wall_ms": summary.wall_ms,
            "fuel": summary.fuel, "peak_memory_bytes": summary.peak_memory_bytes,
            "bytes_read": summary.bytes_read, "bytes_written": summary.bytes_written,
            "metrics": summary.metrics, "outputs": summary.outputs,
        }),
    })
}

fn ms(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}
