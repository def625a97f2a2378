//! Parquet: a row group is a part, or several of one size when it is large.
//!
//! Columns that nobody asked for are not decoded; row groups that the filter
//! rules out by their statistics are not read; of the others the columns of the
//! filter are decoded first, and of the rest only the rows that it keeps. Without a filter
//! the columns of a row group go one by one, by all threads that are free ([`RowGroup`]).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::arrow::datatypes::{Field as ArrowField, Fields, Schema as ArrowSchema, SchemaRef};
use ::arrow::error::ArrowError;
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter,
};
use ::parquet::file::metadata::RowGroupMetaData;
use ::parquet::file::statistics::Statistics;
use millrace_expr::{Column, ExprError};
use millrace_types::Schema;

use super::open::regular;
use super::predicate::Batch;
use super::row_group::{self, RowGroup, Share, Wanted};
use super::shaper::{self, Kept, Shaper};
use super::shared_file::SharedFile;
use super::{ReadError, ReadOptions, Sink, by_threads, place_of, predicate};
use crate::threads::Threads;

pub(super) fn read(
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

/// The schema, from the end of the file.
pub(super) fn peek(path: &Path, options: &ReadOptions) -> Option<Schema> {
    let probe = ParquetRecordBatchReaderBuilder::try_new(regular(path).ok()?).ok()?;
    super::unpacked(probe.schema(), options)
}

/// Values that one thread reads sooner than it gets help.
const ALONE: usize = 1 << 14;

/// What all row groups of a file share.
struct Groups<'a> {
    number: u64,
    path: &'a PathBuf,
    options: &'a ReadOptions,
    file: SharedFile,
    meta: ArrowReaderMetadata,
    condition: Option<millrace_expr::Checked>,
    /// Places of the wanted columns.
    roots: Vec<usize>,
    shaper: &'a Shaper<'a>,
    sink: &'a dyn Sink,
}

pub(super) fn broken(path: &Path, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::content(path, None, format!("not usable as Parquet: {}", plain(&error.to_string())))
}

/// What the reader says, without which of its parts says so.
fn plain(error: &str) -> String {
    let mut text = error;
    while let Some(rest) = ["Parquet argument error: ", "Parquet error: ", "External: ", "EOF: ", "Arrow: "]
        .iter()
        .find_map(|part| text.strip_prefix(part))
    {
        text = rest;
    }
    match text.strip_prefix("Disabled feature at compile time: ") {
        Some(codec) => format!("it is packed with {codec}; what can be unpacked is snappy, gzip and zstd"),
        None => text.to_owned(),
    }
}

/// What is wrong in a row group, and in which column, where that is known.
pub(super) fn broken_in(path: &Path, group: usize, column: Option<&str>, error: &dyn std::fmt::Display) -> ReadError {
    let column = column.map_or_else(String::new, |name| format!(", column `{name}`"));
    let error = plain(&error.to_string());
    ReadError::content(path, None, format!("not usable as Parquet: row group {group}{column}: {error}"))
}

/// Of a row group.
pub(super) fn unlike(path: &Path) -> ReadError {
    broken(path, &"a row group has not as many rows as its file says")
}

/// Whether a file begins as Parquet does.
fn begins(path: &Path) -> bool {
    let mut begin = [0; 4];
    let is_read = regular(path).is_ok_and(|mut file| file.read_exact(&mut begin).is_ok());
    is_read && matches!(&begin, b"PAR1" | b"PARE")
}

/// Reads one row group.
pub(super) fn read_one(
    number: u64,
    path: &PathBuf,
    options: &ReadOptions,
    group: usize,
    sink: &dyn Sink,
) -> Result<(), ReadError> {
    let after = ReadOptions { filter: None, ..options.clone() };
    let shaper = Shaper::new(&after);
    let groups = groups(number, path, options, &shaper, sink)?;
    if group < groups.meta.metadata().num_row_groups() { groups.one(group, &Threads::new(1)) } else { Ok(()) }
}

