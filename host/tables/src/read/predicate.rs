//! The row filter of a source, and the types that are unpacked on the way in.

use std::path::Path;
use std::sync::Arc;

use ::arrow::array::{Array, ArrayRef};
use ::arrow::compute::{cast, filter};
use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit};

use millrace_expr::Column;

use super::{ReadError, ReadOptions};

pub(super) struct Batch {
    pub(super) rows: usize,
    pub(super) schema: SchemaRef,
    pub(super) arrays: Vec<ArrayRef>,
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
        ArrowType::Time32(_) => ArrowType::Int32,
        ArrowType::Time64(_) | ArrowType::Duration(_) => ArrowType::Int64,
        other => other.clone(),
    }
}

/// Unpacks, applies the types of the pipeline, and filters.
pub(super) fn apply(
    path: &Path,
    options: &ReadOptions,
    schema: &SchemaRef,
    arrays: Vec<ArrayRef>,
) -> Result<Batch, ReadError> {
    let mut fields = Vec::with_capacity(arrays.len());
    let mut plain = Vec::with_capacity(arrays.len());
    for (field, array) in schema.fields().iter().zip(arrays) {
        let wanted = options.types.get(field.name()).map(crate::arrow_type);
        let to = wanted.unwrap_or_else(|| unpacked(field.data_type()));
        let array = if *array.data_type() == to {
            array
        } else {
            let strict = ::arrow::compute::CastOptions { safe: false, ..Default::default() };
            ::arrow::compute::cast_with_options(&array, &to, &strict)
                .or_else(|_| cast(&array, &to))
                .map_err(|error| ReadError::content(path, None, format!("column `{}`: {error}", field.name())))?
        };
        fields.push(ArrowField::new(field.name(), to, true));
        plain.push(array);
    }
    let schema = Arc::new(ArrowSchema::new(fields));
    let rows = plain.first().map_or(0, |array| array.len());
    let Some(text) = &options.filter else { return Ok(Batch { rows, schema, arrays: plain }) };
    let fail = |error| ReadError::Filter { path: path.to_owned(), error };
    let condition = millrace_expr::parse(text).and_then(|expr| expr.check(&schema)).map_err(fail)?;
    let inputs = condition.columns().iter().filter_map(|name| plain.get(schema.index_of(name).ok()?));
    let inputs: Result<Vec<Column>, String> = inputs.map(|array| Column::try_from(&**array)).collect();
    let inputs = inputs.map_err(|error| ReadError::content(path, None, error))?;
    let mask = condition.mask(&inputs, rows).map_err(fail)?;
    if mask.true_count() == rows {
        return Ok(Batch { rows, schema, arrays: plain });
    }
    let kept = plain.iter().map(|array| filter(array, &mask)).collect::<Result<Vec<_>, _>>();
    let arrays = kept.map_err(|error| ReadError::content(path, None, error.to_string()))?;
    Ok(Batch { rows: mask.true_count(), schema, arrays })
}
