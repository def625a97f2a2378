//! What is known about each step of a run, from its events, and the line of a step.
//!
//! The instances of a step are one line. This module knows neither terminals nor when a line is
//! shown.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millrace_engine::event::{NearLimit, StepSummary, TaskEnd, step_of};
use millrace_engine::types::ByteSize;
use millrace_engine::{Event, Status};

use super::layout::{Cell, fit};
use super::words::{count, duration, task};

/// A task that is running.
struct Running {
    name: String,
    since: Instant,
    /// The amounts that are done and in total, as the task reports them.
    progress: Option<(u64, u64)>,
}

/// Ended tasks of a step by status.
#[derive(Default)]
pub struct Ended {
    ran: usize,
    cached: usize,
    failed: usize,
    skipped: usize,
    would_run: usize,
    unknown: usize,
}

impl Ended {
    fn total(&self) -> usize {
        self.ran + self.cached + self.failed + self.skipped + self.would_run + self.unknown
    }
}

/// A step.
#[derive(Default)]
pub struct Step {
    /// Its name.
    pub name: String,
    instances: usize,
    memory_limit: u64,
    /// The number of tasks of the instances that have reported one, or lower bounds of it.
    planned: usize,
    /// The instances whose number of tasks is exact.
    exact: usize,
    /// The lower bounds that were reported.
    bounds: HashMap<String, usize>,
    ended: Ended,
    running: Vec<Running>,
    rows: u64,
    /// The time of the tasks that ran, in microseconds.
    wall_us: u64,
    peak_memory: u64,
    /// The limits that tasks came close to, each with the closest task.
    pub near: Vec<NearLimit>,
    /// Whether its last task has ended.
    pub is_finished: bool,
    /// Whether its line was shown.
    pub is_shown: bool,
}

/// The steps of a run, in the order of the pipeline.
#[derive(Default)]
pub struct Steps {
    steps: Vec<Step>,
    index: HashMap<String, usize>,
    name_width: usize,
}

/// Columns that names of steps have at most.
const NAME: usize = 28;

impl Steps {
    /// Takes an event into account.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { steps, .. } => steps.iter().for_each(|step| self.add(step)),
            Event::TasksPlanned { step, tasks, is_exact } => self.step_mut(step).planned(step, *tasks, *is_exact),
            Event::TaskStarted { step, part } => {
                let running = Running { name: task(step, *part), since: Instant::now(), progress: None };
                self.step_mut(step).running.push(running);
            }
            Event::TaskProgressed { step, part, done, total } => {
                let name = task(step, *part);
                let running = &mut self.step_mut(step).running;
                if let Some(running) = running.iter_mut().find(|running| running.name == name) {
                    running.progress = Some((*done, *total));
                }
            }
            Event::TaskFinished(end) => self.step_mut(&end.step).finished(end),
            Event::StepRefused { step, .. } => self.step_mut(step).ended.failed += 1,
            Event::StepFinished { step } => self.step_mut(step).is_finished = true,
            _ => {}
        }
    }

    fn add(&mut self, step: &StepSummary) {
        self.index.insert(step.name.clone(), self.steps.len());
        self.name_width = self.name_width.max(title(&step.name, step.instances).chars().count()).min(NAME);
        let (name, memory_limit) = (step.name.clone(), step.memory_limit.0);
        self.steps.push(Step { name, instances: step.instances, memory_limit, ..Step::default() });
    }

    /// The step of an instance.
    pub fn step_mut(&mut self, instance: &str) -> &mut Step {
        let name = step_of(instance);
        let index = match self.index.get(name) {
            Some(index) => *index,
            // Not in a well-formed stream of events.
            None => {
                self.add(&StepSummary { name: name.to_owned(), instances: 1, memory_limit: ByteSize(0) });
                self.steps.len() - 1
            }
        };
        &mut self.steps[index]
    }

    /// All steps.
    pub fn iter(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter()
    }

    /// The number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// The columns that names take.
    pub fn name_width(&self) -> usize {
        self.name_width
    }

    /// The tasks that have ended and all tasks, and whether the latter is exact.
    pub fn tasks(&self) -> (usize, usize, bool) {
        let totals = self.steps.iter().map(Step::total);
        let (total, is_exact) = totals.fold((0, true), |(sum, all), (total, exact)| (sum + total, all && exact));
        (self.steps.iter().map(|step| step.ended.total()).sum(), total, is_exact)
    }
}

/// The name of a step with the number of its instances.
fn title(name: &str, instances: usize) -> String {
    if instances > 1 { format!("{name} ×{instances}") } else { name.to_owned() }
}

impl Step {
    fn planned(&mut self, instance: &str, tasks: usize, is_exact: bool) {
        self.planned += tasks;
        self.planned -= self.bounds.remove(instance).unwrap_or(0);
        if is_exact {
            self.exact += 1;
        } else {
            self.bounds.insert(instance.to_owned(), tasks);
        }
    }

