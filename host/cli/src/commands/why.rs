//! `host why`

use millrace_engine::event::TaskEnd;
use millrace_engine::history::History;
use millrace_engine::why::MissReason;
use millrace_engine::{Event, RunMode, Status, execute};
use serde_json::json;

use crate::args::WhyArgs;
use crate::render::{self, diagnostic, words};
use crate::{commands, exit};

/// Reports why a step would run now, else why it ran the last time.
pub fn run(args: &WhyArgs) -> u8 {
    let store = match commands::open(&args.pipeline.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    let history = History::open(&store);
    let options = match args.pipeline.options(store, RunMode::Plan) {
        Ok(options) => options,
        Err(error) => {
            diagnostic::show_all(&[error], args.pipeline.json);
            return exit::WRONG;
        }
    };
    let mut now: Vec<(String, Option<MissReason>)> = Vec::new();
    let mut names = Vec::new();
    let (mut cached, mut unknown) = (0, false);
    let result = execute(&options, &mut |envelope| {
        let Event::TaskFinished(end) = envelope.event else { return };
        let TaskEnd { step, part, status, reason, .. } = *end;
        let name = step.split('[').next().unwrap_or_default().to_owned();
        if name == args.step || step == args.step {
            match status {
                Status::Cached => cached += 1,
                Status::Unknown => unknown = true,
                _ => now.push((words::task(&step, part), reason)),
            }
        }
        if names.last() != Some(&name) {
            names.push(name);
        }
    });
    names.sort();
    names.dedup();
    if let Err(error) = result {
        diagnostic::show(&error, args.pipeline.json);
        return exit::WRONG;
    }
    if !now.is_empty() {
        for (task, reason) in &now {
            say(args.pipeline.json, "would-run", None, task, reason.as_ref());
        }
    } else if unknown {
        let line = "it reads the output of a step that would run; ask `host why` about that one";
        if args.pipeline.json {
            render::out(&json!({ "step": args.step, "status": "unknown", "reasons": [line] }).to_string());
        } else {
            render::out(&format!("{}: {line}", args.step));
        }
    } else if cached > 0 {
        if !args.pipeline.json {
            render::out(&format!("{}: nothing that it reads has changed, so it comes from the cache", args.step));
        }
        for (run, task, reason) in history.last_miss(&args.pipeline.pipeline, &args.step) {
            say(args.pipeline.json, "ran", Some(&run), &words::task(&task.instance, task.part), Some(&reason));
        }
    } else {
        let error = millrace_engine::Diagnostic::new(format!("the pipeline has no step `{}`", args.step));
        diagnostic::show_all(&[error.suggest(&args.step, names.iter().map(String::as_str))], args.pipeline.json);
        return exit::WRONG;
    }
    exit::DONE
}

fn say(as_json: bool, status: &str, run: Option<&str>, task: &str, reason: Option<&MissReason>) {
    let reasons = reason.map(words::reason).unwrap_or_default();
    if as_json {
        render::out(&json!({ "step": task, "status": status, "run": run, "reasons": reasons }).to_string());
        return;
    }
    let head = run.map_or_else(|| format!("{task} would run:"), |run| format!("{task} last ran in {run}:"));
    render::out(&head);
    reasons.iter().for_each(|reason| render::out(&format!("  {reason}")));
}
