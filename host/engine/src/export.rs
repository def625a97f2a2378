//! Files that a pipeline writes: whole or not at all, and not again when they are
//! as they should be.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_store::{FileStamp, Store};
use millrace_tables::Threads;
use millrace_tables::export::Exporter;
use millrace_tables::read::Format;
use millrace_types::wire::Kind;
use millrace_types::{Artifact, Chunk, Part, Table};
use millrace_wasm::{Cancel, Data};
use serde::{Deserialize, Serialize};

use crate::data::StoreData;
use crate::event::Event;
use crate::execute::Artifacts;
use crate::graph::Graph;

#[derive(Serialize, Deserialize)]
struct Written {
    stamp: FileStamp,
    digest: String,
}

/// Writes an artifact to a file: a table in the format that its name tells, a
/// blob as it is. The file is complete or as it was.
///
/// # Errors
/// When the name tells no format, or the system refuses.
pub fn export_to(store: &Store, artifact: &Artifact, path: &Path) -> Result<(), String> {
    let data = StoreData::new(store.clone());
    write(&data, artifact, path, &Cancel::default()).map(drop)
}

/// What a stat says of the file that was written: not of whatever is there by now, for others
/// may write to the same name.
fn write(data: &StoreData, artifact: &Artifact, path: &Path, cancel: &Cancel) -> Result<FileStamp, String> {
    let text = |error: io::Error| error.to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(text)?;
    let mut file = tempfile::Builder::new().prefix(".millrace-").tempfile_in(folder).map_err(text)?;
    let written = match artifact {
        Artifact::Blob(blob) => {
            data.blob(blob).map_err(|error| error.to_string()).and_then(|bytes| file.write_all(&bytes).map_err(text))
        }
        Artifact::Table(table) => {
            let format = Format::of(path)
                .filter(|_| !is_packed(path))
                .ok_or_else(|| "its name does not tell the format: use .parquet, .csv, .arrow or .ndjson".to_owned())?;
            write_table(data, table, format, io::BufWriter::with_capacity(256 << 10, file.as_file_mut()), cancel)
        }
    };
    // That the store is harmed says more than what came of it.
    data.settle().map_err(|error| error.to_string())?;
    written?;
    // As a file that a program writes usually is, and not only for this user.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    let file = file.persist(path).map_err(|error| error.error.to_string())?;
    file.metadata().map(|meta| FileStamp::new(&meta)).map_err(text)
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "zip")
}

/// What exports should not need more of, for all threads: each has a part, and what becomes of it.
const MEMORY: u64 = 1 << 30;

/// About how many bytes a column has when it is read.
fn size(chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Stored(chunk) => chunk.bytes(),
        Chunk::Gather(gather) => match gather.data_type.width() {
            Some(width) => gather.rows.saturating_mul(width as u64),
            // As many for each row as in what it is taken from.
            None => {
                let bytes = gather.sources.iter().map(size).fold(0, u64::saturating_add);
                let rows: u64 = gather.sources.iter().map(Chunk::rows).sum();
                (u128::from(bytes) * u128::from(gather.rows) / u128::from(rows.max(1))).try_into().unwrap_or(u64::MAX)
            }
        },
        Chunk::Unread(unread) => unread.rows.saturating_mul(unread.data_type.width().unwrap_or(16) as u64),
    }
}

/// How many parts there is room for at a time, one at least.
fn at_once(table: &Table) -> usize {
    let bytes = |part: &Arc<Part>| part.columns.iter().map(size).fold(0, u64::saturating_add);
    let largest = table.parts.iter().map(bytes).max().unwrap_or(0);
    (MEMORY / largest.saturating_mul(4).max(1)).max(1).try_into().unwrap_or(usize::MAX)
}

fn write_table<W: Write + Send>(
    data: &StoreData,
    table: &Table,
    format: Format,
    out: W,
    cancel: &Cancel,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    data.decode(table).map_err(|error| text(&error))?;
    let mut exporter = Exporter::new(out, format, &table.schema).map_err(|error| text(&error))?;
    let encoder = exporter.encoder();
    let encode = |part: &Arc<Part>| {
        if cancel.is_cancelled() {
            return Err("stopped".to_owned());
        }
        let columns = part.columns.iter().map(|chunk| data.column(chunk)).collect::<Result<Vec<_>, _>>();
        let columns = columns.map_err(|error| text(&error))?;
        encoder.part(part.rows as usize, &columns).map_err(|error| text(&error))
    };
    let put = |part| exporter.put(part).map_err(|error| text(&error));
    Threads::new(data.store().threads().min(at_once(table))).in_turn(table.parts.iter(), encode, put)?;
    exporter.finish().map_err(|error| text(&error))
}

/// A file as it was written, or found to be as it should be: what a stat said of it then.
pub(crate) type Exported = (PathBuf, FileStamp);

