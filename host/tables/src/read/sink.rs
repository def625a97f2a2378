//! Where the parts of a source go.

use millrace_types::Schema;

use super::error::SinkError;
use super::part_id::PartId;
use crate::column::ColumnBytes;

/// Receives parts. Text is read with the types that its beginning suggests; if a later value
/// contradicts them, reading restarts, and so does the sink.
///
/// Parts come from several threads at once; their ids give the order.
pub trait Sink: Sync {
    /// Whether it takes a column. Of the other columns only the types are determined: they
    /// are in the schema of the table, and not in that of its parts.
    fn wants(&self, column: &str) -> bool {
        let _ = column;
        true
    }

    /// Begins a part with the columns that it takes.
    ///
    /// # Errors
    /// An error ends the reading.
    fn begin<'s>(&'s self, id: PartId, schema: &Schema, rows: usize) -> Result<Box<dyn PartSink + 's>, SinkError>;

    /// Discards all parts so far.
    fn restart(&self);
}

/// Receives the columns of one part, each while it is in the cache of the thread that read
/// it. A part sink that is dropped before `end` leaves no part.
pub trait PartSink: Send {
    /// Takes the column of the next field.
    ///
    /// # Errors
    /// An error ends the reading.
    fn column(&mut self, column: ColumnBytes) -> Result<(), SinkError>;

    /// Completes the part.
    ///
    /// # Errors
    /// An error ends the reading.
    fn end(self: Box<Self>) -> Result<(), SinkError>;
}

/// Collects the columns of a part, for a sink that needs them all at once.
pub struct CollectColumns<F> {
    columns: Vec<ColumnBytes>,
    end: F,
}

impl<F: FnOnce(Vec<ColumnBytes>) -> Result<(), SinkError> + Send> CollectColumns<F> {
    /// Passes the columns to `end`.
    pub fn new(end: F) -> Self {
        Self { columns: Vec::new(), end }
    }
}

impl<F: FnOnce(Vec<ColumnBytes>) -> Result<(), SinkError> + Send> PartSink for CollectColumns<F> {
    fn column(&mut self, column: ColumnBytes) -> Result<(), SinkError> {
        self.columns.push(column);
        Ok(())
    }

    fn end(self: Box<Self>) -> Result<(), SinkError> {
        let Self { columns, end } = *self;
        end(columns)
    }
}