    fn finished(&mut self, end: &TaskEnd) {
        let name = task(&end.step, end.part);
        self.running.retain(|running| running.name != name);
        let ended = &mut self.ended;
        match end.status {
            Status::Ran => ended.ran += 1,
            Status::Cached => ended.cached += 1,
            Status::Failed => ended.failed += 1,
            Status::Skipped => ended.skipped += 1,
            Status::WouldRun => ended.would_run += 1,
            Status::Unknown => ended.unknown += 1,
        }
        if matches!(end.status, Status::Ran | Status::Cached | Status::WouldRun) {
            self.rows += end.rows_read;
        }
        if matches!(end.status, Status::Ran | Status::Failed) {
            self.wall_us += end.cost.wall_us;
            self.peak_memory = self.peak_memory.max(end.cost.peak_memory_bytes);
        }
        for near in &end.near {
            match self.near.iter_mut().find(|known| known.limit == near.limit) {
                Some(known) => known.percent = known.percent.max(near.percent),
                None => self.near.push(*near),
            }
        }
    }

    /// The number of tasks, and whether it is exact or a lower bound.
    fn total(&self) -> (usize, bool) {
        let (ended, running) = (self.ended.total(), self.running.len());
        (self.planned.max(ended + running), self.is_finished || self.exact == self.instances)
    }

    /// Whether a task is running.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether some task has ended.
    pub fn has_begun(&self) -> bool {
        self.ended.total() > 0
    }

    /// Whether it is finished and all its tasks came from the cache.
    pub fn is_cached(&self) -> bool {
        self.ended.cached == self.ended.total() && self.running.is_empty()
    }

    /// The tasks that came from the cache.
    pub fn cached(&self) -> usize {
        self.ended.cached
    }

    /// Whether a task failed.
    pub fn has_failed(&self) -> bool {
        self.ended.failed > 0
    }

    /// Whether all that is known is that other steps would run first.
    pub fn is_unknown(&self) -> bool {
        self.ended.unknown > 0 && self.ended.unknown == self.ended.total()
    }

    /// Whether some task would run.
    pub fn would_run(&self) -> bool {
        self.ended.would_run > 0
    }

    fn status(&self) -> &'static str {
        let Ended { ran, failed, skipped, would_run, unknown, .. } = self.ended;
        match () {
            () if failed > 0 => "FAILED",
            () if !self.running.is_empty() => "running",
            () if would_run > 0 => "would run",
            () if unknown > 0 => "unknown",
            () if ran > 0 => "ran",
            () if skipped > 0 => "skipped",
            () => "cached",
        }
    }

    /// The line of the step, in at most `width` columns.
    pub fn line(&self, name_width: usize, width: usize) -> String {
        let Ended { cached, failed, skipped, .. } = self.ended;
        let (total, is_exact) = self.total();
        // Instances of which no task was made are skipped with all their tasks.
        let done = if self.is_finished && skipped == self.ended.total() { total } else { self.ended.total() };
        let tasks = match (is_exact, done == total) {
            (true, true) if total == 1 => "1 task".to_owned(),
            (true, true) => format!("{} tasks", count(total as u64)),
            (true, false) => format!("{}/{} tasks", count(done as u64), count(total as u64)),
            (false, _) => format!("{} of at least {}", count(done as u64), count(total.max(done + 1) as u64)),
        };
        let now = self.running.iter().map(|running| running.since.elapsed()).sum::<Duration>();
        let time = match self.wall_us + now.as_micros() as u64 {
            0 => String::new(),
            time => duration(time),
        };
        let rows = if self.rows > 0 { format!("{} rows", count(self.rows)) } else { String::new() };
        let (peak, limit) = (ByteSize(self.peak_memory), ByteSize(self.memory_limit));
        let memory = if self.peak_memory > 0 { format!("{peak} of {limit}") } else { String::new() };
        let counts = [(failed, "failed"), (skipped, "skipped"), (cached, "cached")];
        let counts = counts.into_iter().filter(|(number, _)| *number > 0 && *number < done);
        let counts: Vec<String> = counts.map(|(number, what)| format!("{} {what}", count(number as u64))).collect();
        let cells = [
            Cell::left(title(&self.name, self.instances), name_width, 0),
            Cell::right(tasks, 9, 1),
            Cell::right(rows, 14, 5),
            Cell::right(time, 9, 2),
            Cell::right(memory, 18, 4),
            Cell::left(self.percent(), 0, 6),
            Cell::left(counts.join(", "), 0, 3),
        ];
        fit(self.status(), &cells, width)
    }

    /// The progress that running tasks report, of the first one.
    fn percent(&self) -> String {
        let progress = self.running.iter().find_map(|running| running.progress);
        let percent = progress.filter(|(_, total)| *total > 0).map(|(done, total)| done.saturating_mul(100) / total);
        percent.map_or_else(String::new, |percent| format!("{percent} %"))
    }
}
