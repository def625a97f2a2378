//! Row groups that a filter rules out by their statistics.

use ::arrow::datatypes::SchemaRef;
use ::parquet::file::metadata::RowGroupMetaData;
use ::parquet::file::statistics::Statistics;

/// Whether no row of the group can pass the filter, by the least and greatest values of its
/// columns. False when in doubt.
pub(super) fn ruled_out(text: &str, group: &RowGroupMetaData, schema: &SchemaRef) -> bool {
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
            return false; // these are ordered as signed integers
        }
        let small = |value: &i32| if unsigned { f64::from(value.cast_unsigned()) } else { f64::from(*value) };
        // Used below only where a float holds every such integer.
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
