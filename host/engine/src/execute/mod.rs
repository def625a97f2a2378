//! One execution of a pipeline, from its file to its history.
//!
//! ```text
//! trace      replays the last run if nothing has changed
//! sources    find sources, plan, read the columns that are needed
//! run        connects planner, nodes (and which tasks of them are ready), hits, schedule and
//!            ledger: which tasks there are, which is next, what is reported
//! workers    pool, executor, cache: threads that compute tasks
//! finish     outputs, exports, history, trace
//! ```
//!
//! Keys and outputs of a task are functions of its inputs, so nothing depends on the order in
//! which tasks end.

mod cache;
mod compute;
mod display;
mod exec;
mod executor;
mod finish;
mod hits;
mod job;
mod key;
mod ledger;
mod nearby;
mod needs;
mod node_end;
mod nodes;
mod options;
mod outputs;
mod planner;
mod pool;
mod ready;
mod run;
mod schedule;
mod selections;
mod sources;
mod task;
mod trace;
mod workers;

use std::mem::ManuallyDrop;

use millrace_store::StoreError;
use millrace_threads::spawn_helper;
use millrace_types::IndexName;

pub use exec::{EXEC_CACHED, EXEC_FAILED, EXEC_RAN, ExecError, ExecReport, exec};
pub use options::{Executor, Loaded, Options, RunError, RunMode, load};
pub(crate) use selections::Selections;

use crate::chunks::StoreChunks;
use crate::event::{Event, EventEnvelope, RunClock, Summary};
use crate::event_log::LogWriter;
use crate::export::exports;
use crate::history::{self, History, RunRecord};
use crate::remote::finish_remote;
use display::{Emit, Sink};
use finish::Finished;
use ledger::steps_of;
use run::Run;
use sources::{ReadySources, Sources};
#[cfg(test)]
pub(crate) use trace::Trace as TraceRecord;
use trace::{SourceSeen, Trace};

/// Runs a pipeline, or reports what a run would do.
///
/// # Errors
/// When it could not begin. A step that fails is not an error here: the summary reports it.
pub fn execute(options: &Options, emit: &mut (dyn FnMut(EventEnvelope) + Send)) -> Result<Summary, RunError> {
    let clock = RunClock::start();
    let jobs = options.jobs.clamp(1, millrace_wasm::MAX_JOBS as usize - 1);
    let store = options.store.clone().used_by(jobs, options.cancel.flag());
    // Never dropped, like what is loaded and built below: it consists of thousands of small
    // allocations, and a process runs one pipeline.
    let options = &mut *ManuallyDrop::new(Options { store, jobs, ..options.clone() });
    let cancel = options.cancel.clone();
    match run(options, clock, emit) {
        // A source that was not read because of the cancellation is not an error.
        Err(RunError::Invalid(_)) if cancel.is_cancelled() => {
            let summary = Summary { interrupted: true, wall_ms: clock.wall_ms(), ..Summary::default() };
            emit(clock.now(Event::RunFinished(summary.clone())));
            Ok(summary)
        }
        ended => ended,
    }
}

fn run(options: &mut Options, clock: RunClock, emit: Sink<'_>) -> Result<Summary, RunError> {
    if options.mode == RunMode::Run
        && let Some(replayed) = trace::replay(options, clock, emit)
    {
        return replayed;
    }
    let log = LogWriter::default();
    let mut emit = |envelope: EventEnvelope| {
        log.add(&envelope);
        emit(envelope);
    };
    let mut emit = Emit::now(clock, &mut emit);
    // The records that this pipeline's last run used are read at once.
    options.store = options.store.with_index(&index_name(options));
    let options = &*options;
    let loaded = ManuallyDrop::new(load(options)?);
    let Loaded { pipeline, graph, .. } = &*loaded;
    let chunks = StoreChunks::shared(&options.store);
    let id = history::new_id();
    let (name, instances, steps) = (pipeline.name.clone(), graph.nodes.len(), steps_of(graph, options.memory).into());
    emit.send(Event::RunStarted { run: id.clone(), pipeline: name, instances, steps });
    graph.sources.iter().for_each(|source| emit.send(Event::SourceStarted { source: source.name.to_string() }));
    let sources = Sources::find(options, &loaded, &chunks)?;
    let last = match options.mode {
        RunMode::Plan => History::open(&options.store).last_of(&pipeline.file.path),
        RunMode::Run => None,
    };
    let ReadySources { planner, tables, seen } = sources.read_and_plan(&loaded, &mut emit)?;
    let mut run = Run::new(options, &loaded, planner, tables, last, emit);
    workers::run_tasks(&mut run, &chunks);
    let mut finished = ManuallyDrop::new(run.finish().map_err(system)?);
    if options.mode == RunMode::Run {
        finish_run(options, &loaded, &chunks, &mut finished, RunStart { id: id.clone(), clock, seen })?;
    } else {
        let _ = options.store.keep_index();
    }
    if let Some(report) = finish_remote(&options.store) {
        finished.emit.send(Event::RemoteFinished(report));
    }
    finished.summary.wall_ms = clock.wall_ms();
    let summary = finished.summary.clone();
    finished.emit.send(Event::RunFinished(summary.clone()));
    if options.mode == RunMode::Run {
        // The run has ended well without it.
        let _ = log.write(&options.store, &id, &clock);
    }
    Ok(summary)
}

