//! Events on a terminal: lines that stay, and below them a bar that moves.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_engine::{Event, Status};

use super::plain::Plain;
use super::words::task;

/// A bar under the lines of [`Plain`].
pub struct Terminal {
    plain: Plain,
    bar: ProgressBar,
    running: Vec<(String, Option<(u64, u64)>)>,
}

impl Terminal {
    /// Begins to draw.
    pub fn new(plain: Plain) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(15));
        let style = ProgressStyle::with_template("{bar:24.cyan/dim} {pos}/{len} tasks  {wide_msg:.dim}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━╌"));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { plain, bar, running: Vec::new() }
    }

    /// Draws an event.
    pub fn event(&mut self, event: &Event) {
        for line in self.plain.lines(event) {
            self.bar.suspend(|| super::note(&line));
        }
        match event {
            Event::TasksFound { total } => self.bar.set_length(*total as u64),
            Event::SourceStarted { source } => self.running.push((reading(source), None)),
            Event::SourceFinished { source, .. } => {
                let name = reading(source);
                self.running.retain(|(known, _)| *known != name);
            }
            Event::TaskStarted { step, part } => self.running.push((task(step, *part), None)),
            Event::TaskProgressed { step, part, done, total } => {
                let name = task(step, *part);
                if let Some(entry) = self.running.iter_mut().find(|(known, _)| *known == name) {
                    entry.1 = Some((*done, *total));
                }
            }
            Event::TaskFinished { step, part, status, .. } => {
                let name = task(step, *part);
                self.running.retain(|(known, _)| *known != name);
                if !matches!(status, Status::Skipped) {
                    self.bar.inc(1);
                }
            }
            _ => {}
        }
        let show = |(name, progress): &(String, Option<(u64, u64)>)| match progress {
            Some((done, total)) if *total > 0 => format!("{name} {} %", done.saturating_mul(100) / total),
            _ => name.clone(),
        };
        self.bar.set_message(self.running.iter().map(show).collect::<Vec<_>>().join(", "));
    }

    /// Takes the bar away and says what was cached.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
        for line in self.plain.cached() {
            super::note(&line);
        }
    }
}

fn reading(source: &str) -> String {
    format!("reading {source}")
}
