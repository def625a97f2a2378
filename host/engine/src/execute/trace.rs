//! The trace of a run that ended well: all that it looked at, and what came of it.
//!
//! As long as everything that a run looked at is as it was, another would come to the
//! same end, and it is told without parsing, planning and making keys. A trace knows no
//! rule of its own for what is cached: whatever differs, is missing or cannot be told
//! leaves the run to the loop. What a run looked at is
//!
//! ```text
//! the program      its stamp: with it the standard steps, and how keys are made
//! what was asked   the name of the pipeline file, `--set`, params files
//! pipeline files   their bytes
//! components       bytes of files; sources of crates, as far as a build looks at them
//! sources          names of files, and their bytes by `Store::source_digest`
//! the store        every object that a record names, and the files of tables
//! exports          their stamps, and where names lead that must not lead to them
//! ```
//!
//! A pipeline that asks for more than these (grants, results that expire, results that
//! are not to be taken from the cache) has no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use millrace_store::{FileStamp, Store, TableFile};
use millrace_types::action_record::ObjectRef;
use millrace_types::wire::Kind;
use millrace_types::{BlobRef, ComponentDigest, LogLine};
use serde::{Deserialize, Serialize};

use super::finish::Finished;
use super::helper::{helper, joined};
use super::{Loaded, Mode, Options, RunError};
use crate::components::Components;
use crate::event::{Counts, Event, Status, Summary};
use crate::export::Exported;
use crate::history::{self, RunRecord};
use crate::pipeline::{CachePolicy, Overrides, Source};
use crate::source::{Read, Seen, resolved};

/// Objects that a thread looks for at a time: a look costs about a microsecond.
const AT_ONCE: usize = 500;

/// In the order in which it is looked at: what differs most often comes first, and nothing
/// behind it is even decoded.
#[derive(Serialize)]
pub(super) struct Trace(LookedAt, Used, Told);

/// What a run was asked, and the files that it read.
#[derive(Serialize, Deserialize)]
struct LookedAt {
    program: FileStamp,
    overrides: [u8; 32],
    files: Vec<(PathBuf, u64, [u8; 32])>,
    components: Vec<(PathBuf, String, ComponentDigest)>,
    sources: Vec<SourceSeen>,
    exports: Vec<(PathBuf, FileStamp)>,
    /// Where names lead, of which some are links: an export must not come to be something
    /// that is read.
    places: Vec<(PathBuf, PathBuf)>,
}

/// What it used of the store.
#[derive(Serialize, Deserialize)]
struct Used {
    objects: Vec<ObjectRef>,
    /// Blobs whose content decided what was run.
    choices: Vec<BlobRef>,
    /// Where tables are found by their digests.
    tables: Vec<TableFile>,
    /// Of columns that no step reads: where they lie.
    unread: Vec<[u8; 32]>,
}

/// What is told of it.
#[derive(Serialize, Deserialize)]
struct Told {
    instances: usize,
    /// With every task as cached.
    run: RunRecord,
    /// What tasks wrote, by their place in the run.
    logs: Vec<(usize, Vec<LogLine>)>,
}

/// A source as a run saw it.
#[derive(Serialize, Deserialize)]
pub(super) struct SourceSeen {
    name: String,
    seen: Seen,
    rows: u64,
    parts: usize,
}

impl SourceSeen {
    pub(super) fn of(source: &Source, read: &Read) -> Self {
        let (rows, parts) = (read.table.rows(), read.table.parts.len());
        Self { name: source.name.to_string(), seen: read.seen.clone(), rows, parts }
    }
}

/// What exports are held against, by name; none where a file of a source is a link.
fn names(
    options: &Options,
    loaded: &Loaded,
    sources: &[SourceSeen],
    exports: &[Exported],
) -> Option<BTreeSet<PathBuf>> {
    if sources.iter().any(|source| source.seen.has_links()) {
        return None;
    }
    let mut names: BTreeSet<PathBuf> = exports.iter().map(|(path, _)| path.clone()).collect();
    names.extend(options.overrides.files.iter().cloned());
    names.extend(loaded.pipeline.files.iter().map(|file| file.path.clone()));
    names.insert(options.store.root().to_owned());
    names.extend(sources.iter().flat_map(|source| source.seen.folders()));
    Some(names)
}