fn read_file(
    number: u64,
    path: &PathBuf,
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
    path: &'a PathBuf,
    options: &'a ReadOptions,
    shaper: &'a Shaper<'a>,
    sink: &'a dyn Sink,
) -> Result<Groups<'a>, ReadError> {
    let file = regular(path).and_then(SharedFile::new).map_err(ReadError::io(path))?;
    let meta = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(|error| {
        let what = "this is no Parquet file: it does not begin with `PAR1`";
        if begins(path) { broken(path, &error) } else { ReadError::content(path, None, what) }
    })?;
    let schema = meta.schema().clone();
    let condition = condition(path, options, &schema)?;
    super::check_names(path, options, &schema)?;
    let wanted = |name: &str| options.columns.as_ref().is_none_or(|columns| columns.iter().any(|known| known == name));
    let roots: Vec<usize> =
        schema.fields().iter().enumerate().filter(|(_, field)| wanted(field.name())).map(|(i, _)| i).collect();
    Ok(Groups { number, path, options, file, meta, condition, roots, shaper, sink })
}

impl Groups<'_> {
    /// Reads all row groups, each by whichever thread is free.
    fn all(&self, threads: &Threads) -> Result<(), ReadError> {
        let count = self.meta.metadata().num_row_groups();
        by_threads(self.path, count, threads, || Ok(()), |(), group| self.one(group, threads))
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
            let error = wrong.lock().unwrap_or_else(PoisonError::into_inner).take()?;
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
                    Column::try_from(&*array).map_err(ArrowError::SchemaError)
                };
                let inputs = condition.columns().iter().map(unpack).collect::<Result<Vec<_>, _>>()?;
                condition.mask(&inputs, batch.num_rows()).map_err(|error| {
                    let message = error.to_string();
                    *wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
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
                return Err(unlike(path));
            }
            self.shaper.emit_at(place_of(self.number, group, piece), path, batch, self.sink)?;
        }
        // How many a filter keeps nobody says before.
        if read == rows || self.condition.is_some() { Ok(()) } else { Err(unlike(path)) }
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
            .read(threads, |piece, rows| self.sink.begin(place_of(self.number, group, piece), &wanted, rows))
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

/// Whether no row of the group can pass, by the least and greatest values of
/// its columns. Says no when in doubt.
fn ruled_out(text: &str, group: &RowGroupMetaData, schema: &SchemaRef) -> bool {
    let Ok(expr) = millrace_expr::parse(text) else { return false };
    expr.bounds().into_iter().any(|bound| {
        let Ok(index) = schema.index_of(&bound.column) else { return false };
        let Some(leaf) =
            group.columns().iter().find(|c| c.column_path().parts() == [schema.field(index).name().clone()])
        else {
            return false;
        };
        let plain = schema.field(index).data_type();
        if !(plain.is_integer() || plain.is_floating()) {
            return false;
        }
        let Some(statistics) = leaf.statistics() else { return false };
        let unsigned = plain.is_unsigned_integer();
        if unsigned && statistics.is_min_max_deprecated() {
            return false; // in the order of signed ones
        }
        let small = |value: &i32| if unsigned { f64::from(value.cast_unsigned()) } else { f64::from(*value) };
        // Below, only where a float holds every such integer.
        let large = |value: &i64| if unsigned { value.cast_unsigned() as f64 } else { *value as f64 };
        let range = match statistics {
            Statistics::Int32(s) => s.min_opt().zip(s.max_opt()).map(|(a, b)| (small(a), small(b))),
            Statistics::Int64(s) => s.min_opt().zip(s.max_opt()).map(|(a, b)| (large(a), large(b))),
            Statistics::Float(s) => s.min_opt().zip(s.max_opt()).map(|(a, b)| (f64::from(*a), f64::from(*b))),
            Statistics::Double(s) => s.min_opt().zip(s.max_opt()).map(|(a, b)| (*a, *b)),
            _ => None,
        };
        range.is_some_and(|(least, greatest)| {
            const EXACT: f64 = 9_007_199_254_740_992.0;
            let exact = least.abs() < EXACT && greatest.abs() < EXACT && least <= greatest;
            exact && (greatest < bound.least || least > bound.greatest)
        })
    })
}
