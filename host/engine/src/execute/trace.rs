//! The trace of a run that ended well: everything that it looked at, and its results.
//!
//! As long as everything that a run looked at is unchanged, another run would end in the same
//! way, so its events are replayed without parsing, planning or making keys. A trace has no
//! cache rule of its own: whatever differs, is missing or cannot be checked leads to a normal
//! run. A run looks at
//!
//! ```text
//! the program      its stamp: with it the standard steps, and how keys are made
//! the request      the name of the pipeline file, `--set`, params files
//! pipeline files   their bytes
//! components       bytes of files; sources of crates, as far as a build looks at them
//! sources          names of files, and their bytes by `Store::source_digest`
//! the store        every object that a record names, and the files of tables
//! exports          their stamps, and where the paths lead that must not lead to them
//! ```
//!
//! A pipeline that needs more than this (grants, results that expire, results that are not to
//! be taken from the cache) has no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use millrace_store::{FileStamp, Store, TableFile};
use millrace_threads::in_chunks;
use millrace_types::wire::Kind;
use millrace_types::{
    BlobRef, ComponentDigest, ContentDigest, Digest, LogLine, ObjectRef, Record, Reference, SourceKey, TraceName,
};
use serde::{Deserialize, Serialize};

use super::display::{Emit, Sink};
use super::finish::Finished;
use super::ledger::steps_of;
use super::options::{Loaded, Options, RunError, RunMode};
use crate::components::Components;
use crate::event::{Counts, Event, RunClock, Status, StepSummary, Summary, TaskEnd};
use crate::export::Exported;
use crate::history::{self, RunRecord};
use crate::pipeline::{CachePolicy, Overrides, Source};
use crate::source::{Inputs, Read, resolved};

/// Objects that a thread looks for at least: looking for one costs about a microsecond.
const MIN_CHUNK: usize = 500;

/// In the order in which it is checked: what differs most often comes first, and what follows
/// a difference is not even decoded.
#[derive(Serialize, Deserialize)]
pub(crate) struct Trace(LookedAt, UsedObjects, Replay);

impl Record for Trace {
    const KIND: Kind = Kind::Trace;
    type Name = TraceName;

    fn references(&self) -> Vec<Reference> {
        let Self(_, used, _) = self;
        let objects = used.objects.iter().copied().chain(used.selections.iter().map(BlobRef::object));
        let sources = used.unread.iter().map(|source| Reference::Record(Kind::Columns, source.record_name()));
        objects.map(Reference::Object).chain(sources).collect()
    }
}

/// What a run was asked to do, and the files that it read.
#[derive(Serialize, Deserialize)]
struct LookedAt {
    program: FileStamp,
    /// The remote store that has everything that the run used.
    remote: Option<String>,
    overrides: ContentDigest,
    files: Vec<(PathBuf, u64, ContentDigest)>,
    components: Vec<(PathBuf, String, ComponentDigest)>,
    sources: Vec<SourceSeen>,
    exports: Vec<(PathBuf, FileStamp)>,
    /// Paths, and where they lead through symbolic links: an export must not become something
    /// that is read.
    resolved: Vec<(PathBuf, PathBuf)>,
}

/// What it used of the store.
#[derive(Serialize, Deserialize)]
struct UsedObjects {
    objects: Vec<ObjectRef>,
    /// Blobs whose content decided what was run.
    selections: Vec<BlobRef>,
    /// The files that hold its tables.
    tables: Vec<TableFile>,
    /// The sources of columns that no step reads.
    unread: Vec<SourceKey>,
}

/// What is replayed.
#[derive(Serialize, Deserialize)]
struct Replay {
    instances: usize,
    steps: Vec<StepSummary>,
    /// The run, with every task as cached.
    run: RunRecord,
    /// The logs of tasks, by their index in the run.
    logs: Vec<(usize, Vec<LogLine>)>,
}

/// A source as a run saw it.
#[derive(Serialize, Deserialize)]
pub(super) struct SourceSeen {
    name: String,
    inputs: Inputs,
    rows: u64,
    parts: usize,
}

impl SourceSeen {
    pub(super) fn of(source: &Source, read: &Read) -> Self {
        let (rows, parts) = (read.table.rows(), read.table.parts.len());
        Self { name: source.name.to_string(), inputs: read.inputs.clone(), rows, parts }
    }
}

