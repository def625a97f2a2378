//! A task: what it is given, and what it holds while it runs.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Seek, Write};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use millrace_tables::pack::{self, Pack};
use millrace_tables::{Block, ColumnBytes};
use millrace_types::{BlobRef, Chunk, Field, Limits, LogLine, PackDigest, Phase, PortName, StoredChunk, bounds};

use crate::limits::Limiter;
use crate::output::{OutputPlan, Outputs};
use crate::wasi::Wasi;

/// Something that the host needed for a task did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DataError(pub String);

/// Where columns come from and where they go.
pub trait Data: Send + Sync {
    /// The bytes of a column chunk.
    ///
    /// # Errors
    /// When they are not there.
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, DataError>;

    /// The bytes of a blob.
    ///
    /// # Errors
    /// When they are not there.
    fn blob(&self, blob: &BlobRef) -> Result<Bytes, DataError>;

    /// A file for a pack that is about to be written. Dropped, it is gone.
    ///
    /// # Errors
    /// When it cannot be made.
    fn new_pack(&self) -> Result<Box<dyn PackFile>, DataError>;

    /// Keeps a blob.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, DataError>;
}

/// A file that a pack is written to.
pub trait PackFile: Write + Seek + Send {
    /// Keeps it under its name. When it returns, the chunks can be read.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn keep(self: Box<Self>, digest: &PackDigest, chunks: &[Arc<StoredChunk>]) -> Result<(), DataError>;
}

impl dyn Data + '_ {
    /// Writes columns of one length as a pack, and keeps it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_pack(&self, fields: &[Field], columns: &[ColumnBytes]) -> Result<Vec<Arc<StoredChunk>>, DataError> {
        let pack = pack::write(fields, columns, self.new_pack()?);
        keep_pack(pack.map_err(|error| DataError(error.to_string()))?)
    }
}

/// Keeps a pack that was written.
///
/// # Errors
/// When it cannot be kept.
pub fn keep_pack(pack: Pack<Box<dyn PackFile>>) -> Result<Vec<Arc<StoredChunk>>, DataError> {
    let Pack { digest, chunks, out } = pack;
    out.keep(&digest, &chunks)?;
    Ok(chunks)
}

/// Hears how far a task is.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// One part of a table that a task sees.
#[derive(Debug, Clone)]
pub struct TablePart {
    /// Rows in it.
    pub rows: u64,
    /// The columns of the read set.
    pub columns: Vec<Chunk>,
}

/// One item on an input port.
#[derive(Debug, Clone)]
pub enum InputItem {
    /// A table, cut down to what the task may see.
    Table {
        /// Matrix values, canonical JSON; `{}` where ports do not gather.
        instance: String,
        /// The read set.
        fields: Vec<Field>,
        /// What it sees of the table.
        parts: Vec<TablePart>,
    },
    /// A blob.
    Blob {
        /// As above.
        instance: String,
        /// Its bytes.
        blob: BlobRef,
    },
}

/// One input port.
#[derive(Debug, Clone)]
pub struct TaskInput {
    /// Its name.
    pub port: PortName,
    /// One, or several where instances are gathered.
    pub items: Vec<InputItem>,
}

/// What a component with WASI may see, besides what every task is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Folders to read: the name under which the guest sees it, and where it is.
    pub read: Vec<(String, std::path::PathBuf)>,
    /// Variables: name and value.
    pub env: Vec<(String, String)>,
}

/// All that a task is given.
#[derive(Clone)]
pub struct TaskSpec {
    /// Of the key: random bytes that a component with WASI asks for follow from it.
    pub seed: [u8; 32],
    /// What else it may see.
    pub grants: Grants,
    /// Canonical JSON.
    pub params: String,
    /// Which function of the step.
    pub phase: Phase,
    /// By port.
    pub inputs: Vec<TaskInput>,
    /// The port that is cut into parts.
    pub mapped: Option<PortName>,
    /// For `merge`, in the order of parts.
    pub partials: Vec<BlobRef>,
    /// What must come out.
    pub outputs: Vec<OutputPlan>,
    /// What it may use.
    pub limits: Limits,
    /// Who hears how far it is.
    pub progress: Option<Progress>,
}

