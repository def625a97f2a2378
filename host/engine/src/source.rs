//! Sources: from files to tables, read again only when their content or the way
//! of reading changed.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use millrace_store::{FileStamp, Store};
use millrace_tables::pack::Pack;
use millrace_tables::read::{self, Format, ReadError, ReadOptions, ReadPart, Sink};
use millrace_types::action_record::ObjectRef;
use millrace_types::wire::Kind;
use millrace_types::{Chunk, Part, Schema, SourceDigest, Table};
use millrace_wasm::Data;
use serde::{Deserialize, Serialize};

use crate::data::StoreData;
use crate::diagnostic::{Diagnostic, Place};
use crate::pipeline::Source;

/// A source that was read, or known.
pub(crate) struct Read {
    pub(crate) table: Arc<Table>,
    pub(crate) cached: bool,
    pub(crate) wall_us: u64,
    pub(crate) seen: Seen,
}

/// Where a source looked, and what it saw in the files that were there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    look: Look,
    files: Vec<(PathBuf, SourceDigest)>,
}

impl Seen {
    /// Whether one of the files is a link.
    pub(crate) fn has_links(&self) -> bool {
        self.files.iter().any(|(file, _)| file.is_symlink())
    }

    /// The folders that the files lie in.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let here = |folder: &Path| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() };
        self.files.iter().filter_map(|(file, _)| file.parent()).map(here)
    }

    /// Whether another look sees the same.
    pub(crate) fn holds(&self, store: &Store) -> bool {
        let Ok(files) = self.look.files() else { return false };
        let same = |(file, known): (&PathBuf, &(PathBuf, SourceDigest))| {
            *file == known.0 && store.source_digest(file).is_ok_and(|digest| digest == known.1)
        };
        files.len() == self.files.len() && files.iter().zip(&self.files).all(same)
    }
}

/// Version of the readers: another one may read the same bytes to another table.
const READER: u32 = 3;

/// Where a source looks for its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Look {
    pattern: String,
    folder: PathBuf,
}

impl Look {
    pub(crate) fn of(source: &Source) -> Self {
        Self { pattern: source.path.0.clone(), folder: source.folder.clone() }
    }

    /// The files that are there, sorted by name; a name that is no pattern is taken as it is.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, String> {
        let Self { pattern, folder } = self;
        if !pattern.contains(['*', '?', '[', '{']) {
            return Ok(vec![folder.join(pattern)]);
        }
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("`{pattern}` is no pattern: {error}"))?.compile_matcher();
        // The part before the first special character says where to look.
        let fixed = pattern.split(['*', '?', '[', '{']).next().unwrap_or_default();
        let start = fixed.rfind('/').map_or("", |end| &fixed[..end]);
        let mut found = Vec::new();
        // A pipeline named without a folder lies in this one.
        let base = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
        let mut folders = vec![base.join(start)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.strip_prefix(base).is_ok_and(|name| glob.is_match(name)) {
                    found.push(path);
                }
            }
        }
        found.sort();
        if found.is_empty() {
            return Err(format!("no file matches `{pattern}` in `{}`", base.display()));
        }
        Ok(found)
    }
}

/// The path of a file that may not be there, without links as far as it is.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_default();
    let there = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = there else { return absolute };
    absolute.strip_prefix(above).map_or_else(|_| absolute.clone(), |rest| real.join(rest))
}

/// Whether a file is one that the pattern of a source asks for.
pub(crate) fn matches(source: &Source, path: &Path) -> bool {
    let glob = globset::GlobBuilder::new(&source.path.0).literal_separator(true).build();
    let base = resolved(if source.folder.as_os_str().is_empty() { Path::new(".") } else { &source.folder });
    resolved(path).strip_prefix(base).is_ok_and(|name| glob.is_ok_and(|glob| glob.compile_matcher().is_match(name)))
}