/// The paths that exports must not lead to; `None` where a file of a source is a link.
fn names(
    options: &Options,
    loaded: &Loaded,
    sources: &[SourceSeen],
    exports: &[Exported],
) -> Option<BTreeSet<PathBuf>> {
    if sources.iter().any(|source| source.inputs.has_links()) {
        return None;
    }
    let mut names: BTreeSet<PathBuf> = exports.iter().map(|(path, _)| path.clone()).collect();
    names.extend(options.overrides.files.iter().cloned());
    names.extend(loaded.pipeline.files.iter().map(|file| file.path.clone()));
    names.insert(options.store.root().to_owned());
    names.extend(sources.iter().flat_map(|source| source.inputs.folders()));
    Some(names)
}

/// The name of the trace: one for each path by which a pipeline file is named.
fn name(options: &Options) -> TraceName {
    let path = std::path::absolute(&options.pipeline).unwrap_or_else(|_| options.pipeline.clone());
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 trace of a run");
    for path in [&path, &options.pipeline] {
        hasher.update(&(path.as_os_str().len() as u64).to_le_bytes());
        hasher.update(path.as_os_str().as_encoded_bytes());
    }
    hasher.finalize().into()
}

fn program() -> Option<FileStamp> {
    Some(FileStamp::new(&std::env::current_exe().and_then(std::fs::metadata).ok()?))
}

fn digest_of(overrides: &Overrides) -> ContentDigest {
    let text = serde_json::to_vec(&(&overrides.values, &overrides.files)).unwrap_or_default();
    ContentDigest::of(&text)
}

impl Trace {
    /// The trace of a run, if it can have one.
    pub(super) fn of(
        options: &Options,
        loaded: &Loaded,
        sources: Vec<SourceSeen>,
        finished: &mut Finished<'_>,
        exports: Vec<Exported>,
        mut run: RunRecord,
    ) -> Option<Self> {
        let is_plain = |node: &crate::graph::Node| node.cache == CachePolicy::On && node.granted.digests.is_empty();
        if options.mode != RunMode::Run || !finished.summary.ok || !loaded.graph.nodes.iter().all(is_plain) {
            return None;
        }
        run.tasks.iter_mut().for_each(|task| task.status = Status::Cached);
        run.counts = Counts { total: run.tasks.len(), cached: run.tasks.len(), ..Counts::default() };
        let files = loaded.pipeline.files.iter().map(|file| {
            let text = file.text.as_bytes();
            (file.path.clone(), text.len() as u64, ContentDigest::of(text))
        });
        let names = if exports.is_empty() { BTreeSet::new() } else { names(options, loaded, &sources, &exports)? };
        let with_target = |path: PathBuf| {
            let target = resolved(&path);
            (path, target)
        };
        let looked_at = LookedAt {
            resolved: names.into_iter().map(with_target).collect(),
            program: program()?,
            remote: shared_with(&options.store),
            overrides: digest_of(&options.overrides),
            files: files.collect(),
            components: loaded.components.not_bundled().collect(),
            sources,
            exports,
        };
        let used = UsedObjects {
            objects: std::mem::take(&mut finished.objects),
            selections: std::mem::take(&mut finished.selections),
            tables: std::mem::take(&mut finished.tables),
            unread: std::mem::take(&mut finished.unread),
        };
        let replay = Replay {
            instances: loaded.graph.nodes.len(),
            steps: steps_of(&loaded.graph, options.memory),
            run,
            logs: std::mem::take(&mut finished.logs),
        };
        Some(Self(looked_at, used, replay))
    }

    /// Stores the trace. It is only a shortcut, so failing to store it is no failure.
    pub(super) fn keep(&self, options: &Options) {
        let Self(_, used, replay) = self;
        let size_hint = replay.run.size_hint() + 64 * used.objects.len();
        let _ = options.store.put_sized_record(&name(options), self, size_hint);
    }
}

