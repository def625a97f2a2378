//! Events as lines that stay: in files, pipes and CI, and above the live lines of a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use millrace_engine::event::{NearLimit, TaskEnd, step_of};
use millrace_engine::types::{ByteSize, Fuel, Level};
use millrace_engine::{Event, RemoteReport, Status, Summary};

use unicode_width::UnicodeWidthStr;

use super::layout::{STATUS, truncated, wrapped};
use super::metrics;
use super::steps::{Step, Steps};
use super::words::{count, duration, failure, reason, task};

/// Distinct failures, warnings or reasons of a step that are shown, unless all are asked for.
const DISTINCT: usize = 3;
/// Steps that have a line each, although they ended well, on a terminal.
const STEPS: usize = 40;
/// Unchanged sources that are shown by name.
const SOURCES: usize = 8;
/// Lines of names of files of one folder.
const FILE_LINES: usize = 3;
/// Lines of names of cached steps.
const CACHED_LINES: usize = 4;

/// Turns events into lines.
pub struct Plain {
    /// Whether to show each task, and what steps log at every level.
    verbose: bool,
    /// Whether finished steps of a large pipeline are only counted.
    collapses: bool,
    /// The columns of the terminal.
    width: usize,
    steps: Steps,
    unchanged_sources: Vec<String>,
    /// Exported files by status and folder.
    exported: BTreeMap<(&'static str, PathBuf), Vec<String>>,
    /// The failures, warnings and reasons of each step that were shown, and how many were not.
    said: BTreeMap<String, (BTreeSet<String>, usize)>,
}

impl Plain {
    /// Lines of any width, as for a file.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            collapses: false,
            width: usize::MAX,
            steps: Steps::default(),
            unchanged_sources: Vec::new(),
            exported: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    /// Lines for a terminal: at most `width` columns, and few of them.
    pub fn for_terminal(verbose: bool, width: usize) -> Self {
        Self { collapses: !verbose, width, ..Self::new(verbose) }
    }

    /// Sets the number of columns.
    pub fn set_width(&mut self, width: usize) {
        self.width = width;
    }

    /// The steps so far.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// The lines of an event.
    pub fn lines(&mut self, event: &Event) -> Vec<String> {
        let mut lines = self.before(event);
        self.steps.event(event);
        match event {
            Event::SourceFinished { source, cached: true, rows, parts, .. } => {
                self.unchanged_sources.push(format!("{source} ({})", rows_in(*rows, *parts)));
            }
            Event::SourceFinished { source, cached: false, rows, parts, wall_us } => {
                let how = format!("{:>STATUS$}  {source}  {}, {}", "read", rows_in(*rows, *parts), duration(*wall_us));
                lines.push(truncated(&how, self.width));
            }
            Event::TaskFinished(end) => self.task(end, &mut lines),
            Event::StepRefused { problems, .. } => {
                lines.extend(super::diagnostic::render(problems).lines().map(str::to_owned));
            }
            Event::StepFinished { step } => self.step(step, &mut lines),
            Event::Exported { path, unchanged } => {
                let folder = path.parent().unwrap_or(path).to_owned();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let status = if *unchanged { "unchanged" } else { "wrote" };
                self.exported.entry((status, folder)).or_default().push(name);
            }
            Event::ExportFailed { path, message } => {
                lines.push(format!("{:>STATUS$}  {}: {message}", "FAILED", path.display()));
            }
            Event::RemoteFinished(report) => lines.extend(remote(report)),
            _ => {}
        }
        lines
    }

    /// What an event of another kind ends: the list of unchanged sources.
    fn before(&mut self, event: &Event) -> Vec<String> {
        let is_source = matches!(event, Event::SourceStarted { .. } | Event::SourceFinished { .. });
        if is_source || self.unchanged_sources.is_empty() {
            return Vec::new();
        }
        let sources = std::mem::take(&mut self.unchanged_sources);
        if sources.len() > SOURCES {
            return vec![format!("{:>STATUS$}  {} sources", "unchanged", count(sources.len() as u64))];
        }
        wrapped("unchanged", sources, self.width.min(100))
    }

