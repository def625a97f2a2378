//! `host runs`

use millrace_engine::history::History;
use serde_json::json;

use crate::args::RunsArgs;
use crate::render::{self, words};
use crate::{commands, exit};

/// Lists runs, newest first.
pub fn run(args: &RunsArgs) -> u8 {
    let store = match commands::open(&args.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    for run in History::open(&store).runs().take(args.last) {
        if args.json {
            let line = json!({
                "run": run.id, "pipeline": run.pipeline, "path": run.path, "ok": run.ok,
                "tasks": run.counts, "wall_ms": run.wall_ms, "metrics": run.metrics,
            });
            render::out(&line.to_string());
        } else {
            let how = if run.ok { "done" } else { "FAILED" };
            let wall = words::duration((run.wall_ms * 1000.0) as u64);
            let counts = run.counts;
            render::out(&format!(
                "{how:>6}  {}  {}  {} ran, {} cached, {wall}",
                run.id, run.pipeline, counts.ran, counts.cached
            ));
        }
    }
    exit::DONE
}
