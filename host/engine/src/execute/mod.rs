//! The run loop: plans what can be planned, looks up what has a key, admits what
//! fits, runs it, and hands what came out to whoever waits for it.
//!
//! One thread at a time decides (`Run`), in the order in which results arrive; apart
//! from that they compute. What is decided never depends on that order: keys and
//! outputs of a task are functions of its inputs.

mod crew;
mod finish;
mod helper;
mod key;
mod needs;
mod outputs;
mod planning;
mod run;
mod say;
mod screen;
mod state;
mod trace;
mod worker;

pub(crate) use finish::Artifacts;

use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use millrace_store::{Store, StoreError};
use millrace_tables::Threads;
use millrace_types::{Schema, Table};
use millrace_wasm::Cancel;

use crate::components::Components;
use crate::data::StoreData;
use crate::diagnostic::Diagnostic;
use crate::event::{Event, Summary};
use crate::graph::{self, Graph};
use crate::history::{self, History, RunRecord};
use crate::pipeline::{self, Overrides, Pipeline};
use crate::source::{self, Found, Need, Read};
use helper::helper;
use screen::Emit;
use trace::{SourceSeen, Trace};

/// Whether to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Run what has to.
    Run,
    /// Only say what would.
    Plan,
}

/// What a run is given.
#[derive(Clone)]
pub struct Options {
    /// Where results are kept.
    pub store: Store,
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// What is set from outside.
    pub overrides: Overrides,
    /// Tasks that run, and threads that read, at a time.
    pub jobs: usize,
    /// Bytes that the guests may have together.
    pub memory: u64,
    /// Begin nothing more after the first failure.
    pub fail_fast: bool,
    /// Whether to run.
    pub mode: Mode,
    /// The wish to stop.
    pub cancel: Cancel,
}

/// Why there was no run.
#[derive(Debug)]
pub enum RunError {
    /// The pipeline or its data is not as it should be.
    Invalid(Vec<Diagnostic>),
    /// The system refused something that the run cannot do without.
    System(String),
}

/// A pipeline that was read and spread out.
pub struct Loaded {
    /// As written.
    pub pipeline: Pipeline,
    /// Spread out.
    pub graph: Graph,
    /// Its components.
    pub components: Components,
}

/// Reads a pipeline and spreads it out, without looking at data.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(options: &Options) -> Result<Loaded, RunError> {
    let mut components = Components::new(options.store.clone());
    components.prepare();
    let pipeline = pipeline::read(&options.pipeline).map_err(RunError::Invalid)?;
    let params = pipeline.values(&options.overrides).map_err(RunError::Invalid)?;
    let graph =
        graph::build(&pipeline, &params, &options.overrides.files, &mut components).map_err(RunError::Invalid)?;
    Ok(Loaded { pipeline, graph, components })
}

/// Runs a pipeline, or says what a run would do.
///
/// # Errors
/// When it could not begin. A step that fails is no error here: the summary says
/// that not all is well.
pub fn execute(options: &Options, emit: &mut (dyn FnMut(Event) + Send)) -> Result<Summary, RunError> {
    let started = Instant::now();
    let jobs = options.jobs.clamp(1, millrace_wasm::SLOTS as usize - 1);
    let store = options.store.clone().used_by(jobs, options.cancel.flag());
    // Not given back piece by piece, as what is loaded and made below: there are thousands
    // of pieces, and a process runs one pipeline.
    let options = &mut *ManuallyDrop::new(Options { store, jobs, ..options.clone() });
    let cancel = options.cancel.clone();
    match to_its_end(options, started, emit) {
        // Before there is a task: what was not read any more is no mistake.
        Err(RunError::Invalid(_)) if cancel.is_cancelled() => {
            let wall_ms = started.elapsed().as_secs_f64() * 1000.0;
            let summary = Summary { interrupted: true, wall_ms, ..Summary::default() };
            emit(Event::RunFinished(summary.clone()));
            Ok(summary)
        }
        ended => ended,
    }
}

