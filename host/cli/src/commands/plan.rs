//! `host plan`

use millrace_engine::{Event, RunMode, Status, execute};

use crate::args::PlanArgs;
use crate::render::{self, diagnostic, json, plain, words};
use crate::{commands, exit};

/// Reports what a run would do. Sources that changed are read; no step runs.
pub fn run(PlanArgs { pipeline: args, verbose }: &PlanArgs) -> u8 {
    let store = match commands::open(&args.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    let options = match args.options(store, RunMode::Plan) {
        Ok(options) => options,
        Err(error) => {
            diagnostic::show_all(&[error], args.json);
            return exit::WRONG;
        }
    };
    let mut lines = plain::Plain::new(*verbose);
    let mut out = json::Json::new();
    let mut unknown = 0;
    let result = execute(&options, &mut |envelope| {
        if let Event::TaskFinished(end) = &envelope.event
            && end.status == Status::Unknown
        {
            unknown += 1;
        }
        if args.json {
            out.event(&envelope);
        } else {
            lines.lines(&envelope.event).iter().for_each(|line| render::out(line));
        }
    });
    out.finish();
    match result {
        Ok(summary) if !args.json => {
            lines.finish().iter().for_each(|line| render::out(line));
            let tasks = summary.tasks;
            let wall = words::duration((summary.wall_ms * 1000.0) as u64);
            let rest =
                if unknown > 0 { format!(", {unknown} instances after them are not known yet") } else { String::new() };
            render::out(&format!(
                "{:>9}  {} tasks would run, {} are cached{rest}; planned in {wall}",
                "plan", tasks.ran, tasks.cached
            ));
            exit::DONE
        }
        Ok(_) => exit::DONE,
        Err(error) => {
            diagnostic::show(&error, args.json);
            exit::WRONG
        }
    }
}
