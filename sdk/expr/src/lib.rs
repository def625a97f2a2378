//! SQL-like expressions over Arrow columns: `where` of a source and of
//! `std:filter`, `columns` of `std:derive`.
//!
//! ```
//! use arrow_array::{BooleanArray, Int64Array};
//! use arrow_schema::{DataType, Field, Schema};
//!
//! let schema = Schema::new(vec![Field::new("tenure", DataType::Int64, true)]);
//! let expr = millrace_expr::parse("tenure > 12 or tenure is null")?.check(&schema)?;
//! let tenure = Int64Array::from(vec![Some(5), Some(24), None]);
//! let kept = expr.mask(&[tenure.into()], 3)?;
//! assert_eq!(kept, BooleanArray::from(vec![false, true, true]));
//! # Ok::<(), millrace_expr::ExprError>(())
//! ```
//!
//! | | |
//! | --- | --- |
//! | literals | `1`, `2.5`, `1e6`, `'text'`, `true`, `false`, `null` |
//! | columns | `tenure`, `"any name"` |
//! | arithmetic | `+ - * / %`; `/` is always a float; integer overflow is an error |
//! | comparison | `= == != <> < <= > >=`, `in (…)`, `between … and …`, `like 'a%_'`, `is [not] null` |
//! | logic | `and`, `or`, `not`, with nulls as in SQL |
//! | choice | `if(c, a, b)`, `case when c then a else b end`, `coalesce(a, b)`, `nullif(a, b)` |
//! | numbers | `abs ceil floor round sqrt exp ln log10 log2 log1p expm1 pow sign least greatest is_nan`; `div(a, b)` of integers, rounded down |
//! | text | `lower upper trim length concat substr starts_with ends_with contains replace`; `bucket(text, n)`: its FNV-1a hash modulo `n` |
//! | time | `year month day hour minute second weekday epoch`, in UTC whatever the zone |
//! | types | `cast(x as int64)`: boolean, int64, float64, utf8, date32, timestamp |
//!
//! Evaluation is from left to right: a value that has no result is an error only in rows where it
//! is used. `if(n > 0, bucket(t, n), 0)` and `n > 0 and bucket(t, n) = 3` are therefore safe.
//!
//! A computed column is boolean, int64, float64, utf8, date32 or a timestamp in microseconds.
//! Numeric functions come from [`math`] and `libm` on every platform, not from the system: a
//! guest and the host agree to the bit.

mod bounds;
mod check;
mod column;
mod error;
mod eval;
mod hash;
mod loops;
pub mod math;
mod parse;
mod pieces;
mod text;
mod time;
mod token;

pub use bounds::Bound;
pub use check::{Checked, Type};
pub use column::{Column, ColumnTypeError, Values};
pub use error::ExprError;
pub use parse::{Expr, parse};
pub use pieces::Pieces;
pub use time::{parse_date, parse_timestamp};

#[cfg(test)]
mod tests;