fn to_its_end(
    options: &mut Options,
    started: Instant,
    emit: &mut (dyn FnMut(Event) + Send),
) -> Result<Summary, RunError> {
    if options.mode == Mode::Run
        && let Some(told) = trace::replay(options, started, emit)
    {
        return told;
    }
    // The records that this pipeline's last run used, in one read.
    let path = std::path::absolute(&options.pipeline).unwrap_or_else(|_| options.pipeline.clone());
    let mut name = blake3::Hasher::new_derive_key("millrace 2026-11 index of a pipeline");
    name.update(path.as_os_str().as_encoded_bytes());
    options.store = options.store.with_index(name.finalize().as_bytes());
    let options = &*options;
    let loaded = ManuallyDrop::new(load(options)?);
    let Loaded { pipeline, graph, .. } = &*loaded;
    let data = StoreData::shared(&options.store);
    let id = history::new_id();
    emit(Event::RunStarted { run: id.clone(), pipeline: pipeline.name.clone(), instances: graph.nodes.len() });
    graph.sources.iter().for_each(|source| emit(Event::SourceStarted { source: source.name.to_string() }));
    let found = find_sources(options, graph)?;
    let mut schemas: Vec<Option<Schema>> = found.iter().map(Found::schema).collect();
    if found.iter().any(Found::is_guess) {
        // What is certainly wrong is told of before anything is read.
        let possible: Vec<Vec<Schema>> = found.iter().map(Found::peek).collect();
        planning::check(options, &loaded, &possible).map_err(RunError::Invalid)?;
        for ((schema, found), possible) in schemas.iter_mut().zip(&found).zip(possible) {
            *schema = schema.take().or(possible.into_iter().next()).or_else(|| found.guess());
        }
    }
    let last = match options.mode {
        Mode::Plan => History::open(&options.store).last_of(&pipeline.file.path),
        Mode::Run => None,
    };
    let (mut run, seen) = begin(options, &loaded, &Sources { found, schemas }, &data, last, emit)?;
    worker::work_off(&mut run, &data);
    let system = |error: StoreError| RunError::System(error.to_string());
    let mut finished = ManuallyDrop::new(run.finish().map_err(system)?);
    let finished: &mut finish::Finished<'_> = &mut finished;

    if options.mode == Mode::Run {
        let (made, emit, cancel) = (&finished.artifacts, &mut finished.emit, &options.cancel);
        let exported =
            crate::export::exports(&options.store, &data, graph, made, cancel, &mut |event| emit.tell(event));
        finished.summary.interrupted = cancel.is_cancelled();
        finished.summary.ok &= exported.is_some() && !finished.summary.interrupted;
        finished.summary.wall_ms = started.elapsed().as_secs_f64() * 1000.0;
        let record = RunRecord::new(id, pipeline, &finished.summary, std::mem::take(&mut finished.tasks));
        std::thread::scope(|scope| {
            // A copy: not to have it is no failure.
            let keep = || {
                let _ = options.store.keep_index();
                options.store.clear_unfinished();
            };
            if helper(scope, keep).is_none() {
                keep();
            }
            record.write(&options.store).map_err(system)?;
            let trace = exported.and_then(|exports| Trace::of(options, &loaded, seen, finished, exports, record));
            if let Some(trace) = ManuallyDrop::new(trace).as_ref() {
                trace.keep(options);
            }
            Ok(())
        })?;
    } else {
        let _ = options.store.keep_index();
    }
    finished.summary.wall_ms = started.elapsed().as_secs_f64() * 1000.0;
    finished.emit.tell(Event::RunFinished(finished.summary.clone()));
    Ok(finished.summary.clone())
}

/// Looks for all sources; what is wrong with any of them comes together.
fn find_sources(options: &Options, graph: &Graph) -> Result<Vec<Found>, RunError> {
    let found = graph.sources.iter().map(|source| source::find(&options.store, source));
    together(found.collect())
}

/// The sources of a run, before they are read.
struct Sources {
    found: Vec<Found>,
    /// As far as known; of text that was never read what its beginning suggests.
    schemas: Vec<Option<Schema>>,
}

impl Sources {
    /// Their tables as far as they were read, else without parts.
    fn tables(&self, read: &[Option<Read>]) -> Vec<Option<Arc<Table>>> {
        let table = |(read, schema): (&Option<Read>, &Option<Schema>)| match read {
            Some(read) => Some(read.table.clone()),
            None => schema.clone().map(|schema| Arc::new(Table { schema, parts: Vec::new() })),
        };
        read.iter().zip(&self.schemas).map(table).collect()
    }

