//! `host runs`

use millrace_engine::event_log::events_of;
use millrace_engine::history::History;
use millrace_engine::{Diagnostic, Event, EventEnvelope};
use millrace_store::Store;
use serde_json::json;

use crate::args::RunsArgs;
use crate::render::{self, diagnostic, json, plain, words};
use crate::{commands, exit};

/// Shows the events of a run, with the time since its beginning.
fn events(args: &RunsArgs, store: &Store, id: &str) -> u8 {
    let history = History::open(store);
    let Some(run) = history.run(id) else {
        let error = Diagnostic::new(format!("there is no run `{id}` in this store")).help("`host runs` lists them");
        diagnostic::show_all(&[error], args.json);
        return exit::WRONG;
    };
    let events = match events_of(store, &run) {
        Ok(events) => events,
        Err(error) => {
            diagnostic::show_all(&[Diagnostic::new(error.to_string())], args.json);
            return exit::FAILED;
        }
    };
    if args.json {
        let mut json = json::Json::new();
        events.iter().for_each(|event| json.event(event));
        json.finish();
        return exit::DONE;
    }
    let mut plain = plain::Plain::new(true);
    for EventEnvelope { elapsed, event, .. } in &events {
        let time = words::duration(elapsed.as_micros() as u64);
        plain.lines(event).iter().for_each(|line| render::out(&format!("{time:>10}  {line}")));
        if let Event::RunFinished(summary) = event {
            plain
                .finish()
                .iter()
                .chain(&plain.summary(summary))
                .for_each(|line| render::out(&format!("{:>10}  {line}", "")));
        }
    }
    exit::DONE
}

/// Lists runs, newest first, or shows one.
pub fn run(args: &RunsArgs) -> u8 {
    let store = match commands::open(&args.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    if let Some(id) = &args.run {
        return events(args, &store, id);
    }
    for run in History::open(&store).runs().take(args.last) {
        if args.json {
            let line = json!({
                "run": run.id, "pipeline": run.pipeline, "path": run.path, "ok": run.ok, "interrupted": run.interrupted,
                "tasks": run.counts, "wall_ms": run.wall_ms, "metrics": run.metrics,
            });
            render::out(&line.to_string());
        } else {
            let how = match (run.interrupted, run.ok) {
                (true, _) => "stopped",
                (false, true) => "done",
                (false, false) => "FAILED",
            };
            let wall = words::duration((run.wall_ms * 1000.0) as u64);
            let counts = run.counts;
            render::out(&format!(
                "{how:>7}  {}  {}  {} ran, {} cached, {wall}",
                run.id, run.pipeline, counts.ran, counts.cached
            ));
        }
    }
    exit::DONE
}