/// What the host holds for a running guest.
pub(crate) struct TaskState {
    pub(crate) limiter: Limiter,
    /// None while a component describes itself or plans.
    pub(crate) task: Option<Running>,
    pub(crate) panic: Option<String>,
    /// Of a component that imports it.
    pub(crate) wasi: Option<Box<Wasi>>,
}

impl TaskState {
    /// What the guest sees of the world: nothing, unless something was put there.
    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::closed(&[0; 32])))
    }
}

/// A task while it runs.
pub(crate) struct Running {
    pub(crate) spec: TaskSpec,
    pub(crate) data: Arc<dyn Data>,
    /// Where tables and blobs are found by the number of their handle.
    pub(crate) handles: Vec<(usize, usize)>,
    /// Columns that the guest is in the midst of.
    pub(crate) open: OpenColumns,
    pub(crate) outputs: Outputs,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
}

/// Which column: the handle of its table, the part, and its place there.
type Place = (u32, u32, u32);

/// Columns of which a guest has read some rows and not the last: what is derived is not made
/// again for each block of rows. Of several the one that was opened first goes first.
#[derive(Default)]
pub(crate) struct OpenColumns {
    columns: VecDeque<(Place, ColumnBytes)>,
    bytes: u64,
}

impl OpenColumns {
    /// So many at a time,
    const COLUMNS: usize = 64;
    /// with so many bytes together, though at least the last one.
    const BYTES: u64 = 64 << 20;

    /// These rows of a column, which `find` finds if it is none of the open ones.
    pub(crate) fn rows(
        &mut self,
        place: Place,
        rows: Range<u64>,
        find: impl FnOnce() -> Result<ColumnBytes, DataError>,
    ) -> Result<Block, DataError> {
        let known = self.columns.iter().position(|(known, _)| *known == place);
        let column = match known {
            Some(known) => self.columns[known].1.clone(),
            None => find()?,
        };
        let is_last = rows.end >= column.rows() as u64;
        match known {
            Some(known) if is_last => {
                self.bytes -= column.bytes();
                self.columns.remove(known);
            }
            None if !is_last => {
                self.bytes += column.bytes();
                self.columns.push_back((place, column.clone()));
                while self.columns.len() > Self::COLUMNS || (self.bytes > Self::BYTES && self.columns.len() > 1) {
                    self.bytes -= self.columns.pop_front().map_or(0, |(_, column)| column.bytes());
                }
            }
            _ => {}
        }
        // What does not fit a `usize` is more than any column has.
        let place = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        column.block(place(rows.start)..place(rows.end)).map_err(|error| DataError(error.to_string()))
    }
}