    /// Reads those that `which` is about, by as many threads as there are jobs.
    fn read(
        &self,
        options: &Options,
        graph: &Graph,
        needs: &[Need],
        data: &StoreData,
        which: impl Fn(usize) -> bool,
        into: &mut [Option<Read>],
    ) -> Result<(), RunError> {
        let threads = Threads::new(options.jobs);
        let places: Vec<usize> = (0..self.found.len()).filter(|place| which(*place)).collect();
        let read = threads.each(places, |place| {
            let read = source::read(data, &graph.sources[place], &self.found[place], &needs[place], &threads);
            // What is wrong with several is told together: a failure stops none of the others.
            Ok::<_, Infallible>(read.map(|read| (place, read)))
        });
        let Ok(read) = read;
        for (place, mut read) in together(read)? {
            // Of one that is read again, both times count.
            read.cached &= into[place].as_ref().is_none_or(|before| before.cached);
            into[place] = Some(read);
        }
        Ok(())
    }
}

/// A run with its sources, of which as much is read as it needs: that is known when
/// everything is planned that can be. Text that turns out to be other than its beginning
/// suggests may make that more.
fn begin<'a>(
    options: &'a Options,
    loaded: &'a Loaded,
    sources: &Sources,
    data: &StoreData,
    last: Option<RunRecord>,
    emit: &'a mut (dyn FnMut(Event) + Send),
) -> Result<(run::Run<'a>, Vec<SourceSeen>), RunError> {
    let graph = &loaded.graph;
    let is_guess = |place: usize| sources.found[place].is_guess();
    let mut read: Vec<Option<Read>> = sources.found.iter().map(|_| None).collect();
    let mut needs = vec![Need::All; read.len()];
    sources.read(options, graph, &needs, data, |place| sources.schemas[place].is_none(), &mut read)?;
    let mut run = run::Run::new(options, loaded, sources.tables(&read), last, Emit::Now(emit));
    let mut planned = run.plan_all();
    if planned.is_err() && (0..read.len()).any(|place| is_guess(place) && read[place].is_none()) {
        // It may be wrong with a guess only.
        sources.read(options, graph, &needs, data, is_guess, &mut read)?;
        run = run.with_sources(sources.tables(&read));
        planned = run.plan_all();
    }
    planned.map_err(RunError::Invalid)?;
    let unread: Vec<bool> = read.iter().map(Option::is_none).collect();
    for (place, need) in run.needs().into_iter().enumerate().filter(|(place, _)| unread[*place]) {
        needs[place] = need;
    }
    sources.read(options, graph, &needs, data, |place| unread[place], &mut read)?;
    run = run.with_sources(sources.tables(&read));
    run.plan_all().map_err(RunError::Invalid)?;
    // What is known now may need more, or less: a table is as what is needed of it says, and
    // not as it came to be read.
    let known = run.needs();
    sources.read(options, graph, &known, data, |place| needs[place] != known[place], &mut read)?;
    let read: Vec<Read> = read.into_iter().flatten().collect();
    for (source, read) in graph.sources.iter().zip(&read) {
        run.emit.tell(Event::SourceFinished {
            source: source.name.to_string(),
            cached: read.cached,
            rows: read.table.rows(),
            parts: read.table.parts.len(),
            wall_us: read.wall_us,
        });
    }
    let seen = graph.sources.iter().zip(&read).map(|(source, read)| SourceSeen::of(source, read)).collect();
    Ok((run.with_sources(read.into_iter().map(|read| Some(read.table)).collect()), seen))
}

fn together<T>(results: Vec<Result<T, Vec<Diagnostic>>>) -> Result<Vec<T>, RunError> {
    let mut all = Vec::new();
    let mut errors = Vec::new();
    for result in results {
        match result {
            Ok(found) => all.push(found),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(RunError::Invalid(errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who stops a run while it looks at its sources is told that it stopped, and of no mistake.
    #[test]
    fn a_run_that_is_stopped_before_its_first_task_ends_as_stopped() {
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
            mode: Mode::Run,
            cancel: Cancel::default(),
        };
        options.cancel.cancel();
        let mut last = None;
        let summary = execute(&options, &mut |event| last = Some(event)).unwrap();
        assert!(summary.interrupted && !summary.ok);
        assert!(matches!(last, Some(Event::RunFinished(last)) if last == summary));
        // A mistake stays one for who did not stop it.
        std::fs::remove_file(path("rows.csv")).unwrap();
        let options = Options { cancel: Cancel::default(), ..options };
        assert!(matches!(execute(&options, &mut |_| {}), Err(RunError::Invalid(_))));
    }
}