    fn task(&mut self, end: &TaskEnd, lines: &mut Vec<String>) {
        let name = task(&end.step, end.part);
        if self.verbose {
            lines.extend(self.task_line(end, &name));
        }
        if let Some(failed) = &end.failure
            && end.status == Status::Failed
        {
            let what = failure(failed);
            let line = format!("{:>STATUS$}  {name}  {what}", "FAILED");
            self.say(step_of(&end.step), what, line, lines);
        }
        if let Some(why) = &end.reason {
            for why in reason(why) {
                let line = format!("{:>STATUS$}  {name}: {why}", "");
                if self.verbose {
                    lines.push(line);
                } else {
                    self.say(step_of(&end.step), why.clone(), String::new(), lines);
                }
            }
        }
        if end.status == Status::Cached && !self.verbose {
            return;
        }
        let verbose = self.verbose;
        for line in end.log.iter().filter(|line| verbose || line.level >= Level::Warn) {
            let text = format!("{:>STATUS$}  │ {name}: {}: {}", "", level(line.level), line.message);
            if self.verbose {
                lines.push(text);
            } else {
                self.say(step_of(&end.step), line.message.clone(), text, lines);
            }
        }
    }

    /// Shows a line about a step unless the same was shown of another task, or enough was.
    fn say(&mut self, step: &str, what: String, line: String, lines: &mut Vec<String>) {
        let (said, more) = self.said.entry(step.to_owned()).or_default();
        if said.contains(&what) {
            return;
        }
        if said.len() == DISTINCT && !self.verbose {
            *more += 1;
            return;
        }
        said.insert(what);
        if !line.is_empty() {
            lines.push(line);
        }
    }

    /// The line of one task.
    fn task_line(&self, end: &TaskEnd, name: &str) -> Option<String> {
        let (wall, memory) = (duration(end.cost.wall_us), ByteSize(end.cost.peak_memory_bytes));
        let text = match end.status {
            Status::Ran => format!("{:>STATUS$}  {name}  {wall}, {} fuel, {memory}", "ran", Fuel(end.cost.fuel)),
            Status::Cached => format!("{:>STATUS$}  {name}", "cached"),
            Status::Skipped => format!("{:>STATUS$}  {name}", "skipped"),
            Status::WouldRun => format!("{:>STATUS$}  {name}", "would run"),
            // The failure itself has a line.
            Status::Failed | Status::Unknown => return None,
        };
        Some(text)
    }

    /// The line of a step that has ended.
    fn step(&mut self, name: &str, lines: &mut Vec<String>) {
        let is_collapsed = self.collapses && self.steps.len() > STEPS;
        let (width, verbose) = (self.width, self.verbose);
        let name_width = self.steps.name_width();
        let step = self.steps.step_mut(name);
        if step.is_shown || (is_collapsed && !step.has_failed()) || (step.is_cached() && !verbose) || step.is_unknown()
        {
            return;
        }
        step.is_shown = true;
        lines.push(step.line(name_width, width));
        lines.extend(step.near.iter().map(|near| warning(name, near)));
        self.rest_of(name, lines);
    }

    /// What was not shown of a step, as a number; in a plan, the reasons.
    fn rest_of(&mut self, name: &str, lines: &mut Vec<String>) {
        let Some((said, more)) = self.said.remove(name) else { return };
        if self.steps.step_mut(name).would_run() && !self.verbose {
            lines.extend(said.into_iter().map(|why| format!("{:>STATUS$}  └ {why}", "")));
        }
        if more > 0 {
            let line = format!("{:>STATUS$}  └ and {} more messages, all with -v", "", count(more as u64));
            lines.push(line);
        }
    }

    /// The lines that come last: steps that were not shown, cached steps, and files.
    pub fn finish(&mut self) -> Vec<String> {
        let mut lines = self.before(&Event::StepFinished { step: String::new() });
        let rest = self.names(|step| !step.is_cached() && !step.is_unknown());
        if self.collapses && rest.len() > STEPS {
            lines.push(format!("{:>STATUS$}  {} steps, a line each with -v", "finished", count(rest.len() as u64)));
        } else {
            self.collapses = false;
            rest.iter().for_each(|name| self.step(name, &mut lines));
        }
        lines.extend(wrapped("unknown", self.names(Step::is_unknown), self.width.min(100)));
        lines.extend(self.cached());
        lines.extend(self.files());
        lines
    }