fn system(error: StoreError) -> RunError {
    RunError::System(error.to_string())
}

/// The name of the index of a pipeline.
fn index_name(options: &Options) -> IndexName {
    let path = std::path::absolute(&options.pipeline).unwrap_or_else(|_| options.pipeline.clone());
    let mut name = blake3::Hasher::new_derive_key("millrace 2026-11 index of a pipeline");
    name.update(path.as_os_str().as_encoded_bytes());
    name.finalize().into()
}

/// Values from the beginning of a run that its end needs.
struct RunStart {
    id: String,
    clock: RunClock,
    seen: Vec<SourceSeen>,
}

/// Writes exports, history, index and trace.
fn finish_run(
    options: &Options,
    loaded: &Loaded,
    chunks: &StoreChunks,
    finished: &mut Finished<'_>,
    RunStart { id, clock, seen }: RunStart,
) -> Result<(), RunError> {
    let (outputs, emit, cancel) = (&finished.outputs, &mut finished.emit, &options.cancel);
    let exported = exports(&options.store, chunks, &loaded.graph, outputs, cancel, &mut |event| emit.send(event));
    finished.summary.interrupted = cancel.is_cancelled();
    finished.summary.ok &= exported.is_some() && !finished.summary.interrupted;
    finished.summary.wall_ms = clock.wall_ms();
    let record = RunRecord::new(id, &loaded.pipeline, &finished.summary, std::mem::take(&mut finished.tasks));
    std::thread::scope(|scope| {
        // The index is a copy of records: an error in writing it does not fail the run.
        let keep = || {
            let _ = options.store.keep_index();
            options.store.clear_unfinished();
        };
        if spawn_helper(scope, keep).is_none() {
            keep();
        }
        record.write(&options.store).map_err(system)?;
        let trace = exported.and_then(|exports| Trace::of(options, loaded, seen, finished, exports, record));
        if let Some(trace) = ManuallyDrop::new(trace).as_ref() {
            trace.keep(options);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use millrace_store::Store;
    use millrace_wasm::Cancel;

    use super::*;
    use crate::pipeline::Overrides;

    /// Cancelling while sources are read reports a cancellation, not an error.
    #[test]
    fn a_run_that_is_cancelled_before_its_first_task_ends_as_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("p.toml"), "[sources.s]\npath = \"rows.csv\"\n").unwrap();
        std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
        let options = Options {
            store: Store::open(&path("store")).unwrap(),
            pipeline: path("p.toml"),
            overrides: Overrides::default(),
            jobs: 2,
            memory: u64::MAX,
            fail_fast: false,
            mode: RunMode::Run,
            executor: Executor::Local,
            cancel: Cancel::default(),
        };
        options.cancel.cancel();
        let mut last = None;
        let summary = execute(&options, &mut |envelope| last = Some(envelope.event)).unwrap();
        assert!(summary.interrupted && !summary.ok);
        assert!(matches!(last, Some(Event::RunFinished(last)) if last == summary));
        // Without a cancellation the same error is reported.
        std::fs::remove_file(path("rows.csv")).unwrap();
        let options = Options { cancel: Cancel::default(), ..options };
        assert!(matches!(execute(&options, &mut |_| {}), Err(RunError::Invalid(_))));
    }
}
