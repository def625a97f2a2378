//! Files that a pipeline writes: written completely or not at all, and not again if they are
//! current.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_platform::make_shared;
use millrace_store::{FileStamp, Store};
use millrace_tables::export::{ExportError as EncodeError, Exporter};
use millrace_tables::read::Format;
use millrace_tables::{ChunkError, ChunkSource};
use millrace_threads::Threads;
use millrace_types::wire::Kind;
use millrace_types::{Artifact, Chunk, MemoName, Part, Record, Reference, Table};
use millrace_wasm::Cancel;
use serde::{Deserialize, Serialize};

use crate::chunks::StoreChunks;
use crate::event::Event;
use crate::graph::Graph;
use crate::results::RunOutputs;

/// The digest of an exported artifact, and the stamp of its file after it was written.
#[derive(Serialize, Deserialize)]
pub(crate) struct ExportMemo {
    stamp: FileStamp,
    digest: String,
}

impl Record for ExportMemo {
    const KIND: Kind = Kind::Memo;
    type Name = MemoName;

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}

/// Why an artifact cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An error of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The artifact cannot be read.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The format cannot hold the table.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The file name does not determine a format.
    #[error("its name does not determine the format: use .parquet, .csv, .arrow or .ndjson")]
    Format,
    /// The run was cancelled.
    #[error("stopped")]
    Cancelled,
}

/// Writes an artifact to a file: a table in the format that the file name determines, a blob
/// unchanged. The file is written completely or not at all.
///
/// # Errors
/// When the name determines no format, or the system refuses.
pub fn export_to(store: &Store, artifact: &Artifact, path: &Path) -> Result<(), ExportError> {
    let chunks = StoreChunks::new(store.clone());
    write(&chunks, artifact, path, &Cancel::default()).map(drop)
}

/// Writes a file and returns its stamp: that of the written file, not of one that another process
/// may have put under the same name since.
fn write(chunks: &StoreChunks, artifact: &Artifact, path: &Path, cancel: &Cancel) -> Result<FileStamp, ExportError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".millrace-").tempfile_in(folder)?;
    let written = match artifact {
        Artifact::Blob(blob) => match chunks.blob(blob) {
            Ok(bytes) => file.write_all(&bytes).map_err(ExportError::from),
            Err(error) => Err(error.into()),
        },
        Artifact::Table(table) => {
            let format = Format::of(path).filter(|_| !is_packed(path)).ok_or(ExportError::Format)?;
            write_table(chunks, table, format, io::BufWriter::with_capacity(256 << 10, file.as_file_mut()), cancel)
        }
    };
    // A corrupt store explains more than the errors that follow from it.
    chunks.wait_checked()?;
    written?;
    let _ = make_shared(file.as_file());
    let file = file.persist(path).map_err(|error| error.error)?;
    Ok(FileStamp::new(&file.metadata()?))
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz" || extension == "zip")
}

/// Bytes of memory that exports should use at most, all threads together: each thread holds a part
/// and what it is encoded to.
const MEMORY: u64 = 1 << 30;

/// The approximate number of bytes of a column when it is read.
fn size(chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Stored(chunk) => chunk.bytes(),
        Chunk::Gather(gather) => match gather.data_type.width() {
            Some(width) => gather.rows.saturating_mul(width as u64),
            // The average length of its sources' rows.
            None => {
                let bytes = gather.sources.iter().map(size).fold(0, u64::saturating_add);
                let rows: u64 = gather.sources.iter().map(Chunk::rows).sum();
                (u128::from(bytes) * u128::from(gather.rows) / u128::from(rows.max(1))).try_into().unwrap_or(u64::MAX)
            }
        },
        Chunk::Unread(unread) => unread.rows.saturating_mul(unread.data_type.width().unwrap_or(16) as u64),
    }
}

/// The number of parts that fit in memory at a time, at least one.
fn max_parts(table: &Table) -> usize {
    let bytes = |part: &Arc<Part>| part.columns.iter().map(size).fold(0, u64::saturating_add);
    let largest = table.parts.iter().map(bytes).max().unwrap_or(0);
    (MEMORY / largest.saturating_mul(4).max(1)).max(1).try_into().unwrap_or(usize::MAX)
}

