//! Events as lines, for files, pipes and CI.

use std::collections::BTreeMap;

use millrace_engine::types::{ByteSize, Fuel, Level};
use millrace_engine::{Event, RemoteReport, Status, Summary};

use super::words::{count, duration, failure, reason, task};

/// Turns events into lines.
#[derive(Default)]
pub struct Plain {
    /// Whether to show what steps wrote at every level.
    verbose: bool,
    /// Cached tasks by step, which are told of together.
    cached: BTreeMap<String, usize>,
}

impl Plain {
    /// Nothing said yet.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, cached: BTreeMap::new() }
    }

    /// The lines of an event.
    pub fn lines(&mut self, event: &Event) -> Vec<String> {
        match event {
            Event::SourceFinished { source, cached, rows, parts, wall_us } => {
                let how = if *cached { "unchanged" } else { "read" };
                let parts = if *parts == 1 { "1 part".to_owned() } else { format!("{parts} parts") };
                vec![format!("{how:>9}  {source}  {} rows in {parts}, {}", count(*rows), duration(*wall_us))]
            }
            Event::TaskFinished { step, part, status, cost, log, failure: failed, near, reason: why, .. } => {
                let name = task(step, *part);
                let mut lines = Vec::new();
                match status {
                    Status::Ran => {
                        let memory = ByteSize(cost.peak_memory_bytes);
                        lines.push(format!(
                            "{:>9}  {name}  {}, {} fuel, {memory}",
                            "ran",
                            duration(cost.wall_us),
                            Fuel(cost.fuel)
                        ));
                    }
                    Status::Cached => *self.cached.entry(step.clone()).or_default() += 1,
                    Status::Skipped => lines.push(format!("{:>9}  {name}", "skipped")),
                    Status::Failed => {
                        let what = failed.as_ref().map_or_else(|| "its plan was refused".to_owned(), failure);
                        lines.push(format!("{:>9}  {name}  {what}", "FAILED"));
                    }
                    Status::WouldRun => {
                        let why = why.as_ref().map(reason).unwrap_or_default();
                        lines.push(format!("{:>9}  {name}", "would run"));
                        lines.extend(why.into_iter().map(|line| format!("{:>9}  └ {line}", "")));
                    }
                    Status::Unknown => {
                        lines.push(format!("{:>9}  {name}  it reads what a step before it makes", "unknown"))
                    }
                }
                let worth = |level: Level| self.verbose || level >= Level::Warn;
                if *status != Status::Cached || self.verbose {
                    let shown = log.iter().filter(|line| worth(line.level));
                    lines.extend(shown.map(|line| format!("{:>9}  │ {}: {}", "", level(line.level), line.message)));
                }
                lines.extend(near.iter().map(|near| {
                    format!("{:>9}  {name} used {} % of its {} limit", "warning", near.percent, near.limit)
                }));
                lines
            }
            Event::StepRefused { problems, .. } => {
                super::diagnostic::render(problems).lines().map(str::to_owned).collect()
            }
            Event::Exported { path, unchanged } => {
                vec![format!("{:>9}  {}", if *unchanged { "unchanged" } else { "wrote" }, path.display())]
            }
            Event::ExportFailed { path, message } => vec![format!("{:>9}  {}: {message}", "FAILED", path.display())],
            Event::RunStarted { .. }
            | Event::SourceStarted { .. }
            | Event::TasksFound { .. }
            | Event::TaskStarted { .. }
            | Event::TaskProgressed { .. } => Vec::new(),
            Event::RemoteFinished(report) => remote(report),
            Event::RunFinished(_) => Vec::new(),
        }
    }

    /// What is said of cached tasks, step by step.
    pub fn cached(&self) -> Vec<String> {
        let tasks = |tasks: usize| if tasks == 1 { String::new() } else { format!("  {tasks} tasks") };
        if self.cached.len() > 40 {
            let total: usize = self.cached.values().sum();
            return vec![format!("{:>9}  {} tasks of {} steps", "cached", count(total as u64), self.cached.len())];
        }
        self.cached.iter().map(|(step, number)| format!("{:>9}  {step}{}", "cached", tasks(*number))).collect()
    }
}

/// The lines on a remote store: what was exchanged, and what failed.
pub fn remote(report: &RemoteReport) -> Vec<String> {
    let RemoteReport { fetched, fetched_bytes, uploaded, uploaded_bytes, error } = report;
    let amount = |number: &u64, bytes: &u64| format!("{} objects ({})", count(*number), ByteSize(*bytes));
    let (fetched, uploaded) = (amount(fetched, fetched_bytes), amount(uploaded, uploaded_bytes));
    let mut lines = vec![format!("{:>9}  fetched {fetched}, uploaded {uploaded}", "remote")];
    lines.extend(error.iter().map(|error| format!("{:>9}  the remote store failed: {error}", "warning")));
    lines
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warning",
        Level::Error => "error",
    }
}

/// The last lines of a run.
pub fn summary(summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    let interesting = summary.metrics.iter().filter(|(step, _)| summary.metrics.len() <= 12 || !step.contains("rows"));
    for (step, metrics) in interesting {
        let shown: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        lines.push(format!("{:>9}  {step}  {}", "metrics", shown.join(", ")));
    }
    let tasks = &summary.tasks;
    let how = if summary.interrupted {
        "stopped"
    } else if summary.ok {
        "done"
    } else {
        "FAILED"
    };
    let mut parts = vec![format!("{} ran", tasks.ran), format!("{} cached", tasks.cached)];
    if tasks.failed > 0 {
        parts.push(format!("{} failed", tasks.failed));
    }
    if tasks.skipped > 0 {
        parts.push(format!("{} skipped", tasks.skipped));
    }
    let wall = duration((summary.wall_ms * 1000.0) as u64);
    lines.push(format!(
        "{how:>9}  {} {}: {} in {wall}",
        tasks.total,
        if tasks.total == 1 { "task" } else { "tasks" },
        parts.join(", ")
    ));
    lines
}

/// A metric: an integer as one, else six significant digits.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = 6 - (value.abs().log10().floor() as i32).clamp(-6, 5) - 1;
    format!("{value:.*}", usize::try_from(digits.max(0)).unwrap_or(0))
}
