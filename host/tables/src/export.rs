//! Writes tables to files.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::ArrayRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use millrace_types::Schema;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::writer::SerializedFileWriter;

use crate::column::{ColumnBytes, ColumnError, schema_to_arrow};
use crate::read::Format;

/// A table that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An error of the system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The columns are invalid.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// An error of the format.
    #[error("{0}")]
    Format(String),
}

fn format_error(error: impl std::fmt::Display) -> ExportError {
    ExportError::Format(error.to_string())
}

enum Inner<W: Write + Send> {
    /// CSV and NDJSON, whose parts are bytes, one after the other.
    Text(W),
    Parquet(Box<SerializedFileWriter<W>>),
    Ipc(Box<arrow::ipc::writer::FileWriter<W>>),
}

/// Writes a table, part after part. The same table gives the same bytes, whichever threads
/// encode its parts.
pub struct Exporter<W: Write + Send> {
    inner: Inner<W>,
    encoder: Arc<Encoder>,
}

/// Encodes parts for the file, each independently and on any thread.
pub struct Encoder {
    format: Format,
    schema: Arc<arrow::datatypes::Schema>,
    row_groups: Option<ArrowRowGroupWriterFactory>,
    /// The buffers of texts that were written: fresh memory costs as much as writing to it.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A part, encoded for the file.
pub struct Encoded(Inside);

enum Inside {
    Bytes(Vec<u8>),
    RowGroups(Vec<Vec<ArrowColumnChunk>>),
    Batch(RecordBatch),
}

/// Bytes of columns up to which a part is encoded as one text. The text of a larger part, which
/// has two to four times as many bytes, is encoded when it is written, some rows at a time.
const WHOLE: u64 = 64 << 20;

/// The maximum number of rows in a row group.
const ROW_GROUP: usize = 1 << 20;

impl Encoder {
    /// Encodes a part.
    ///
    /// # Errors
    /// Those of the format; when the columns are invalid.
    pub fn part(&self, rows: usize, columns: &[ColumnBytes]) -> Result<Encoded, ExportError> {
        let batch = record_batch(&self.schema, rows, columns)?;
        let bytes: u64 = columns.iter().map(ColumnBytes::bytes).sum();
        Ok(Encoded(match (self.format, &self.row_groups) {
            (Format::Csv | Format::Ndjson, _) if bytes <= WHOLE => Inside::Bytes(self.text(&batch)?),
            (_, Some(row_groups)) => {
                // A part becomes one row group, or several if it has more rows than one may have.
                let pieces = (0..rows).step_by(ROW_GROUP).map(|from| batch.slice(from, ROW_GROUP.min(rows - from)));
                Inside::RowGroups(pieces.map(|piece| row_group(row_groups, &piece)).collect::<Result<_, _>>()?)
            }
            _ => Inside::Batch(batch),
        }))
    }

