//! Parquet: a row group is a part, or several of equal size when it is large.
//!
//! Columns that are not selected are not decoded, and row groups that the filter rules out by
//! their statistics are not read. In the others the columns of the filter are decoded first,
//! then only the rows that it keeps. Without a filter the columns of a row group are decoded
//! one by one, by the free threads ([`RowGroup`]).

mod error;
mod row_group;
mod shared_file;
mod statistics;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ::arrow::datatypes::{Field as ArrowField, Fields, Schema as ArrowSchema, SchemaRef};
use ::arrow::error::ArrowError;
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter,
};
use millrace_expr::{Column, ExprError};
use millrace_threads::{Threads, lock};
use millrace_types::Schema;

use super::columnar::{check_names, declared, each_unit};
use super::error::ReadError;
use super::options::ReadOptions;
use super::part_id::PartId;
use super::predicate::{self, Batch};
use super::reader::{Peek, Reader};
use super::shaper::{self, Kept, Shaper};
use super::sink::Sink;
use error::{begins, broken, broken_in, wrong_row_count};
use millrace_platform::open_regular;
use row_group::{RowGroup, Share, Wanted};
use shared_file::SharedFile;
use statistics::ruled_out;

/// The reader of Parquet.
pub(super) struct Parquet;

impl Reader for Parquet {
    /// The schema, from the end of the file.
    fn peek(&self, path: &Path, options: &ReadOptions) -> Peek {
        let probe = open_regular(path).ok().and_then(|file| ParquetRecordBatchReaderBuilder::try_new(file).ok());
        let schema = probe.and_then(|probe| declared(probe.schema(), options));
        schema.map_or(Peek::Unknown, Peek::Certain)
    }

    fn read(
        &self,
        files: &[PathBuf],
        options: &ReadOptions,
        threads: &Threads,
        sink: &dyn Sink,
    ) -> Result<Schema, ReadError> {
        // The filter is applied by the reader: the shaper must not ask for its columns again.
        let after = ReadOptions { filter: None, ..options.clone() };
        let shaper = Shaper::new(&after);
        for (number, path) in (0u64..).zip(files) {
            read_file(number, path, options, threads, &shaper, sink)?;
        }
        shaper.finish(files.first(), "there is no row group")
    }

    fn read_part(&self, path: &Path, options: &ReadOptions, id: PartId, sink: &dyn Sink) -> Result<(), ReadError> {
        let after = ReadOptions { filter: None, ..options.clone() };
        let shaper = Shaper::new(&after);
        let groups = groups(id.file(), path, options, &shaper, sink)?;
        let is_there = id.unit() < groups.meta.metadata().num_row_groups();
        if is_there { groups.one(id.unit(), &Threads::new(1)) } else { Ok(()) }
    }
}

/// Values that one thread reads sooner than it gets help.
const ALONE: usize = 1 << 14;

/// What all row groups of a file share.
struct Groups<'a> {
    number: u64,
    path: &'a Path,
    options: &'a ReadOptions,
    file: SharedFile,
    meta: ArrowReaderMetadata,
    condition: Option<millrace_expr::Checked>,
    /// Places of the wanted columns.
    roots: Vec<usize>,
    shaper: &'a Shaper<'a>,
    sink: &'a dyn Sink,
}

fn read_file(
    number: u64,
    path: &Path,
    options: &ReadOptions,
    threads: &Threads,
    shaper: &Shaper<'_>,
    sink: &dyn Sink,
) -> Result<(), ReadError> {
    let groups = groups(number, path, options, shaper, sink)?;
    groups.all(threads)?;
    if !shaper.is_known() {
        // Nothing was kept: the schema alone.
        let fields: Vec<_> = groups.roots.iter().map(|index| groups.meta.schema().field(*index).clone()).collect();
        shaper.emit(path, Batch::empty(Arc::new(ArrowSchema::new(fields))), sink)?;
    }
    Ok(())
}

fn groups<'a>(
    number: u64,
    path: &'a Path,
    options: &'a ReadOptions,
    shaper: &'a Shaper<'a>,
    sink: &'a dyn Sink,
) -> Result<Groups<'a>, ReadError> {
    let file = open_regular(path).and_then(SharedFile::new).map_err(ReadError::io(path))?;
    let meta = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(|error| {
        let what = "this is no Parquet file: it does not begin with `PAR1`";
        if begins(path) { broken(path, &error) } else { ReadError::content(path, None, what) }
    })?;
    let schema = meta.schema().clone();
    let condition = condition(path, options, &schema)?;
    check_names(path, options, &schema)?;
    let wanted = |name: &str| options.columns.as_ref().is_none_or(|columns| columns.iter().any(|known| known == name));
    let roots: Vec<usize> =
        schema.fields().iter().enumerate().filter(|(_, field)| wanted(field.name())).map(|(i, _)| i).collect();
    Ok(Groups { number, path, options, file, meta, condition, roots, shaper, sink })
}

