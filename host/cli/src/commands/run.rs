//! `host run`

use std::io::IsTerminal;

use millrace_engine::{Event, EventEnvelope, Options, RunMode, Summary, execute};

use crate::args::{RunArgs, default_jobs, default_memory};
use crate::render::{self, diagnostic, json, plain, terminal};
use crate::{commands, exit};

enum Renderer {
    Json(json::Json),
    Plain(plain::Plain),
    Terminal(terminal::Terminal),
}

impl Renderer {
    fn event(&mut self, envelope: &EventEnvelope) {
        match self {
            Self::Json(json) => json.event(envelope),
            Self::Plain(plain) => plain.lines(&envelope.event).iter().for_each(|line| render::note(line)),
            Self::Terminal(terminal) => terminal.event(&envelope.event),
        }
    }

    /// Writes what is left but for the summary, which the returned renderer of lines has.
    fn finish(self) -> Option<plain::Plain> {
        match self {
            Self::Json(mut json) => {
                json.finish();
                None
            }
            Self::Plain(mut plain) => {
                plain.finish().iter().for_each(|line| render::note(line));
                Some(plain)
            }
            Self::Terminal(terminal) => Some(terminal.finish()),
        }
    }
}

/// Runs a pipeline.
pub fn run(args: &RunArgs) -> u8 {
    let store = match commands::open(&args.pipeline.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    let overrides = match args.pipeline.overrides() {
        Ok(overrides) => overrides,
        Err(error) => {
            diagnostic::show_all(&[error], args.pipeline.json);
            return exit::WRONG;
        }
    };
    let executor = match args.executor() {
        Ok(executor) => executor,
        Err(error) => {
            render::note(&format!("error: cannot find the path of this program: {error}"));
            return exit::WRONG;
        }
    };
    let cancel = commands::cancel_on_interrupt();
    let jobs = args.jobs.map_or_else(default_jobs, usize::from);
    let options = Options {
        store,
        pipeline: args.pipeline.pipeline.clone(),
        overrides,
        jobs,
        memory: args.memory.map_or_else(default_memory, |memory| memory.0),
        fail_fast: args.fail_fast,
        mode: RunMode::Run,
        executor,
        cancel,
    };
    let mut renderer = if args.pipeline.json {
        Renderer::Json(json::Json::new())
    } else if std::io::stderr().is_terminal() {
        Renderer::Terminal(terminal::Terminal::new(args.verbose))
    } else {
        Renderer::Plain(plain::Plain::new(args.verbose))
    };
    let result = execute(&options, &mut |event| renderer.event(&event));
    let plain = renderer.finish();
    match result {
        Ok(summary) => {
            plain.iter().flat_map(|plain| plain.summary(&summary)).for_each(|line| render::note(&line));
            if summary.interrupted {
                exit::INTERRUPTED
            } else if summary.ok {
                exit::DONE
            } else {
                exit::FAILED
            }
        }
        Err(error) => {
            diagnostic::show(&error, args.pipeline.json);
            if args.pipeline.json {
                // A program that waits for the last line gets one.
                let mut json = json::Json::new();
                json.event(&EventEnvelope::at_once(Event::RunFinished(Summary::default())));
                json.finish();
            }
            exit::WRONG
        }
    }
}