fn options(source: &Source, first: &Path) -> Result<ReadOptions, Diagnostic> {
    let format = source.format.or_else(|| Format::of(first)).ok_or_else(|| {
        Diagnostic::new(format!("the name `{}` does not tell its format", first.display()))
            .at(&source.path.1, "this file")
            .help("add `format = \"csv\"`, \"ndjson\", \"parquet\" or \"arrow\"")
    })?;
    let tabs = first.to_string_lossy().contains(".tsv");
    Ok(ReadOptions {
        format,
        columns: source.columns.as_ref().map(|columns| columns.iter().map(|(name, _)| name.clone()).collect()),
        filter: source.filter.as_ref().map(|(text, _)| text.clone()),
        missing: source.missing.clone().unwrap_or_else(|| read::MISSING.map(str::to_owned).to_vec()),
        types: source.types.iter().map(|(name, (data_type, _))| (name.clone(), data_type.clone())).collect(),
        part_rows: source.part_rows.unwrap_or(read::PART_ROWS),
        delimiter: source.delimiter.unwrap_or(if tabs { b'\t' } else { b',' }),
    })
}

/// A file's digest, and what a stat said of it before.
type Digested = (SourceDigest, FileStamp);

/// The digests of files, in their order.
fn digests(store: &Store, files: &[PathBuf], place: &Place) -> Result<Vec<Digested>, Diagnostic> {
    let digest = |file: &PathBuf| store.source(file);
    let digests: Result<_, _> = files.iter().map(digest).collect();
    digests.map_err(|error| Diagnostic::new(error.to_string()).at(place, "this file"))
}

/// The first file that is not as it was.
fn changed<'f>(store: &Store, files: &'f [PathBuf], digests: &[Digested]) -> Option<&'f PathBuf> {
    files.iter().zip(digests).find(|(file, digested)| !store.is_as_it_was(file, digested)).map(|(file, _)| file)
}

