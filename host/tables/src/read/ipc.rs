//! Arrow IPC, files and streams: a record batch is a part, or several of one size when it
//! is large.
//!
//! Columns that are not selected are not decoded. The batches of a file are read by all
//! threads; a stream has no table of contents and is read from front to back.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use ::arrow::error::ArrowError;
use ::arrow::ipc::reader::{FileReader, StreamReader};
use ::arrow::record_batch::{RecordBatch, RecordBatchReader};
use millrace_threads::Threads;
use millrace_types::Schema;

use super::columnar::{check_names, declared, each_unit};
use super::error::ReadError;
use super::options::ReadOptions;
use super::part_id::PartId;
use super::predicate::{Batch, unpacked};
use super::reader::{Peek, Reader};
use super::shaper::Shaper;
use super::sink::Sink;
use millrace_platform::open_regular;

fn broken(path: &Path) -> impl Fn(ArrowError) -> ReadError + '_ {
    move |error| ReadError::content(path, None, format!("not usable as Arrow IPC: {error}"))
}

enum Batches {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<BufReader<File>>),
}

impl Batches {
    /// With all columns, or those at these indices.
    fn open(path: &Path, columns: Option<&[usize]>) -> Result<Self, ReadError> {
        let mut file = open_regular(path).map_err(ReadError::io(path))?;
        let mut magic = [0; 6];
        let is_file = file.read_exact(&mut magic).is_ok() && &magic == b"ARROW1";
        file.seek(SeekFrom::Start(0)).map_err(ReadError::io(path))?;
        let (input, columns) = (BufReader::new(file), columns.map(<[usize]>::to_vec));
        Ok(if is_file {
            Self::File(FileReader::try_new(input, columns).map_err(broken(path))?)
        } else {
            Self::Stream(StreamReader::try_new(input, columns).map_err(broken(path))?)
        })
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::File(file) => file.schema(),
            Self::Stream(stream) => RecordBatchReader::schema(stream),
        }
    }
}

/// The reader of Arrow IPC.
pub(super) struct Ipc;

impl Reader for Ipc {
    /// The schema, from the end of a file or the beginning of a stream.
    fn peek(&self, path: &Path, options: &ReadOptions) -> Peek {
        let schema = Batches::open(path, None).ok().and_then(|batches| declared(&batches.schema(), options));
        schema.map_or(Peek::Unknown, Peek::Certain)
    }

    fn read(
        &self,
        files: &[PathBuf],
        options: &ReadOptions,
        threads: &Threads,
        sink: &dyn Sink,
    ) -> Result<Schema, ReadError> {
        let shaper = Shaper::new(options);
        for (number, path) in (0u64..).zip(files) {
            let columns = wanted(path, options)?;
            let mut batches = 0;
            let schema = match Batches::open(path, columns.as_deref())? {
                Batches::File(file) => {
                    batches = file.num_batches();
                    let open = || match Batches::open(path, columns.as_deref())? {
                        Batches::File(file) => Ok(file),
                        Batches::Stream(_) => Err(ReadError::content(path, None, "it changed while it was read")),
                    };
                    each_unit(path, batches, threads, open, |file: &mut FileReader<_>, index| {
                        file.set_index(index).map_err(broken(path))?;
                        let batch = file.next().transpose().map_err(broken(path))?;
                        batch.map_or(Ok(()), |batch| emit(&shaper, number, index, path, &batch, sink))
                    })?;
                    file.schema()
                }
                Batches::Stream(stream) => {
                    let schema = RecordBatchReader::schema(&stream);
                    for (index, batch) in stream.enumerate() {
                        emit(&shaper, number, index, path, &batch.map_err(broken(path))?, sink)?;
                        batches += 1;
                    }
                    schema
                }
            };
            if batches == 0 {
                // Only the schema.
                shaper.emit(path, Batch::empty(schema), sink)?;
            }
        }
        shaper.finish(files.first(), "there is nothing in it")
    }

    fn read_part(&self, path: &Path, options: &ReadOptions, id: PartId, sink: &dyn Sink) -> Result<(), ReadError> {
        let (number, index) = (id.file(), id.unit());
        let batch = match Batches::open(path, wanted(path, options)?.as_deref())? {
            Batches::File(mut file) => {
                file.set_index(index).map_err(broken(path))?;
                file.next()
            }
            Batches::Stream(mut stream) => stream.nth(index),
        };
        let batch = batch.transpose().map_err(broken(path))?;
        batch.map_or(Ok(()), |batch| emit(&Shaper::new(options), number, index, path, &batch, sink))
    }
}

/// Indices of the selected columns and of those that the filter reads; `None` for all.
fn wanted(path: &Path, options: &ReadOptions) -> Result<Option<Vec<usize>>, ReadError> {
    let schema = Batches::open(path, None)?.schema();
    check_names(path, options, &schema)?;
    let Some(columns) = &options.columns else { return Ok(None) };
    let names = || schema.fields().iter().map(|field| field.name());
    let mut wanted: Vec<&String> = columns.iter().collect();
    let tested = filtered(options, &schema);
    wanted.extend(tested.iter().flatten());
    let is_wanted = |name: &String| wanted.contains(&name);
    // An error in the filter is reported with all columns as candidates.
    let all = options.filter.is_some() && tested.is_none();
    Ok((!all).then(|| names().enumerate().filter(|(_, name)| is_wanted(name)).map(|(index, _)| index).collect()))
}

/// The columns that the filter reads.
fn filtered(options: &ReadOptions, schema: &ArrowSchema) -> Option<Vec<String>> {
    let plain =
        |field: &Arc<::arrow::datatypes::Field>| field.as_ref().clone().with_data_type(unpacked(field.data_type()));
    let plain = ArrowSchema::new(schema.fields().iter().map(plain).collect::<Vec<_>>());
    let checked = millrace_expr::parse(options.filter.as_ref()?).and_then(|expr| expr.check(&plain)).ok()?;
    Some(checked.columns().to_vec())
}

/// Emits a batch in parts of equal size: a small last part would cost as much as a full
/// one.
fn emit(
    shaper: &Shaper<'_>,
    number: u64,
    index: usize,
    path: &Path,
    batch: &RecordBatch,
    sink: &dyn Sink,
) -> Result<(), ReadError> {
    let rows = batch.num_rows();
    let size = rows.div_ceil(rows.div_ceil(shaper.options.part_rows.max(1)).max(1)).max(1);
    for (piece, start) in (0..rows.max(1)).step_by(size).enumerate() {
        let part = batch.slice(start, size.min(rows - start));
        let id = PartId::new(number, index, piece);
        shaper.emit_at(id, path, Batch::from(&part), sink)?;
    }
    Ok(())
}
