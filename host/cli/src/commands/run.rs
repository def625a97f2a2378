//! `host run`

use std::io::IsTerminal;

use millrace_engine::{Event, Options, RunMode, Summary, execute};

use crate::args::{RunArgs, default_jobs, default_memory};
use crate::render::{self, diagnostic, json, plain, terminal};
use crate::{commands, exit};

enum Renderer {
    Json(json::Json),
    Plain(plain::Plain),
    Terminal(terminal::Terminal),
}

impl Renderer {
    fn event(&mut self, event: &Event) {
        match self {
            Self::Json(json) => json.event(event),
            Self::Plain(plain) => plain.lines(event).iter().for_each(|line| render::note(line)),
            Self::Terminal(terminal) => terminal.event(event),
        }
    }

    fn finish(&mut self) {
        match self {
            Self::Json(json) => json.finish(),
            Self::Plain(plain) => plain.cached().iter().for_each(|line| render::note(line)),
            Self::Terminal(terminal) => terminal.finish(),
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
    let plain = plain::Plain::new(args.verbose);
    let mut renderer = if args.pipeline.json {
        Renderer::Json(json::Json::new())
    } else if std::io::stderr().is_terminal() {
        Renderer::Terminal(terminal::Terminal::new(plain))
    } else {
        Renderer::Plain(plain)
    };
    let result = execute(&options, &mut |event| renderer.event(&event));
    renderer.finish();
    match result {
        Ok(summary) => {
            if !args.pipeline.json {
                plain::summary(&summary).iter().for_each(|line| render::note(line));
            }
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
                // Whoever waits for the last line gets one.
                let mut json = json::Json::new();
                json.event(&Event::RunFinished(Summary::default()));
                json.finish();
            }
            exit::WRONG
        }
    }
}
