//! Tables to files.

use std::io::Write;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use millrace_types::Schema;

use crate::column::{ColumnBytes, ColumnError, schema_to_arrow};
use crate::read::Format;

/// A table that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The columns are not what they should be.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The format refused.
    #[error("{0}")]
    Format(String),
}

fn format_error(error: impl std::fmt::Display) -> ExportError {
    ExportError::Format(error.to_string())
}

enum Inner<W: Write + Send> {
    Csv(Box<arrow::csv::Writer<W>>),
    Ndjson(arrow::json::LineDelimitedWriter<W>),
    Parquet(Box<parquet::arrow::ArrowWriter<W>>),
    Ipc(arrow::ipc::writer::FileWriter<W>),
}

/// Writes a table, part after part. The same table gives the same bytes.
pub struct Exporter<W: Write + Send> {
    inner: Inner<W>,
    schema: Arc<arrow::datatypes::Schema>,
}

impl<W: Write + Send> Exporter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn new(out: W, format: Format, schema: &Schema) -> Result<Self, ExportError> {
        let schema = Arc::new(schema_to_arrow(schema));
        let inner = match format {
            Format::Csv => {
                let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(out);
                // The header, also when no part follows.
                writer.write(&RecordBatch::new_empty(schema.clone())).map_err(format_error)?;
                Inner::Csv(Box::new(writer))
            }
            // With nulls written out: a column of nulls alone must be a column again.
            Format::Ndjson => Inner::Ndjson(arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(out)),
            Format::Parquet => {
                use parquet::basic::{Compression, ZstdLevel};
                let properties = parquet::file::properties::WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_created_by("millrace".to_owned())
                    .build();
                let writer = parquet::arrow::ArrowWriter::try_new(out, schema.clone(), Some(properties));
                Inner::Parquet(Box::new(writer.map_err(format_error)?))
            }
            Format::Ipc => Inner::Ipc(arrow::ipc::writer::FileWriter::try_new(out, &schema).map_err(format_error)?),
        };
        Ok(Self { inner, schema })
    }

    /// Writes a part.
    ///
    /// # Errors
    /// Those of the writer, and columns that are not what they should be.
    pub fn part(&mut self, rows: usize, columns: &[ColumnBytes]) -> Result<(), ExportError> {
        let batch = record_batch(&self.schema, rows, columns)?;
        match &mut self.inner {
            Inner::Csv(writer) => writer.write(&batch).map_err(format_error),
            Inner::Ndjson(writer) => writer.write(&batch).map_err(format_error),
            Inner::Parquet(writer) => {
                writer.write(&batch).map_err(format_error)?;
                // A part stays a row group.
                writer.flush().map_err(format_error)
            }
            Inner::Ipc(writer) => writer.write(&batch).map_err(format_error),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(self) -> Result<(), ExportError> {
        match self.inner {
            Inner::Csv(writer) => writer.into_inner().flush().map_err(ExportError::Io),
            Inner::Ndjson(mut writer) => writer.finish().map_err(format_error),
            Inner::Parquet(writer) => writer.close().map(|_| ()).map_err(format_error),
            Inner::Ipc(mut writer) => writer.finish().map_err(format_error),
        }
    }
}

/// Columns as an Arrow record batch.
///
/// # Errors
/// When the columns are not what the schema says.
pub fn record_batch(
    schema: &Arc<arrow::datatypes::Schema>,
    rows: usize,
    columns: &[ColumnBytes],
) -> Result<RecordBatch, ExportError> {
    let arrays = columns.iter().map(ColumnBytes::to_array).collect::<Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(format_error)
}
