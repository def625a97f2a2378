//! The row filter of a source, and the types that are unpacked on the way in.

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

/// A run of rows, of no columns too.
pub(super) struct Batch {
    pub(super) rows: usize,
    pub(super) schema: SchemaRef,
    /// None of a column of which nobody wants more than the type.
    pub(super) arrays: Vec<Option<ArrayRef>>,
}

impl Batch {
    /// Of columns, of which there is at least one.
    pub(super) fn new(schema: SchemaRef, arrays: Vec<ArrayRef>) -> Self {
        let rows = arrays.first().map_or(0, |array| array.len());
        Self { rows, schema, arrays: arrays.into_iter().map(Some).collect() }
    }

    /// Of no rows.
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

/// The columns that a filter names. Of one that cannot be read nothing is known; that is told
/// of when it is applied.
pub(super) fn named(options: &ReadOptions) -> HashSet<String> {
    let parsed = options.filter.as_deref().and_then(|text| millrace_expr::parse(text).ok());
    parsed.map(|expr| expr.columns().into_iter().collect()).unwrap_or_default()
}

/// What a type that does not cross is unpacked to.
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

/// The type of a column: the one that is given for it, or what its own is unpacked to.
pub(super) fn wanted(options: &ReadOptions, name: &str, data_type: &ArrowType) -> ArrowType {
    options.types.get(name).map_or_else(|| unpacked(data_type), crate::arrow_type)
}

/// Whether the digits of all decimals are an integer that a float holds: then the float
/// nearest to a decimal has no other that is as near.
fn decimals_fit(array: &dyn Array) -> bool {
    use ::arrow::array::AsArray;
    use ::arrow::datatypes::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, i256};
    const MOST: i128 = 1 << 53;
    let fits = |value: i128| (-MOST..=MOST).contains(&value);
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

/// A column as the type that it is read as.
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
    // Text that is no number of the given type is an error, and no missing value.
    ::arrow::compute::cast_with_options(&array, to, &strict)
        .map_err(|error| ReadError::content(path, None, format!("column `{name}`: {error}")))
}

/// Unpacks, applies the types of the pipeline, and filters.
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