/// Everything that decides what is read: the content of the files, in order, and
/// the options; no names.
fn key(files: &[PathBuf], digests: &[Digested], options: &ReadOptions) -> [u8; 32] {
    let ReadOptions { format, columns, filter, missing, types, part_rows, delimiter } = options;
    let types: Vec<(String, String)> = types.iter().map(|(name, ty)| (name.clone(), ty.to_string())).collect();
    let text =
        serde_json::json!([READER, *format as u8, columns, filter, missing, types, part_rows, delimiter, files.len()]);
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 source");
    hasher.update(text.to_string().as_bytes());
    for (file, (digest, _)) in files.iter().zip(digests) {
        // How a file is unpacked is told by its name.
        let packed = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is = |name: &str| u8::from(packed.eq_ignore_ascii_case(name));
        hasher.update(&[is("gz") + 2 * is("zip")]);
        hasher.update(digest.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

struct StoreSink<'a> {
    data: &'a StoreData,
    parts: Mutex<BTreeMap<u64, Arc<Part>>>,
}

impl StoreSink<'_> {
    fn parts(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for StoreSink<'_> {
    fn part(
        &self,
        place: u64,
        schema: &Schema,
        part: ReadPart,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let pack = Pack::new(&schema.fields, part.columns)?;
        self.data.put_pack(&pack)?;
        let columns = pack.chunks().iter().cloned().map(Chunk::Stored).collect();
        self.parts().insert(place, Arc::new(Part { rows: part.rows as u64, columns }));
        Ok(())
    }

    fn restart(&self) {
        self.parts().clear();
    }
}

/// A source whose files were found, and its table if it was read before.
pub(crate) struct Found {
    started: Instant,
    files: Vec<PathBuf>,
    options: ReadOptions,
    look: Look,
    digests: Vec<Digested>,
    key: [u8; 32],
    known: Option<Table>,
}

impl Found {
    /// The schemas that it may have, as far as that can be told without reading everything.
    pub(crate) fn peek(&self) -> Vec<Schema> {
        match &self.known {
            Some(table) => vec![table.schema.clone()],
            None => read::peek(&self.files, &self.options),
        }
    }

    /// Whether nothing has to be read.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some()
    }
}

/// Finds the files of a source and looks for its table.
pub(crate) fn find(store: &Store, source: &Source) -> Result<Found, Vec<Diagnostic>> {
    let started = Instant::now();
    let one = |error: Diagnostic| vec![error];
    let look = Look::of(source);
    let files = look.files().map_err(|error| one(Diagnostic::new(error).at(&source.path.1, "this pattern")))?;
    let options = options(source, &files[0]).map_err(one)?;
    let digests = digests(store, &files, &source.path.1).map_err(one)?;
    let key = key(&files, &digests, &options);
    let known = store.record::<Table>(Kind::Source, &key).filter(|table| is_whole(store, table));
    Ok(Found { started, files, options, look, digests, key, known })
}

/// The table of a source.
pub(crate) fn read(
    store: &Store,
    data: &StoreData,
    source: &Source,
    found: Found,
    threads: usize,
) -> Result<Read, Vec<Diagnostic>> {
    let Found { started, files, options, look, digests, key, known } = found;
    let one = |error: Diagnostic| vec![error];
    let cached = known.is_some();
    let table = match known {
        Some(table) => table,
        None => {
            let table = match by_file(store, data, &files, &digests, &options, threads) {
                Some(table) => table,
                None => read_table(data, &files, &options, threads).map_err(|error| one(explain(source, error)))?,
            };
            // What was read is kept under what the files were before.
            if let Some(file) = changed(store, &files, &digests) {
                let message = format!("`{}` changed while it was read: run again", file.display());
                return Err(one(Diagnostic::new(message).at(&source.path.1, "this file")));
            }
            let wrong = |error: millrace_store::StoreError| one(Diagnostic::new(error.to_string()));
            store.put_record(Kind::Source, &key, &table).map_err(wrong)?;
            table
        }
    };
    if table.rows() == 0 && !source.allow_empty {
        let error =
            Diagnostic::new(format!("the source `{}` has no rows", source.name)).at(&source.path.1, "this file");
        return Err(one(error.help("if that is meant, add `allow_empty = true`")));
    }
    let seen = Seen { look, files: files.into_iter().zip(digests.into_iter().map(|(digest, _)| digest)).collect() };
    Ok(Read { table: Arc::new(table), cached, wall_us: started.elapsed().as_micros() as u64, seen })
}

fn read_table(data: &StoreData, files: &[PathBuf], options: &ReadOptions, threads: usize) -> Result<Table, ReadError> {
    let sink = StoreSink { data, parts: Mutex::default() };
    let schema = read::read(files, options, threads, &sink)?;
    let parts = std::mem::take(&mut *sink.parts()).into_values().collect();
    Ok(Table { schema, parts })
}

/// Several files that say themselves what their columns are: each is a table by itself,
/// and of those that were read before nothing is read again. Files that are at odds are
/// left to whoever reads them as one.
fn by_file(
    store: &Store,
    data: &StoreData,
    files: &[PathBuf],
    digests: &[Digested],
    options: &ReadOptions,
    threads: usize,
) -> Option<Table> {
    if files.len() < 2 || !matches!(options.format, Format::Parquet | Format::Ipc) {
        return None;
    }
    let one = |place: usize| -> Option<Table> {
        let file = &files[place..=place];
        let key = key(file, &digests[place..=place], options);
        if let Some(known) = store.record::<Table>(Kind::Source, &key).filter(|table| is_whole(store, table)) {
            return Some(known);
        }
        let table = read_table(data, file, options, threads.div_ceil(files.len())).ok()?;
        if changed(store, file, &digests[place..=place]).is_some() {
            return None;
        }
        store.put_record(Kind::Source, &key, &table).ok()?;
        Some(table)
    };
    let next = AtomicUsize::new(0);
    let tables: Mutex<BTreeMap<usize, Option<Table>>> = Mutex::default();
    let work = || {
        while let Some(place) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|place| *place < files.len()) {
            let table = one(place);
            tables.lock().unwrap_or_else(PoisonError::into_inner).insert(place, table);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(files.len()) {
            scope.spawn(work);
        }
        work();
    });
    let tables = tables.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut whole: Option<Table> = None;
    for table in tables.into_values() {
        let table = table?;
        match &mut whole {
            None => whole = Some(table),
            Some(whole) if whole.schema == table.schema => whole.parts.extend(table.parts),
            Some(_) => return None,
        }
    }
    whole
}