    fn names(&self, which: impl Fn(&Step) -> bool) -> Vec<String> {
        let steps = self.steps.iter().filter(|step| step.has_begun() && !step.is_shown && which(step));
        steps.map(|step| step.name.clone()).collect()
    }

    /// The steps that came from the cache.
    fn cached(&self) -> Vec<String> {
        let names = self.names(Step::is_cached);
        let tasks: usize = self.steps.iter().filter(|step| !step.is_shown && step.is_cached()).map(Step::cached).sum();
        let (steps, tasks) = (plural(names.len(), "step"), plural(tasks, "task"));
        if names.is_empty() {
            return Vec::new();
        }
        let lines = wrapped("cached", names, self.width.min(100));
        if lines.len() > CACHED_LINES || lines.is_empty() {
            return vec![format!("{:>STATUS$}  {steps}, {tasks}", "cached")];
        }
        lines
    }

    fn files(&mut self) -> Vec<String> {
        let width = self.width.min(100);
        let line = |((status, folder), names): ((&str, PathBuf), Vec<String>)| {
            if let [name] = &names[..] {
                return vec![format!("{status:>STATUS$}  {}", folder.join(name).display())];
            }
            let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
            let number = count(names.len() as u64);
            let mut items = names;
            items[0] = format!("{}: {}", folder.display(), items[0]);
            let lines = wrapped(status, items, width);
            if lines.len() > FILE_LINES || lines.iter().any(|line| line.width() > width) {
                return vec![format!("{status:>STATUS$}  {number} files in {}", folder.display())];
            }
            lines
        };
        std::mem::take(&mut self.exported).into_iter().flat_map(line).collect()
    }

    /// The last lines of a run: metrics, and the tasks in numbers.
    pub fn summary(&self, summary: &Summary) -> Vec<String> {
        let width = if self.width == usize::MAX { 100 } else { self.width };
        let mut lines = metrics::lines(summary, width, self.verbose);
        let tasks = &summary.tasks;
        let how = match (summary.interrupted, summary.ok) {
            (true, _) => "stopped",
            (false, true) => "done",
            (false, false) => "FAILED",
        };
        let counts = [(tasks.failed, "failed"), (tasks.skipped, "skipped")];
        let mut parts =
            vec![format!("{} ran", count(tasks.ran as u64)), format!("{} cached", count(tasks.cached as u64))];
        parts.extend(counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(n as u64))));
        let wall = duration((summary.wall_ms * 1000.0) as u64);
        lines.push(format!("{how:>STATUS$}  {}: {} in {wall}", plural(tasks.total, "task"), parts.join(", ")));
        lines
    }
}

fn plural(number: usize, what: &str) -> String {
    format!("{} {what}{}", count(number as u64), if number == 1 { "" } else { "s" })
}

fn rows_in(rows: u64, parts: usize) -> String {
    format!("{} rows in {}", count(rows), plural(parts, "part"))
}

fn warning(step: &str, NearLimit { limit, percent }: &NearLimit) -> String {
    format!("{:>STATUS$}  {step} used {percent} % of its {} limit", "warning", limit.as_str())
}

/// The lines on a remote store: what was exchanged, and what failed.
pub fn remote(report: &RemoteReport) -> Vec<String> {
    let RemoteReport { fetched, fetched_bytes, uploaded, uploaded_bytes, error } = report;
    let amount = |number: &u64, bytes: &u64| format!("{} objects ({})", count(*number), ByteSize(*bytes));
    let (fetched, uploaded) = (amount(fetched, fetched_bytes), amount(uploaded, uploaded_bytes));
    let mut lines = vec![format!("{:>STATUS$}  fetched {fetched}, uploaded {uploaded}", "remote")];
    lines.extend(error.iter().map(|error| format!("{:>STATUS$}  the remote store failed: {error}", "warning")));
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