    fn text(&self, batch: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        let mut bytes = self.spare().pop().unwrap_or_default();
        if self.format == Format::Csv {
            return csv(batch, false, bytes);
        }
        // Nulls are written out, so that a column of nulls alone is a column when it is read.
        let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, arrow::json::writer::LineDelimited>(&mut bytes);
        writer.write(batch).and_then(|()| writer.finish()).map_err(format_error)?;
        drop(writer);
        Ok(bytes)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn csv(batch: &RecordBatch, has_header: bool, mut bytes: Vec<u8>) -> Result<Vec<u8>, ExportError> {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(has_header).build(&mut bytes);
    writer.write(batch).map_err(format_error)?;
    drop(writer);
    Ok(bytes)
}

fn row_group(factory: &ArrowRowGroupWriterFactory, batch: &RecordBatch) -> Result<Vec<ArrowColumnChunk>, ExportError> {
    // The index of the row group matters only for encryption.
    let mut writers = factory.create_column_writers(0).map_err(format_error)?.into_iter();
    let mut chunks = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        for leaf in compute_leaves(field, array).map_err(format_error)? {
            let Some(mut writer) = writers.next() else { return Err(format_error("a column without a writer")) };
            writer.write(&leaf).map_err(format_error)?;
            chunks.push(writer.close().map_err(format_error)?);
        }
    }
    Ok(chunks)
}

impl<W: Write + Send> Exporter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(mut out: W, format: Format, schema: &Schema) -> Result<Self, ExportError> {
        let schema = Arc::new(schema_to_arrow(schema));
        let mut row_groups = None;
        let inner = match format {
            Format::Csv => {
                // The header is written even when no part follows.
                out.write_all(&csv(&RecordBatch::new_empty(schema.clone()), true, Vec::new())?)?;
                Inner::Text(out)
            }
            Format::Ndjson => Inner::Text(out),
            Format::Parquet => {
                use parquet::basic::{Compression, ZstdLevel};
                let properties = parquet::file::properties::WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_created_by("millrace".to_owned())
                    .build();
                let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties));
                let (writer, factory) = writer.and_then(ArrowWriter::into_serialized_writer).map_err(format_error)?;
                row_groups = Some(factory);
                Inner::Parquet(Box::new(writer))
            }
            Format::Ipc => {
                let writer = arrow::ipc::writer::FileWriter::try_new(out, &schema).map_err(format_error)?;
                Inner::Ipc(Box::new(writer))
            }
        };
        Ok(Self { inner, encoder: Arc::new(Encoder { format, schema, row_groups, spare: Mutex::default() }) })
    }

    /// The encoder of parts for [`Self::put`].
    pub fn encoder(&self) -> Arc<Encoder> {
        self.encoder.clone()
    }

    /// Writes an encoded part.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn put(&mut self, part: Encoded) -> Result<(), ExportError> {
        match (&mut self.inner, part.0) {
            (Inner::Text(_), Inside::Batch(batch)) => {
                let rows = batch.num_rows();
                let some =
                    (rows * (WHOLE as usize / 8)).checked_div(batch.get_array_memory_size()).unwrap_or(rows).max(1);
                for from in (0..rows).step_by(some) {
                    let text = self.encoder.text(&batch.slice(from, some.min(rows - from)))?;
                    self.put(Encoded(Inside::Bytes(text)))?;
                }
                Ok(())
            }
            (Inner::Text(out), Inside::Bytes(mut bytes)) => {
                // In one piece the write took up to ten times as long (measured alternately, 45 MB each).
                bytes.chunks(128 << 10).try_for_each(|piece| out.write_all(piece))?;
                bytes.clear();
                self.encoder.spare().push(bytes);
                Ok(())
            }
            (Inner::Parquet(writer), Inside::RowGroups(row_groups)) => {
                for chunks in row_groups {
                    let mut row_group = writer.next_row_group().map_err(format_error)?;
                    for chunk in chunks {
                        chunk.append_to_row_group(&mut row_group).map_err(format_error)?;
                    }
                    row_group.close().map_err(format_error)?;
                }
                Ok(())
            }
            (Inner::Ipc(writer), Inside::Batch(batch)) => writer.write(&batch).map_err(format_error),
            _ => Err(format_error("a part of another format")),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(self) -> Result<(), ExportError> {
        match self.inner {
            Inner::Text(mut out) => out.flush().map_err(ExportError::Io),
            Inner::Parquet(writer) => writer.close().map(|_| ()).map_err(format_error),
            Inner::Ipc(mut writer) => writer.finish().map_err(format_error),
        }
    }
}

/// Columns as an Arrow record batch.
///
/// # Errors
/// When the columns do not match the schema.
pub fn record_batch(
    schema: &Arc<arrow::datatypes::Schema>,
    rows: usize,
    columns: &[ColumnBytes],
) -> Result<RecordBatch, ExportError> {
    let arrays = columns.iter().map(ColumnBytes::to_array).collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(format_error)
}

#[cfg(test)]
mod tests;
