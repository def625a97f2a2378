//! Sources: from files to tables, read again only when their content or the way
//! of reading changed.

mod columns;
mod files;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use millrace_store::{Store, StoreError};
use millrace_tables::Threads;
use millrace_tables::read::{self, Format, ReadError, ReadOptions};
use millrace_types::action_record::ObjectRef;
use millrace_types::wire::Kind;
use millrace_types::{Schema, Table};

use crate::data::StoreData;
use crate::diagnostic::{Diagnostic, Place};
use crate::pipeline::Source;

use columns::{Files, ReadTable, certain, read_table, schema_of};
pub(crate) use columns::{Lifted, Lifts, Need, decode, sources_of};
use files::{Digested, changed, digests};
pub(crate) use files::{Look, Seen, matches, resolved};

/// A source that was read, or known.
pub(crate) struct Read {
    pub(crate) table: Arc<Table>,
    pub(crate) cached: bool,
    pub(crate) wall_us: u64,
    pub(crate) seen: Seen,
}

/// Version of the readers: another one may read the same bytes to another table.
fn reader(format: Format) -> u32 {
    match format {
        Format::Csv | Format::Ndjson => 5,
        Format::Parquet | Format::Ipc => 4,
    }
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

/// Everything that decides what is read: the content of the files, in order, and
/// the options; no names.
fn key(files: &[PathBuf], digests: &[Digested], options: &ReadOptions) -> [u8; 32] {
    let ReadOptions { format, columns, filter, missing, types, part_rows, delimiter } = options;
    let types: Vec<(String, String)> = types.iter().map(|(name, ty)| (name.clone(), ty.to_string())).collect();
    let text = serde_json::json!([
        reader(*format),
        *format as u8,
        columns,
        filter,
        missing,
        types,
        part_rows,
        delimiter,
        files.len()
    ]);
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

/// A source whose files were found.
pub(crate) struct Found {
    started: Instant,
    files: Vec<PathBuf>,
    options: ReadOptions,
    look: Look,
    digests: Vec<Digested>,
    key: [u8; 32],
    /// The schema, of a source of text that was read before.
    known: Option<Schema>,
}

impl Found {
    /// The schemas that it may have, as far as that can be told without reading everything.
    pub(crate) fn peek(&self) -> Vec<Schema> {
        self.known.clone().map_or_else(|| read::peek(&self.files, &self.options), |schema| vec![schema])
    }

    /// The schema that it probably has, of a source of which [`Self::peek`] can say nothing.
    pub(crate) fn guess(&self) -> Option<Schema> {
        read::guess(&self.files, &self.options)
    }

    /// The schema that it will have, if that is known or its files say so.
    pub(crate) fn schema(&self) -> Option<Schema> {
        self.known.clone().or_else(|| certain(&self.files[..1], &self.options))
    }

    /// Whether its schema may turn out to be another than is told now.
    pub(crate) fn is_guess(&self) -> bool {
        self.known.is_none() && !self.options.format.is_columnar()
    }
}

/// Finds the files of a source and looks for what is known of them.
pub(crate) fn find(store: &Store, source: &Source) -> Result<Found, Vec<Diagnostic>> {
    let started = Instant::now();
    let one = |error: Diagnostic| vec![error];
    let look = Look::of(source);
    let files = look.files().map_err(|error| one(Diagnostic::new(error).at(&source.path.1, "this pattern")))?;
    let options = options(source, &files[0]).map_err(one)?;
    let digests = digests(store, &files, &source.path.1).map_err(one)?;
    let key = key(&files, &digests, &options);
    let known = if options.format.is_columnar() { None } else { schema_of(store, &key) };
    Ok(Found { started, files, options, look, digests, key, known })
}

/// Why a source was not read.
enum Failed {
    Read(ReadError),
    /// This file is not what it was.
    Changed(PathBuf),
    Store(StoreError),
}

impl Failed {
    fn explain(self, source: &Source) -> Vec<Diagnostic> {
        vec![match self {
            Self::Read(error) => explain(source, error),
            Self::Changed(file) => {
                let message = format!("`{}` changed while it was read: run again", file.display());
                Diagnostic::new(message).at(&source.path.1, "this file")
            }
            Self::Store(error) => Diagnostic::new(error.to_string()),
        }]
    }
}

/// The table of a source, of which at least what is needed is decoded.
pub(crate) fn read(
    data: &StoreData,
    source: &Source,
    found: &Found,
    need: &Need,
    threads: &Threads,
) -> Result<Read, Vec<Diagnostic>> {
    let store = data.store();
    let Found { started, files, options, look, digests, key, .. } = found;
    let explain = |failed: Failed| failed.explain(source);
    let of_files = Files { store, data, files, digests, options, need };
    let (table, cached) = match of_files.table(threads).map_err(explain)? {
        Some(known) => known,
        None => {
            // Files that are at odds were read as one before, or are now.
            let known = store.record::<Table>(Kind::Source, key).filter(|table| is_whole(store, table));
            let read = || read_whole(data, files, digests, options, key, threads).map_err(explain);
            let is_known = known.is_some();
            (known.map_or_else(read, Ok)?, is_known)
        }
    };
    if table.rows() == 0 && !source.allow_empty {
        let error =
            Diagnostic::new(format!("the source `{}` has no rows", source.name)).at(&source.path.1, "this file");
        return Err(vec![error.help("if that is meant, add `allow_empty = true`")]);
    }
    let digested = files.iter().cloned().zip(digests.iter().map(|(digest, _)| *digest));
    let seen = Seen { look: look.clone(), files: digested.collect() };
    Ok(Read { table: Arc::new(table), cached, wall_us: started.elapsed().as_micros() as u64, seen })
}

/// All columns of all files, kept under what the files were before.
fn read_whole(
    data: &StoreData,
    files: &[PathBuf],
    digests: &[Digested],
    options: &ReadOptions,
    key: &[u8; 32],
    threads: &Threads,
) -> Result<Table, Failed> {
    let store = data.store();
    let ReadTable { table, .. } = read_table(data, files, options, &Need::All, threads).map_err(Failed::Read)?;
    if let Some(file) = changed(store, files, digests) {
        return Err(Failed::Changed(file.clone()));
    }
    store.put_record(Kind::Source, key, &table).map_err(Failed::Store)?;
    Ok(table)
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
    use millrace_types::{Chunk, ColumnName, Field};

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
        let error = read(&data, source, &found, &Need::All, &Threads::new(1)).map(|_| ()).unwrap_err();
        assert!(error[0].message.contains("changed while it was read"), "{}", error[0].message);
        std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
        let found = find(&store, source).unwrap();
        assert!(found.known.is_none(), "the wrong rows are found under the digest of the right ones");
        assert!(read(&data, source, &found, &Need::All, &Threads::new(1)).is_ok_and(|read| !read.cached));
        assert!(find(&store, source).unwrap().known.is_some());
    }

    /// Whoever wishes to stop does not wait until all is read, and nothing of it is kept.
    #[test]
    fn a_source_is_read_until_somebody_stops_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let stop = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let store = Store::open(&path("store")).unwrap().used_by(2, stop.clone());
        let data = StoreData::shared(&store);
        std::fs::write(path("p.toml"), "[sources.s]\npath = \"*.csv\"\n").unwrap();
        std::fs::write(path("rows.csv"), "x\n1\n").unwrap();
        // Old enough for its digest to be remembered: it is not what stops.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let pipeline = crate::pipeline::read(&path("p.toml")).unwrap();
        let source = &pipeline.sources[0];
        let set = |to| stop.store(to, std::sync::atomic::Ordering::Relaxed);
        set(true);
        assert!(find(&store, source).is_err());
        set(false);
        let found = find(&store, source).unwrap_or_else(|_| panic!("it is found"));
        set(true);
        let error = read(&data, source, &found, &Need::All, &Threads::new(1)).map(|_| ()).unwrap_err();
        assert!(error[0].message.contains("stopped"), "{}", error[0].message);
        set(false);
        assert!(read(&data, source, &found, &Need::All, &Threads::new(1)).is_ok_and(|read| !read.cached));
    }

    /// A table that names a column which its source does not have was harmed, or is from elsewhere.
    #[test]
    fn a_column_that_its_source_lacks_ends_in_words() {
        for (name, content) in [("rows.csv", "x,y\n1,2\n"), ("rows.ndjson", "{\"x\":1,\"y\":2}\n")] {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            let store = Store::open(&path("store")).unwrap();
            let data = StoreData::shared(&store);
            std::fs::write(path("p.toml"), format!("[sources.s]\npath = \"{name}\"\n")).unwrap();
            std::fs::write(path(name), content).unwrap();
            let pipeline = crate::pipeline::read(&path("p.toml")).unwrap();
            let found = find(&store, &pipeline.sources[0]).unwrap();
            let read = read(&data, &pipeline.sources[0], &found, &Need::nothing(), &Threads::new(1));
            let table = read.unwrap_or_else(|_| panic!("{name} is read")).table;
            let look = |field: &Field| {
                let chunk = Chunk::unread(found.key, 0, field, 1);
                millrace_wasm::Data::column(&*data, &chunk)
            };
            assert_eq!(look(&table.schema.fields[1]).unwrap().rows(), 1, "{name}");
            let lacking = Field { name: ColumnName::new("z"), ..table.schema.fields[1].clone() };
            let error = look(&lacking).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("its source does not have it"), "{name}: {error}");
        }
    }
}