impl LookedAt {
    /// If all of it is unchanged: the time that the check of each source took, in
    /// microseconds.
    fn unchanged(&self, options: &Options) -> Option<Vec<u64>> {
        let store = &options.store;
        // What the run used may not have been uploaded.
        if store.remote_url().is_some_and(|url| self.remote.as_deref() != Some(url)) {
            return None;
        }
        let asked = self.overrides == digest_of(&options.overrides) && Some(self.program) == program();
        let same = |(path, size, digest): &(PathBuf, u64, ContentDigest)| is_file(path, *size, digest);
        if !asked || !self.files.iter().all(same) {
            return None;
        }
        let components = Components::new(store.clone());
        let same =
            |(folder, uses, digest): &(PathBuf, String, ComponentDigest)| components.is_current(uses, folder, digest);
        if !self.components.iter().all(same) {
            return None;
        }
        let source = |source: &SourceSeen| {
            let started = Instant::now();
            source.inputs.is_unchanged(store).then(|| started.elapsed().as_micros() as u64)
        };
        let walls = self.sources.iter().map(source).collect::<Option<Vec<u64>>>()?;
        let stamp = |path: &Path| std::fs::metadata(path).ok().map(|meta| FileStamp::new(&meta));
        let exports = self.exports.iter().all(|(path, known)| stamp(path) == Some(*known));
        let targets = || self.resolved.iter().all(|(path, target)| resolved(path) == *target);
        let no_links = || self.exports.is_empty() || !self.sources.iter().any(|source| source.inputs.has_links());
        (exports && targets() && no_links()).then_some(walls)
    }
}

impl UsedObjects {
    /// Whether the store has all of it.
    fn is_stored(&self, store: &Store, threads: usize) -> bool {
        let has_all = |objects: &[ObjectRef]| store.has_all(objects);
        self.selections.iter().all(|blob| store.is_blob_intact(blob))
            && self.unread.iter().all(|source| store.has_record(Kind::Columns, &source.record_name()))
            && in_chunks(&self.objects, threads, MIN_CHUNK, has_all).into_iter().all(|has| has)
            && self.tables.iter().all(|file| store.has_tables(file))
    }
}

/// The URL of the remote store, once everything is uploaded to it.
fn shared_with(store: &Store) -> Option<String> {
    let (_, error) = store.finish_remote()?;
    store.remote_url().filter(|_| error.is_none()).map(str::to_owned)
}

/// Whether a file has these bytes.
fn is_file(path: &Path, size: u64, digest: &ContentDigest) -> bool {
    let has_size = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size);
    has_size && std::fs::read(path).is_ok_and(|bytes| ContentDigest::of(&bytes) == *digest)
}

/// Replays the last run, if a new one would end in the same way.
pub(super) fn replay(options: &Options, clock: RunClock, emit: Sink<'_>) -> Option<Result<Summary, RunError>> {
    let trace = options.store.record_body::<Trace>(&name(options))?;
    let (looked_at, rest) = postcard::take_from_bytes::<LookedAt>(&trace).ok()?;
    let walls = looked_at.unchanged(options)?;
    let (used, rest) = postcard::take_from_bytes::<UsedObjects>(rest).ok()?;
    if !used.is_stored(&options.store, options.jobs) {
        return None;
    }
    let Replay { instances, steps, mut run, logs } = postcard::from_bytes(rest).ok()?;
    let mut emit = Emit::now(clock, emit);
    run.id = history::new_id();
    run.path = history::absolute(&options.pipeline);
    let pipeline = run.pipeline.clone();
    emit.send(Event::RunStarted { run: run.id.clone(), pipeline, instances, steps: steps.into() });
    for (source, wall_us) in looked_at.sources.into_iter().zip(walls) {
        let SourceSeen { name, rows, parts, .. } = source;
        emit.send(Event::SourceFinished { source: name, cached: true, rows, parts, wall_us });
    }
    let mut logs: BTreeMap<usize, Vec<LogLine>> = logs.into_iter().collect();
    let elapsed = clock.elapsed();
    for (index, task) in run.tasks.iter().enumerate() {
        let log = logs.remove(&index).unwrap_or_default();
        // Reading the clock a thousand times would take as long as the rest.
        let event = Event::TaskFinished(Box::new(TaskEnd { log, ..task.end() }));
        emit.pass(clock.envelope(elapsed, event));
    }
    for (path, _) in looked_at.exports {
        emit.send(Event::Exported { path, unchanged: true });
    }
    run.wall_ms = clock.wall_ms();
    if let Err(error) = run.write(&options.store) {
        return Some(Err(RunError::System(error.to_string())));
    }
    let summary = Summary {
        ok: true,
        tasks: run.counts,
        wall_ms: clock.wall_ms(),
        metrics: run.metrics,
        outputs: run.outputs,
        selected: run.selected,
        ..Summary::default()
    };
    emit.send(Event::RunFinished(summary.clone()));
    Some(Ok(summary))
}