/// The packs that a table lies in, each once.
pub(crate) fn packs(table: &Table) -> HashSet<ObjectRef> {
    let mut packs = HashSet::new();
    for part in &table.parts {
        for column in &part.columns {
            column.visit_stored(&mut |chunk| {
                packs.insert(ObjectRef::Pack(chunk.pack, chunk.pack_bytes));
            });
        }
    }
    packs
}

fn is_whole(store: &Store, table: &Table) -> bool {
    packs(table).iter().all(|pack| store.has(pack))
}

fn explain(source: &Source, error: ReadError) -> Diagnostic {
    let message = format!("the source `{}` cannot be read: {error}", source.name);
    let error_at = |place: &Place, label: &str| Diagnostic::new(message.clone()).at(place, label);
    match error {
        ReadError::NoColumn { name, candidates, .. } => {
            let in_columns = source.columns.iter().flatten().find(|(known, _)| *known == name).map(|(_, place)| place);
            let place = in_columns.or_else(|| source.types.get(&name).map(|(_, place)| place)).unwrap_or(&source.place);
            error_at(place, "no such column").suggest(&name, candidates.iter().map(String::as_str))
        }
        ReadError::Type { name, .. } => {
            error_at(source.types.get(&name).map_or(&source.path.1, |(_, place)| place), "the type given")
        }
        ReadError::Filter { error, .. } => {
            let place = source.filter.as_ref().map_or(&source.place, |(_, place)| place);
            let narrowed = narrow(place, error.span);
            let diagnostic = error_at(&narrowed, "here");
            match &error.missing {
                Some(missing) => diagnostic.suggest(missing, error.candidates.iter().map(String::as_str)),
                None => diagnostic,
            }
        }
        ReadError::Io { .. } | ReadError::Content { .. } | ReadError::Sink(_) => error_at(&source.path.1, "this file"),
    }
}

/// A place inside a quoted text, if the text stands in the file as it is.
pub(crate) fn narrow(place: &Place, span: (usize, usize)) -> Place {
    let Some(text) = place.file.text.get(place.range.clone()) else { return place.clone() };
    let quoted = text.len() >= 2
        && (text.starts_with('"') || text.starts_with('\''))
        && !text.contains('\\')
        && !text.starts_with("\"\"\"");
    let start = place.range.start + 1 + span.0;
    let end = (place.range.start + 1 + span.1).max(start + 1);
    if !quoted
        || end > place.range.end
        || !place.file.text.is_char_boundary(start)
        || !place.file.text.is_char_boundary(end)
    {
        return place.clone();
    }
    Place { file: place.file.clone(), range: start..end }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read must be what the digest is of: else it would be found under the digest
    /// of other bytes from then on.
    #[test]
    fn a_file_that_changes_before_it_is_read_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let store = Store::open(&path("store")).unwrap();
        let data = StoreData::shared(&store);
        std::fs::write(path("p.toml"), "[sources.s]\npath = \"*.csv\"\n").unwrap();
        std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
        let pipeline = crate::pipeline::read(&path("p.toml")).unwrap();
        let source = &pipeline.sources[0];
        let found = find(&store, source).unwrap();
        std::fs::write(path("rows.csv"), "x\n2\n").unwrap();
        let error = read(&store, &data, source, found, 1).map(|_| ()).unwrap_err();
        assert!(error[0].message.contains("changed while it was read"), "{}", error[0].message);
        std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
        let found = find(&store, source).unwrap();
        assert!(!found.is_known(), "the wrong rows are found under the digest of the right ones");
        assert!(read(&store, &data, source, found, 1).is_ok_and(|read| !read.cached));
        assert!(find(&store, source).unwrap().is_known());
    }
}
