//! What the host holds for a guest while it runs.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use millrace_tables::{Block, ChunkError, ChunkStore, ColumnBytes};
use millrace_types::{InputItem, LogLine, TaskSpec, bounds};

use crate::context::Progress;
use crate::limits::Limiter;
use crate::output::Outputs;
use crate::text::sanitize;
use crate::wasi::Wasi;

/// The state of a guest.
pub(crate) struct TaskState {
    pub(crate) limiter: Limiter,
    /// `None` while the component describes itself or plans.
    pub(crate) task: Option<Running>,
    pub(crate) panic: Option<String>,
    /// The view of a component that imports WASI.
    pub(crate) wasi: Option<Box<Wasi>>,
}

impl TaskState {
    /// The guest's view of WASI: closed, unless its component was given one.
    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::closed()))
    }
}

/// A task while it runs.
pub(crate) struct Running {
    pub(crate) spec: TaskSpec,
    pub(crate) chunks: Arc<dyn ChunkStore>,
    pub(crate) progress: Option<Progress>,
    /// The input and the item of each handle.
    pub(crate) handles: Vec<(usize, usize)>,
    /// Columns of which the guest has read some rows.
    pub(crate) open: OpenColumns,
    pub(crate) outputs: Outputs,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
}

/// A column: the handle of its table, the part, and the index within the part.
type ColumnHandle = (u32, u32, u32);

/// Columns of which a guest has read some rows and not the last, so that a derived column is
/// not made again for each block of rows. The one that was opened first is dropped first.
#[derive(Default)]
pub(crate) struct OpenColumns {
    columns: VecDeque<(ColumnHandle, ColumnBytes)>,
    bytes: u64,
}

impl OpenColumns {
    /// Columns at a time.
    const MAX_COLUMNS: usize = 64;
    /// Bytes of all of them, unless the last one alone has more.
    const MAX_BYTES: u64 = 64 << 20;

    /// Some rows of a column; `find` reads the column if it is not open.
    pub(crate) fn rows(
        &mut self,
        column: ColumnHandle,
        rows: Range<u64>,
        find: impl FnOnce() -> Result<ColumnBytes, ChunkError>,
    ) -> Result<Block, ChunkError> {
        let known = self.columns.iter().position(|(known, _)| *known == column);
        let bytes = match known {
            Some(known) => self.columns[known].1.clone(),
            None => find()?,
        };
        let is_last = rows.end >= bytes.rows() as u64;
        match known {
            Some(known) if is_last => {
                self.bytes -= bytes.bytes();
                self.columns.remove(known);
            }
            None if !is_last => {
                self.bytes += bytes.bytes();
                self.columns.push_back((column, bytes.clone()));
                while self.columns.len() > Self::MAX_COLUMNS || (self.bytes > Self::MAX_BYTES && self.columns.len() > 1)
                {
                    self.bytes -= self.columns.pop_front().map_or(0, |(_, column)| column.bytes());
                }
            }
            _ => {}
        }
        // A row that does not fit a `usize` is beyond the end of any column.
        let row = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
        bytes.block(row(rows.start)..row(rows.end)).map_err(|error| ChunkError::Invalid(error.to_string()))
    }
}

impl Running {
    /// The state of a task that begins. Of several guests the first one keeps the outputs.
    pub(crate) fn new(spec: TaskSpec, chunks: Arc<dyn ChunkStore>, progress: Option<Progress>, is_first: bool) -> Self {
        let handles = spec.inputs.iter().enumerate().flat_map(|(i, input)| (0..input.items.len()).map(move |j| (i, j)));
        let handles = handles.collect();
        let outputs = Outputs::new(&spec, !is_first);
        Self {
            spec,
            chunks,
            progress,
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

    /// The handles of the items of one kind on a port.
    pub(crate) fn handles_of(&self, port: &str, tables: bool) -> Vec<u32> {
        let is = |(_, (input, item)): &(u32, &(usize, usize))| {
            let input = &self.spec.inputs[*input];
            input.port == *port && matches!(input.items[*item], InputItem::Table { .. }) == tables
        };
        (0u32..).zip(&self.handles).filter(is).map(|(handle, _)| handle).collect()
    }

    pub(crate) fn log(&mut self, level: millrace_types::Level, message: String) {
        if self.log.len() < bounds::LOG_LINES {
            self.log.push(LogLine { level, message: sanitize(message, bounds::LOG_LINE_BYTES) });
        }
    }
}

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
    fn a_column_is_read_once_for_all_its_blocks() {
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
        // A column is closed with its last row.
        assert_eq!((open.columns.len(), open.bytes), (1, 10));
        assert_eq!(read(&mut open, 0, 0..10), ((0..10).collect(), 3));
        assert_eq!(read(&mut open, 1, 2..10), ((2..10).collect(), 3));
        assert_eq!((open.columns.len(), open.bytes), (0, 0));
        let missing = open.rows((0, 0, 0), 0..1, || Err(ChunkError::Lost("gone".to_owned())));
        assert_eq!(missing.unwrap_err(), ChunkError::Lost("gone".to_owned()));
        assert!(open.rows((0, 0, 0), 9..11, || Ok(column(10))).is_err() && open.columns.is_empty());
    }

    #[test]
    fn few_columns_are_open_at_a_time() {
        let mut open = OpenColumns::default();
        for place in 0..200 {
            open.rows((0, 0, place), 0..1, || Ok(column(3))).unwrap();
        }
        assert_eq!((open.columns.len(), open.bytes), (OpenColumns::MAX_COLUMNS, 3 * OpenColumns::MAX_COLUMNS as u64));
        let mut again = 0;
        for place in (0..200).rev() {
            let find = || {
                again += 1;
                Ok(column(3))
            };
            open.rows((0, 0, place), 1..3, find).unwrap();
        }
        assert_eq!((again, open.columns.len(), open.bytes), (200 - OpenColumns::MAX_COLUMNS, 0, 0));
        // Nor do they exceed the bytes, but for the last one.
        for place in 0..4 {
            open.rows((0, 0, place), 0..1, || Ok(column((OpenColumns::MAX_BYTES / 2) as usize + 1))).unwrap();
            assert_eq!(open.columns.len(), 1);
        }
        open.rows((0, 0, 9), 0..1, || Ok(column(2 * OpenColumns::MAX_BYTES as usize))).unwrap();
        assert_eq!(open.columns.iter().map(|(place, _)| place.2).collect::<Vec<_>>(), [9]);
    }
}