impl Groups<'_> {
    /// Reads all row groups, each by whichever thread is free.
    fn all(&self, threads: &Threads) -> Result<(), ReadError> {
        let count = self.meta.metadata().num_row_groups();
        each_unit(self.path, count, threads, || Ok(()), |(), group| self.one(group, threads))
    }

    fn one(&self, group: usize, threads: &Threads) -> Result<(), ReadError> {
        let Self { path, options, meta, .. } = self;
        let schema = meta.schema();
        if let Some(text) = &options.filter
            && options.types.is_empty()
            && ruled_out(text, meta.metadata().row_group(group), schema)
        {
            return Ok(());
        }
        // Parts of one size: a last one of few rows would cost as much as a whole one.
        let rows = usize::try_from(meta.metadata().row_group(group).num_rows()).unwrap_or(usize::MAX);
        let batch = rows.max(1).div_ceil(rows.max(1).div_ceil(options.part_rows.max(1)));
        if self.condition.is_none() && self.roots.len() > 1 && rows.saturating_mul(self.roots.len()) >= ALONE {
            return self.by_columns(group, rows, batch, threads);
        }
        let mut builder = self.reader(group, batch, self.roots.iter().copied());
        // What the reader says of a mistake in the condition is not all that is known of it.
        let wrong: Arc<Mutex<Option<ExprError>>> = Arc::default();
        let wrong_where = || {
            let error = lock(&wrong).take()?;
            Some(ReadError::Filter { path: path.to_path_buf(), error })
        };
        if let Some(condition) = self.condition.clone() {
            let roots = condition.columns().iter().filter_map(|name| schema.index_of(name).ok()).collect::<Vec<_>>();
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
            let options = (*options).clone();
            let wrong = wrong.clone();
            let test = ArrowPredicateFn::new(mask, move |batch| {
                let unpack = |name: &String| -> Result<Column, ArrowError> {
                    let array = batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(name.clone()))?;
                    let array = ::arrow::compute::cast(array, &predicate::wanted(&options, name, array.data_type()))?;
                    Column::try_from(&*array).map_err(|error| ArrowError::SchemaError(error.to_string()))
                };
                let inputs = condition.columns().iter().map(unpack).collect::<Result<Vec<_>, _>>()?;
                condition.mask(&inputs, batch.num_rows()).map_err(|error| {
                    let message = error.to_string();
                    *lock(&wrong) = Some(error);
                    ArrowError::ComputeError(message)
                })
            });
            builder = builder.with_row_filter(RowFilter::new(vec![Box::new(test)]));
        }
        let batches = builder.build().map_err(|error| wrong_where().unwrap_or_else(|| broken(path, &error)))?;
        let mut read = 0;
        for (piece, batch) in batches.enumerate() {
            let batch = Batch::from(
                &batch.map_err(|error| wrong_where().unwrap_or_else(|| broken_in(path, group, None, &error)))?,
            );
            read += batch.rows;
            if read > rows {
                return Err(wrong_row_count(path));
            }
            self.shaper.emit_at(PartId::new(self.number, group, piece), path, batch, self.sink)?;
        }
        // The number of rows that a filter keeps is not known in advance.
        if read == rows || self.condition.is_some() { Ok(()) } else { Err(wrong_row_count(path)) }
    }

    /// Reads a row group of so many rows in pieces of one size, column by column.
    fn by_columns(&self, group: usize, rows: usize, batch: usize, threads: &Threads) -> Result<(), ReadError> {
        let schema = self.meta.schema();
        let plain = |root: &usize| {
            let field = schema.field(*root);
            ArrowField::new(field.name(), predicate::wanted(self.options, field.name(), field.data_type()), true)
        };
        let plain: Vec<ArrowField> = self.roots.iter().map(plain).collect();
        let fields = plain.into();
        let kept = self.shaper.kept(self.path, &fields, self.sink)?;
        let wanted = shaper::schema(&kept);
        let mut kept = kept.into_iter();
        let share =
            |columns: std::ops::Range<usize>| self.share(group, batch, &fields, kept.by_ref().take(columns.len()));
        let shares = row_group::shares(wanted.fields.len()).map(share).collect::<Result<_, _>>()?;
        let rows = (0..rows).step_by(batch).map(|first| batch.min(rows - first)).collect();
        RowGroup::new(self.path, group, rows, shares)
            .read(threads, |piece, rows| self.sink.begin(PartId::new(self.number, group, piece), &wanted, rows))
    }

    /// Will read some columns of a row group.
    fn reader(
        &self,
        group: usize,
        batch: usize,
        roots: impl IntoIterator<Item = usize>,
    ) -> ParquetRecordBatchReaderBuilder<SharedFile> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.meta.clone());
        let projection = ProjectionMask::roots(builder.parquet_schema(), roots);
        builder.with_row_groups(vec![group]).with_projection(projection).with_batch_size(batch)
    }

    fn share(
        &self,
        group: usize,
        batch: usize,
        fields: &Fields,
        kept: impl Iterator<Item = Kept>,
    ) -> Result<Share, ReadError> {
        let kept: Vec<Kept> = kept.collect();
        let roots = || kept.iter().map(|kept| self.roots[kept.place]);
        let reader = self.reader(group, batch, roots()).build().map_err(|error| broken(self.path, &error))?;
        // A reader has them in the order of the file.
        let mut sorted: Vec<usize> = roots().collect();
        sorted.sort_unstable();
        let wanted = |kept: Kept| Wanted {
            place: sorted.partition_point(|root| *root < self.roots[kept.place]),
            plain: fields[kept.place].data_type().clone(),
            kept,
        };
        Ok(Share { columns: kept.into_iter().map(wanted).collect(), reader })
    }
}

fn condition(
    path: &Path,
    options: &ReadOptions,
    schema: &SchemaRef,
) -> Result<Option<millrace_expr::Checked>, ReadError> {
    let Some(text) = &options.filter else { return Ok(None) };
    let plain: Vec<ArrowField> = schema
        .fields()
        .iter()
        .map(|field| ArrowField::new(field.name(), predicate::wanted(options, field.name(), field.data_type()), true))
        .collect();
    let checked = millrace_expr::parse(text).and_then(|expr| expr.check(&ArrowSchema::new(plain)));
    checked.map(Some).map_err(|error| ReadError::Filter { path: path.to_owned(), error })
}
