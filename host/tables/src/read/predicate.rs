//! The row filter of a source, and the conversion of types that tables do not have.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use ::arrow::array::{Array, ArrayRef, new_empty_array};
use ::arrow::compute::filter;
use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit};

use ::arrow::record_batch::RecordBatch;
use millrace_expr::Column;

use super::error::ReadError;
use super::options::ReadOptions;

/// A run of rows; it may have no columns.
pub(super) struct Batch {
    pub(super) rows: usize,
    pub(super) schema: SchemaRef,
    /// `None` for a column of which only the type is needed.
    pub(super) arrays: Vec<Option<ArrayRef>>,
}

impl Batch {
    /// A batch of at least one column.
    pub(super) fn new(schema: SchemaRef, arrays: Vec<ArrayRef>) -> Self {
        let rows = arrays.first().map_or(0, |array| array.len());
        Self { rows, schema, arrays: arrays.into_iter().map(Some).collect() }
    }

    /// A batch without rows.
    pub(super) fn empty(schema: SchemaRef) -> Self {
        let arrays = schema.fields().iter().map(|field| Some(new_empty_array(field.data_type()))).collect();
        Self { rows: 0, schema, arrays }
    }
}

impl From<&RecordBatch> for Batch {
    fn from(batch: &RecordBatch) -> Self {
        let arrays = batch.columns().iter().cloned().map(Some).collect();
        Self { rows: batch.num_rows(), schema: batch.schema(), arrays }
    }
}

/// The columns that the filter names; none if it cannot be parsed, which is reported when it is
/// applied.
pub(super) fn named(options: &ReadOptions) -> HashSet<String> {
    let parsed = options.filter.as_deref().and_then(|text| millrace_expr::parse(text).ok());
    parsed.map(|expr| expr.columns().into_iter().collect()).unwrap_or_default()
}

/// The type to which a type is converted: itself, or the nearest one that a table can have.
pub(super) fn unpacked(data_type: &ArrowType) -> ArrowType {
    match data_type {
        ArrowType::LargeUtf8 | ArrowType::Utf8View | ArrowType::Null => ArrowType::Utf8,
        ArrowType::LargeBinary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_) => ArrowType::Binary,
        ArrowType::Dictionary(_, values) => unpacked(values),
        ArrowType::Float16 => ArrowType::Float32,
        ArrowType::Decimal32(..) | ArrowType::Decimal64(..) | ArrowType::Decimal128(..) | ArrowType::Decimal256(..) => {
            ArrowType::Float64
        }
        ArrowType::Date64 => ArrowType::Timestamp(TimeUnit::Millisecond, None),
        other => other.clone(),
    }
}

/// The type of a column: the one given for it, or the one to which its own is converted.
pub(super) fn wanted(options: &ReadOptions, name: &str, data_type: &ArrowType) -> ArrowType {
    options.types.get(name).map_or_else(|| unpacked(data_type), crate::arrow_type)
}

/// Whether the digits of all decimals form an integer that a float holds: then no other decimal
/// of these digits has the same nearest float.
fn decimals_fit(array: &dyn Array) -> bool {
    use ::arrow::array::AsArray;
    use ::arrow::datatypes::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, i256};
    const MAX: i128 = 1 << 53;
    let fits = |value: i128| (-MAX..=MAX).contains(&value);
    match array.data_type() {
        ArrowType::Decimal32(..) => array.as_primitive::<Decimal32Type>().iter().flatten().all(|v| fits(v.into())),
        ArrowType::Decimal64(..) => array.as_primitive::<Decimal64Type>().iter().flatten().all(|v| fits(v.into())),
        ArrowType::Decimal128(..) => array.as_primitive::<Decimal128Type>().iter().flatten().all(fits),
        ArrowType::Decimal256(..) => {
            let small = |value: i256| value.to_i128().is_some_and(fits);
            array.as_primitive::<Decimal256Type>().iter().flatten().all(small)
        }
        _ => true,
    }
}

/// A column, converted to the type as which it is read.
pub(super) fn plain_array(path: &Path, name: &str, array: ArrayRef, to: &ArrowType) -> Result<ArrayRef, ReadError> {
    if *to == ArrowType::Float64 && !decimals_fit(&array) {
        let message =
            format!("column `{name}` has decimals with more digits than a float holds; leave it out with `columns`");
        return Err(ReadError::content(path, None, message));
    }
    if array.data_type() == to {
        return Ok(array);
    }
    let strict = ::arrow::compute::CastOptions { safe: false, ..Default::default() };
    // Text that is not a number of the given type is an error, not a missing value.
    ::arrow::compute::cast_with_options(&array, to, &strict)
        .map_err(|error| ReadError::content(path, None, format!("column `{name}`: {error}")))
}

/// Converts the columns, to the types of the pipeline where given, and filters the rows.
pub(super) fn apply(
    path: &Path,
    options: &ReadOptions,
    Batch { rows, schema, arrays }: Batch,
) -> Result<Batch, ReadError> {
    let mut fields = Vec::with_capacity(arrays.len());
    let mut plain = Vec::with_capacity(arrays.len());
    for (field, array) in schema.fields().iter().zip(arrays) {
        let to = wanted(options, field.name(), field.data_type());
        plain.push(array.map(|array| plain_array(path, field.name(), array, &to)).transpose()?);
        fields.push(ArrowField::new(field.name(), to, true));
    }
    let schema = Arc::new(ArrowSchema::new(fields));
    let Some(text) = &options.filter else { return Ok(Batch { rows, schema, arrays: plain }) };
    let fail = |error| ReadError::Filter { path: path.to_owned(), error };
    let condition = millrace_expr::parse(text).and_then(|expr| expr.check(&schema)).map_err(fail)?;
    let inputs = condition.columns().iter().filter_map(|name| plain.get(schema.index_of(name).ok()?)?.as_ref());
    let inputs: Result<Vec<Column>, _> = inputs.map(|array| Column::try_from(&**array)).collect();
    let inputs = inputs.map_err(|error| ReadError::content(path, None, error.to_string()))?;
    let mask = condition.mask(&inputs, rows).map_err(fail)?;
    if mask.true_count() == rows {
        return Ok(Batch { rows, schema, arrays: plain });
    }
    let kept = |array: &Option<ArrayRef>| array.as_ref().map(|array| filter(array, &mask)).transpose();
    let kept = plain.iter().map(kept).collect::<Result<Vec<_>, _>>();
    let arrays = kept.map_err(|error| ReadError::content(path, None, error.to_string()))?;
    Ok(Batch { rows: mask.true_count(), schema, arrays })
}