fn write_table<W: Write + Send>(
    chunks: &StoreChunks,
    table: &Table,
    format: Format,
    out: W,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    chunks.decode(table)?;
    let mut exporter = Exporter::new(out, format, &table.schema)?;
    let encoder = exporter.encoder();
    let encode = |part: &Arc<Part>| {
        if cancel.is_cancelled() {
            return Err(ExportError::Cancelled);
        }
        let columns = part.columns.iter().map(|chunk| chunks.column(chunk)).collect::<Result<Vec<_>, _>>()?;
        Ok(encoder.part(part.rows as usize, &columns)?)
    };
    let put = |part| Ok(exporter.put(part)?);
    Threads::new(chunks.store().threads().min(max_parts(table))).in_turn(table.parts.iter(), encode, put)?;
    Ok(exporter.finish()?)
}

/// An export that was written or is current: its file and stamp.
pub(crate) type Exported = (PathBuf, FileStamp);

/// Writes the exports whose artifacts exist. `None` if one fails, or the run is cancelled.
pub(crate) fn exports(
    store: &Store,
    chunks: &StoreChunks,
    graph: &Graph,
    outputs: &RunOutputs,
    cancel: &Cancel,
    emit: &mut (dyn FnMut(Event) + Send),
) -> Option<Vec<Exported>> {
    let mut exported = Vec::new();
    let mut ok = true;
    for export in &graph.exports {
        if cancel.is_cancelled() {
            return None;
        }
        let Some(artifact) = outputs.get(graph, &export.item) else { continue };
        let path = export.path.clone();
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let name = blake3::Hasher::new_derive_key("millrace 2026-11 export")
            .update(absolute.as_os_str().as_encoded_bytes())
            .finalize()
            .into();
        let digest = artifact.digest_text();
        let stamp = || std::fs::metadata(&path).ok().map(|meta| FileStamp::new(&meta));
        let known = store.record::<ExportMemo>(&name);
        if let Some(known) = known.filter(|known| known.digest == digest && Some(known.stamp) == stamp()) {
            exported.push((path.clone(), known.stamp));
            emit(Event::Exported { path, unchanged: true });
            continue;
        }
        match write(chunks, &artifact, &path, cancel) {
            Ok(stamp) => {
                let _ = store.put_record(&name, &ExportMemo { stamp, digest });
                exported.push((path.clone(), stamp));
                emit(Event::Exported { path, unchanged: false });
            }
            Err(_) if cancel.is_cancelled() => return None,
            Err(error) => {
                ok = false;
                emit(Event::ExportFailed { path, message: error.to_string() });
            }
        }
    }
    ok.then_some(exported)
}

#[cfg(test)]
mod tests {
    use millrace_types::{ColumnDigest, ColumnName, DataType, Field, Gather, Schema, Selection, Unread};
    use millrace_types::{PackDigest, SourceKey, StoredChunk};

    use super::*;

    fn table(columns: &[Chunk], parts: usize) -> Table {
        let rows = columns[0].rows();
        let field = |_: &Chunk| Field { name: ColumnName::new("c"), data_type: DataType::Int64, nullable: true };
        let part = Arc::new(Part { rows, columns: columns.to_vec() });
        Table { schema: Schema { fields: columns.iter().map(field).collect() }, parts: vec![part; parts] }
    }

    fn unread(rows: u64, data_type: DataType) -> Chunk {
        let (digest, name) = (ColumnDigest::from_bytes([1; 32]), ColumnName::new("c"));
        Chunk::Unread(Arc::new(Unread {
            digest,
            data_type,
            rows,
            source: SourceKey::from_bytes([0; 32]),
            part: 0,
            name,
        }))
    }

    /// A part that is held takes four times its size: read, as an array, and encoded.
    #[test]
    fn large_parts_are_written_few_at_a_time() {
        let columns = |count: usize, rows: u64| vec![unread(rows, DataType::Int64); count];
        assert_eq!(max_parts(&table(&columns(1, 1 << 17), 9)), 256);
        assert_eq!(max_parts(&table(&columns(64, 1 << 17), 9)), 4);
        assert_eq!(max_parts(&table(&columns(400, 1 << 20), 9)), 1);
        assert_eq!(max_parts(&table(&columns(2, u64::MAX), 2)), 1);
        assert_eq!(max_parts(&table(&columns(1, 0), 1)), usize::try_from(MEMORY).unwrap());
        assert!(max_parts(&table(&columns(1, 1), 0)) > 1);
        // The largest part counts: a small one beside it changes nothing.
        let mut two = table(&columns(64, 1 << 17), 1);
        two.parts.extend(table(&columns(64, 1), 1).parts);
        assert_eq!(max_parts(&two), 4);
    }

    /// Rows of text that a step repeats or selects have the average length of their sources' rows.
    #[test]
    fn the_size_of_taken_text_follows_from_its_rows() {
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