/// Text of a guest, cut to a length.
pub(crate) fn cut(mut text: String, most: usize) -> String {
    // It goes to terminals, which take some of it for commands.
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_command) {
        let shown = |c: char| if is_command(c) { c.escape_default().collect() } else { String::from(c) };
        text = text.chars().take(most).map(shown).collect();
    }
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Running {
    /// Of several guests the first keeps what all of them come to.
    pub(crate) fn new(spec: TaskSpec, data: Arc<dyn Data>, is_first: bool) -> Self {
        let handles = spec.inputs.iter().enumerate().flat_map(|(i, input)| (0..input.items.len()).map(move |j| (i, j)));
        let handles = handles.collect();
        let outputs = Outputs::new(&spec, !is_first);
        Self {
            spec,
            data,
            handles,
            open: OpenColumns::default(),
            outputs,
            metrics: BTreeMap::new(),
            log: Vec::new(),
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    pub(crate) fn item(&self, handle: u32) -> Option<&InputItem> {
        let (input, item) = self.handles.get(handle as usize)?;
        Some(&self.spec.inputs[*input].items[*item])
    }

    /// Handles of the items on a port, of one kind.
    pub(crate) fn handles_of(&self, port: &str, tables: bool) -> Vec<u32> {
        let is = |(_, (input, item)): &(u32, &(usize, usize))| {
            let input = &self.spec.inputs[*input];
            input.port == *port && matches!(input.items[*item], InputItem::Table { .. }) == tables
        };
        (0u32..).zip(&self.handles).filter(is).map(|(handle, _)| handle).collect()
    }

    pub(crate) fn log(&mut self, level: millrace_types::Level, message: String) {
        if self.log.len() < bounds::LOG_LINES {
            self.log.push(LogLine { level, message: cut(message, bounds::LOG_LINE_BYTES) });
        }
    }
}

/// The rows and the place of a stored selection.
pub(crate) type StoredSelection = Arc<StoredChunk>;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millrace_tables::check::Unchecked;
    use millrace_types::DataType;

    use super::*;

    fn column(rows: usize) -> ColumnBytes {
        let values: Vec<u8> = (0..rows).map(|row| row as u8).collect();
        let claims =
            Unchecked { rows: rows as u64, null_count: 0, validity: None, offsets: None, values: &Bytes::from(values) };
        claims.check(&DataType::UInt8, false).unwrap()
    }

    #[test]
    fn a_column_is_found_once_for_all_its_blocks() {
        let mut open = OpenColumns::default();
        let mut found = 0;
        let mut read = |open: &mut OpenColumns, place: u32, rows: Range<u64>| {
            let find = || {
                found += 1;
                Ok(column(10))
            };
            let block = open.rows((0, 0, place), rows, find).unwrap();
            (block.values.to_vec(), found)
        };
        assert_eq!(read(&mut open, 0, 0..4), (vec![0, 1, 2, 3], 1));
        assert_eq!(read(&mut open, 1, 0..2), (vec![0, 1], 2));
        assert_eq!(read(&mut open, 0, 4..8), (vec![4, 5, 6, 7], 2));
        assert_eq!(read(&mut open, 0, 8..10), (vec![8, 9], 2));
        // With its last row it is closed.
        assert_eq!((open.columns.len(), open.bytes), (1, 10));
        assert_eq!(read(&mut open, 0, 0..10), ((0..10).collect(), 3));
        assert_eq!(read(&mut open, 1, 2..10), ((2..10).collect(), 3));
        assert_eq!((open.columns.len(), open.bytes), (0, 0));
        let missing = open.rows((0, 0, 0), 0..1, || Err(DataError("gone".to_owned())));
        assert_eq!(missing.unwrap_err(), DataError("gone".to_owned()));
        assert!(open.rows((0, 0, 0), 9..11, || Ok(column(10))).is_err() && open.columns.is_empty());
    }

    #[test]
    fn few_columns_are_open_at_a_time() {
        let mut open = OpenColumns::default();
        for place in 0..200 {
            open.rows((0, 0, place), 0..1, || Ok(column(3))).unwrap();
        }
        assert_eq!((open.columns.len(), open.bytes), (OpenColumns::COLUMNS, 3 * OpenColumns::COLUMNS as u64));
        let mut again = 0;
        for place in (0..200).rev() {
            let find = || {
                again += 1;
                Ok(column(3))
            };
            open.rows((0, 0, place), 1..3, find).unwrap();
        }
        assert_eq!((again, open.columns.len(), open.bytes), (200 - OpenColumns::COLUMNS, 0, 0));
        // Nor are they more than fit: but for the last one.
        for place in 0..4 {
            open.rows((0, 0, place), 0..1, || Ok(column((OpenColumns::BYTES / 2) as usize + 1))).unwrap();
            assert_eq!(open.columns.len(), 1);
        }
        open.rows((0, 0, 9), 0..1, || Ok(column(2 * OpenColumns::BYTES as usize))).unwrap();
        assert_eq!(open.columns.iter().map(|(place, _)| place.2).collect::<Vec<_>>(), [9]);
    }
}