/// Writes what the pipeline asks for, as far as it came to be. `None` when not all is well.
pub(crate) fn exports(
    store: &Store,
    data: &StoreData,
    graph: &Graph,
    made: &Artifacts,
    cancel: &Cancel,
    emit: &mut (dyn FnMut(Event) + Send),
) -> Option<Vec<Exported>> {
    let mut exported = Vec::new();
    let mut ok = true;
    for export in &graph.exports {
        if cancel.is_cancelled() {
            return None;
        }
        let Some(artifact) = made.get(&export.item) else { continue };
        let path = export.path.clone();
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let name = *blake3::Hasher::new_derive_key("millrace 2026-11 export")
            .update(absolute.as_os_str().as_encoded_bytes())
            .finalize()
            .as_bytes();
        let digest = artifact.digest_text();
        let stamp = || std::fs::metadata(&path).ok().map(|meta| FileStamp::new(&meta));
        let known = store.record::<Written>(Kind::Memo, &name);
        if let Some(known) = known.filter(|known| known.digest == digest && Some(known.stamp) == stamp()) {
            exported.push((path.clone(), known.stamp));
            emit(Event::Exported { path, unchanged: true });
            continue;
        }
        match write(data, &artifact, &path, cancel) {
            Ok(stamp) => {
                let _ = store.put_record(Kind::Memo, &name, &Written { stamp, digest });
                exported.push((path.clone(), stamp));
                emit(Event::Exported { path, unchanged: false });
            }
            Err(_) if cancel.is_cancelled() => return None,
            Err(message) => {
                ok = false;
                emit(Event::ExportFailed { path, message });
            }
        }
    }
    ok.then_some(exported)
}

#[cfg(test)]
mod tests {
    use millrace_types::{ColumnDigest, ColumnName, DataType, Field, Gather, Schema, Selection, Unread};
    use millrace_types::{PackDigest, StoredChunk};

    use super::*;

    fn table(columns: &[Chunk], parts: usize) -> Table {
        let rows = columns[0].rows();
        let field = |_: &Chunk| Field { name: ColumnName::new("c"), data_type: DataType::Int64, nullable: true };
        let part = Arc::new(Part { rows, columns: columns.to_vec() });
        Table { schema: Schema { fields: columns.iter().map(field).collect() }, parts: vec![part; parts] }
    }

    fn unread(rows: u64, data_type: DataType) -> Chunk {
        let (digest, name) = (ColumnDigest::from_bytes([1; 32]), ColumnName::new("c"));
        Chunk::Unread(Arc::new(Unread { digest, data_type, rows, source: [0; 32], part: 0, name }))
    }

    /// Each of the parts that are held is there four times over: read, as an array, and encoded.
    #[test]
    fn few_parts_that_are_large_are_written_at_a_time() {
        let columns = |count: usize, rows: u64| vec![unread(rows, DataType::Int64); count];
        assert_eq!(at_once(&table(&columns(1, 1 << 17), 9)), 256);
        assert_eq!(at_once(&table(&columns(64, 1 << 17), 9)), 4);
        assert_eq!(at_once(&table(&columns(400, 1 << 20), 9)), 1);
        assert_eq!(at_once(&table(&columns(2, u64::MAX), 2)), 1);
        assert_eq!(at_once(&table(&columns(1, 0), 1)), usize::try_from(MEMORY).unwrap());
        assert!(at_once(&table(&columns(1, 1), 0)) > 1);
        // One is as large as the largest: a small one beside it changes nothing.
        let mut two = table(&columns(64, 1 << 17), 1);
        two.parts.extend(table(&columns(64, 1), 1).parts);
        assert_eq!(at_once(&two), 4);
    }

    /// Rows of text that a step repeats or chooses are as long as those they come from.
    #[test]
    fn text_that_is_taken_counts_by_its_rows() {
        let (pack, digest) = (PackDigest::from_bytes([2; 32]), ColumnDigest::from_bytes([3; 32]));
        let extent = |size| millrace_types::table::Extent { offset: 0, size };
        let stored = |data_type, rows, offsets: Option<u64>, values| StoredChunk {
            digest,
            data_type,
            rows,
            null_count: 0,
            pack,
            pack_bytes: 1 << 30,
            validity: None,
            offsets: offsets.map(extent),
            values: extent(values),
        };
        let texts = Chunk::Stored(Arc::new(stored(DataType::Utf8, 1000, Some(4000), 96_000)));
        let taken = |rows, sources: Vec<Chunk>| {
            let selection = Arc::new(stored(DataType::UInt32, rows, None, 4 * rows));
            let kind = Selection::Take;
            size(&Chunk::Gather(Arc::new(Gather { digest, data_type: DataType::Utf8, rows, kind, selection, sources })))
        };
        assert_eq!(size(&texts), 100_000);
        assert_eq!(taken(500, vec![texts.clone()]), 50_000);
        assert_eq!(taken(3000, vec![texts.clone(), texts.clone()]), 300_000);
        assert_eq!(taken(u64::MAX, vec![texts]), u64::MAX);
        assert_eq!(taken(7, Vec::new()), 0);
    }
}
