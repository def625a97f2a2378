//! `host exec`

use millrace_engine::types::{ActionKey, ByteSize, Fuel};
use millrace_engine::{EXEC_CACHED, ExecReport, Failure, RemoteReport, exec, finish_remote};

use crate::args::ExecArgs;
use crate::render::{self, plain, words};
use crate::{commands, exit};

/// Runs one task by its key.
pub fn run(args: &ExecArgs) -> u8 {
    let store = match commands::open(&args.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    let Ok(key) = args.key.parse::<ActionKey>() else {
        render::note(&format!("error: `{}` is not an action key: expected `b3:` and 64 hexadecimal digits", args.key));
        return exit::WRONG;
    };
    let cancel = commands::cancel_on_interrupt();
    let report = match exec(&store, &key, args.again, &cancel) {
        Ok(report) => report,
        Err(error) => {
            render::note(&format!("error: {error}"));
            return exit::WRONG;
        }
    };
    let remote = finish_remote(&store);
    if args.json {
        render::out(&serde_json::to_string(&report).unwrap_or_default());
    } else {
        show(&report, remote.as_ref());
    }
    match report.failure {
        None => exit::DONE,
        Some(Failure::Cancelled) => exit::INTERRUPTED,
        Some(_) => exit::FAILED,
    }
}

fn show(report: &ExecReport, remote: Option<&RemoteReport>) {
    match &report.failure {
        Some(failure) => render::note(&format!("{:>9}  {}", "FAILED", words::failure(failure))),
        None if report.status == EXEC_CACHED => render::note(&format!("{:>9}  {}", "cached", report.key)),
        None => {
            let (wall, memory) = (words::duration(report.cost.wall_us), ByteSize(report.cost.peak_memory_bytes));
            let fuel = Fuel(report.cost.fuel);
            render::note(&format!("{:>9}  {}  {wall}, {fuel} fuel, {memory}", "ran", report.key));
        }
    }
    remote.iter().flat_map(|report| plain::remote(report)).for_each(|line| render::note(&line));
    for (port, digests) in &report.outputs {
        digests.iter().for_each(|digest| render::out(&format!("{port}  {digest}")));
    }
}
