//! Events on a terminal: lines that stay, and below them the steps that are running, in place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use millrace_engine::Event;

use super::layout::{STATUS, truncated};
use super::plain::Plain;
use super::steps::Steps;
use super::words::{count, duration};

/// Running steps that are shown at most.
const LIVE: usize = 12;
/// The rows of a terminal that the live lines leave free.
const FREE: usize = 4;
/// Columns of the bar.
const BAR: usize = 24;

/// The live lines under the lines of [`Plain`].
pub struct Terminal {
    view: Arc<Mutex<View>>,
    bar: ProgressBar,
}

/// What the events and the drawing of the bar share.
struct View {
    plain: Plain,
    /// Sources that are being read.
    reading: Vec<String>,
    started: Instant,
}

fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The columns and rows of the terminal of standard error.
pub fn size() -> (usize, usize) {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)))
}

/// The live lines in a terminal of this size: the steps that are running, and a bar over all.
fn live_lines(steps: &Steps, reading: &[String], elapsed: Duration, width: usize, height: usize) -> Vec<String> {
    let most = LIVE.min(height.saturating_sub(FREE));
    let reading = reading.iter().map(|source| truncated(&format!("{:>STATUS$}  {source}", "reading"), width));
    let running = steps.iter().filter(|step| step.is_running()).map(|step| step.line(steps.name_width(), width));
    let all: Vec<String> = reading.chain(running).collect();
    let more = all.len().saturating_sub(most);
    let mut lines: Vec<String> = all.into_iter().take(most).collect();
    if more > 0 {
        lines.push(truncated(&format!("{:>STATUS$}  … and {more} more", ""), width));
    }
    let (done, total, is_exact) = steps.tasks();
    let filled = (BAR * done.min(total)).checked_div(total).unwrap_or(0);
    let bar = format!("{}{}", "━".repeat(filled), "╌".repeat(BAR - filled));
    let finished = steps.iter().filter(|step| step.is_finished).count();
    let total = if is_exact { count(total as u64) } else { format!("at least {}", count(total as u64)) };
    let (finished, number) = (count(finished as u64), count(steps.len() as u64));
    let tasks = format!("{finished}/{number} steps, {} of {total} tasks", count(done as u64));
    let elapsed = duration(elapsed.as_micros() as u64);
    let line = if width < 70 { format!("{tasks}  {elapsed}") } else { format!("{bar}  {tasks}  {elapsed}") };
    lines.push(truncated(&line, width));
    lines
}

impl Terminal {
    /// Begins to draw.
    pub fn new(verbose: bool) -> Self {
        let plain = Plain::for_terminal(verbose, size().0);
        let view = Arc::new(Mutex::new(View { plain, reading: Vec::new(), started: Instant::now() }));
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(15));
        let drawn = view.clone();
        // Called whenever the bar is drawn, so that times move without events.
        let live = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let (width, height) = size();
            let View { plain, reading, started } = &*lock(&drawn);
            // The last column stays free: some terminals wrap a line that fills it.
            let width = width.saturating_sub(1).max(1);
            let lines = live_lines(plain.steps(), reading, started.elapsed(), width, height);
            let _ = out.write_str(&lines.join("\n"));
        };
        let style = ProgressStyle::with_template("{live}").unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("live", live));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { view, bar }
    }

    /// Draws an event.
    pub fn event(&mut self, event: &Event) {
        let lines = {
            let mut view = lock(&self.view);
            match event {
                Event::SourceStarted { source } => view.reading.push(source.clone()),
                Event::SourceFinished { source, .. } => view.reading.retain(|known| known != source),
                _ => {}
            }
            view.plain.set_width(size().0);
            view.plain.lines(event)
        };
        self.print(&lines);
    }

    /// Prints lines above the live ones. Drawing locks the view, which must be free here.
    fn print(&self, lines: &[String]) {
        if !lines.is_empty() {
            self.bar.suspend(|| lines.iter().for_each(|line| super::note(line)));
        }
    }

    /// Removes the live lines, and returns the lines for the end.
    pub fn finish(self) -> Plain {
        self.bar.finish_and_clear();
        drop(self.bar);
        let lines = lock(&self.view).plain.finish();
        lines.iter().for_each(|line| super::note(line));
        std::mem::replace(&mut lock(&self.view).plain, Plain::new(false))
    }
}

#[cfg(test)]
mod tests {
    use millrace_engine::event::StepSummary;
    use millrace_engine::types::ByteSize;
    use unicode_width::UnicodeWidthStr;

    use super::*;

    /// Steps of which every third has a running task.
    fn steps(number: usize) -> Steps {
        let mut steps = Steps::default();
        let summary = |step: usize| StepSummary {
            name: format!("step_with_a_long_name_{step}"),
            instances: 1,
            memory_limit: ByteSize(1 << 28),
        };
        let started =
            |steps| Event::RunStarted { run: String::new(), pipeline: String::new(), instances: number, steps };
        steps.event(&started((0..number).map(summary).collect()));
        for step in 0..number {
            let step_name = summary(step).name;
            steps.event(&Event::TasksPlanned { step: step_name.clone(), tasks: 84, is_exact: step % 2 == 0 });
            if step % 3 == 0 {
                steps.event(&Event::TaskStarted { step: step_name, part: Some(0) });
            }
        }
        steps
    }

    /// The live lines must neither wrap nor scroll, or they could not be drawn over.
    #[test]
    fn live_lines_fit_any_terminal() {
        for number in [0, 1, 13, 1000] {
            let steps = steps(number);
            for (width, height) in [(20, 5), (59, 24), (80, 24), (199, 60)] {
                let lines = live_lines(&steps, &["customers".to_owned()], Duration::from_secs(61), width, height);
                assert!(lines.iter().all(|line| line.width() <= width), "{number} {width}: {lines:#?}");
                assert!(lines.len() < height, "{number} {height}: {lines:#?}");
            }
        }
    }

    /// A number of tasks that is not known yet must not look like one that is.
    #[test]
    fn a_total_is_exact_or_said_to_be_a_bound() {
        let last = |number| live_lines(&steps(number), &[], Duration::from_secs(1), 100, 24).pop().unwrap();
        assert!(last(1).contains("0 of 84 tasks"), "{}", last(1));
        assert!(last(2).contains("0 of at least 168 tasks"), "{}", last(2));
    }
}