/// The name of the trace: one for each way in which a pipeline file is named.
fn name(options: &Options) -> [u8; 32] {
    let path = std::path::absolute(&options.pipeline).unwrap_or_else(|_| options.pipeline.clone());
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 trace of a run");
    for path in [&path, &options.pipeline] {
        hasher.update(&(path.as_os_str().len() as u64).to_le_bytes());
        hasher.update(path.as_os_str().as_encoded_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn program() -> Option<FileStamp> {
    Some(FileStamp::new(&std::env::current_exe().and_then(std::fs::metadata).ok()?))
}

fn digest_of(overrides: &Overrides) -> [u8; 32] {
    let text = serde_json::to_vec(&(&overrides.values, &overrides.files)).unwrap_or_default();
    *blake3::hash(&text).as_bytes()
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
        if options.mode != Mode::Run || !finished.summary.ok || !loaded.graph.nodes.iter().all(is_plain) {
            return None;
        }
        run.tasks.iter_mut().for_each(|task| task.status = Status::Cached);
        run.counts = Counts { total: run.tasks.len(), cached: run.tasks.len(), ..Counts::default() };
        let files = loaded.pipeline.files.iter().map(|file| {
            let text = file.text.as_bytes();
            (file.path.clone(), text.len() as u64, *blake3::hash(text).as_bytes())
        });
        let names = if exports.is_empty() { BTreeSet::new() } else { names(options, loaded, &sources, &exports)? };
        let place = |name: PathBuf| {
            let place = resolved(&name);
            (name, place)
        };
        let looked_at = LookedAt {
            places: names.into_iter().map(place).collect(),
            program: program()?,
            overrides: digest_of(&options.overrides),
            files: files.collect(),
            components: loaded.components.not_bundled().collect(),
            sources,
            exports,
        };
        let used = Used {
            objects: std::mem::take(&mut finished.objects),
            choices: std::mem::take(&mut finished.choices),
            tables: std::mem::take(&mut finished.tables),
            unread: std::mem::take(&mut finished.unread),
        };
        let told = Told { instances: loaded.graph.nodes.len(), run, logs: std::mem::take(&mut finished.logs) };
        Some(Self(looked_at, used, told))
    }

    /// Keeps the trace. It is a shortcut: not to have it is no failure.
    pub(super) fn keep(&self, options: &Options) {
        let Self(_, used, told) = self;
        let about = told.run.about() + 64 * used.objects.len();
        let _ = options.store.put_sized_record(Kind::Trace, &name(options), self, about);
    }
}

impl LookedAt {
    /// Whether all of it is as it was; then how long the look at each source took, in
    /// microseconds.
    fn holds(&self, options: &Options) -> Option<Vec<u64>> {
        let store = &options.store;
        let asked = self.overrides == digest_of(&options.overrides) && Some(self.program) == program();
        let same = |(path, size, digest): &(PathBuf, u64, [u8; 32])| is_file(path, *size, digest);
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
            source.seen.holds(store).then(|| started.elapsed().as_micros() as u64)
        };
        let walls = self.sources.iter().map(source).collect::<Option<Vec<u64>>>()?;
        let stamp = |path: &Path| std::fs::metadata(path).ok().map(|meta| FileStamp::new(&meta));
        let exports = self.exports.iter().all(|(path, known)| stamp(path) == Some(*known));
        let places = || self.places.iter().all(|(name, place)| resolved(name) == *place);
        let no_links = || self.exports.is_empty() || !self.sources.iter().any(|source| source.seen.has_links());
        (exports && places() && no_links()).then_some(walls)
    }
}

impl Used {
    /// Whether the store has all of it.
    fn is_kept(&self, store: &Store, threads: usize) -> bool {
        self.choices.iter().all(|blob| store.is_blob_whole(blob))
            && self.unread.iter().all(|source| store.has_record(Kind::Columns, source))
            && all(&self.objects, threads, |object| store.has(object))
            && self.tables.iter().all(|file| store.has_tables(file))
    }
}

/// Whether something is so of all, asked on as many threads as pay.
fn all<T: Sync>(items: &[T], threads: usize, is_so: impl Fn(&T) -> bool + Sync) -> bool {
    let mut pieces = items.chunks(items.len().div_ceil(threads.max(1)).max(AT_ONCE));
    let first = pieces.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let is_so = &is_so;
        let of_piece = move |piece: &[T]| piece.iter().all(is_so);
        let others: Vec<_> = pieces.map(|piece| (piece, helper(scope, move || of_piece(piece)))).collect();
        let first = of_piece(first);
        others.into_iter().fold(first, |all, (piece, other)| joined(other).unwrap_or_else(|| of_piece(piece)) && all)
    })
}

fn is_file(path: &Path, size: u64, digest: &[u8; 32]) -> bool {
    let is_so_long = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size);
    is_so_long && std::fs::read(path).is_ok_and(|bytes| blake3::hash(&bytes) == *digest)
}

/// Tells the run whose trace is there, if another would come to the same end.
pub(super) fn replay(
    options: &Options,
    started: Instant,
    emit: &mut (dyn FnMut(Event) + Send),
) -> Option<Result<Summary, RunError>> {
    let trace = options.store.record_body(Kind::Trace, &name(options))?;
    let (looked_at, rest) = postcard::take_from_bytes::<LookedAt>(&trace).ok()?;
    let walls = looked_at.holds(options)?;
    let (used, rest) = postcard::take_from_bytes::<Used>(rest).ok()?;
    if !used.is_kept(&options.store, options.jobs) {
        return None;
    }
    let Told { instances, mut run, logs } = postcard::from_bytes(rest).ok()?;
    run.id = history::new_id();
    run.path = history::absolute(&options.pipeline);
    emit(Event::RunStarted { run: run.id.clone(), pipeline: run.pipeline.clone(), instances });
    for (source, wall_us) in looked_at.sources.into_iter().zip(walls) {
        let SourceSeen { name, rows, parts, .. } = source;
        emit(Event::SourceFinished { source: name, cached: true, rows, parts, wall_us });
    }
    emit(Event::TasksFound { total: run.tasks.len() });
    let mut logs: BTreeMap<usize, Vec<LogLine>> = logs.into_iter().collect();
    for (place, task) in run.tasks.iter().enumerate() {
        emit(Event::TaskFinished {
            step: task.instance.clone(),
            part: task.part,
            phase: task.phase.as_str(),
            key: task.key,
            status: task.status,
            cost: task.cost,
            log: logs.remove(&place).unwrap_or_default(),
            failure: None,
            near: Vec::new(),
            reason: None,
        });
    }
    for (path, _) in looked_at.exports {
        emit(Event::Exported { path, unchanged: true });
    }
    let wall_ms = || started.elapsed().as_secs_f64() * 1000.0;
    run.wall_ms = wall_ms();
    if let Err(error) = run.write(&options.store) {
        return Some(Err(RunError::System(error.to_string())));
    }
    let summary = Summary {
        ok: true,
        tasks: run.counts,
        wall_ms: wall_ms(),
        metrics: run.metrics,
        outputs: run.outputs,
        ..Summary::default()
    };
    emit(Event::RunFinished(summary.clone()));
    Some(Ok(summary))
}
