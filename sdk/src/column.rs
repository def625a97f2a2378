//! Columns as arrays of the type that a step computes with.

use arrow_array::{BooleanArray, Float64Array, Int64Array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use millrace_expr::Column;

/// Calls a macro with the Rust type of the values of a numeric column type.
macro_rules! with_number {
    ($data_type:expr, $call:ident, $otherwise:expr) => {
        match $data_type {
            DataType::Int8 => $call!(i8),
            DataType::Int16 => $call!(i16),
            DataType::Int32 => $call!(i32),
            DataType::Int64 => $call!(i64),
            DataType::UInt8 => $call!(u8),
            DataType::UInt16 => $call!(u16),
            DataType::UInt32 => $call!(u32),
            DataType::UInt64 => $call!(u64),
            DataType::Float32 => $call!(f32),
            DataType::Float64 => $call!(f64),
            _ => $otherwise,
        }
    };
}

/// A column of numbers or booleans as floats; `None` for anything else.
pub(crate) fn f64_array(column: &Column) -> Option<Float64Array> {
    macro_rules! floats {
        ($ty:ty) => {
            column.scalars::<$ty>()?.iter().map(|value| *value as f64).collect::<Vec<f64>>().into()
        };
    }
    let floats: ScalarBuffer<f64> = match column.data_type() {
        DataType::Float64 => column.scalars()?,
        DataType::Boolean => bits(&column.boolean()?, |bit| f64::from(u8::from(bit))),
        other => with_number!(other, floats, return None),
    };
    Float64Array::try_new(floats, column.nulls().cloned()).ok()
}

/// A column of integers or booleans as 64-bit integers; `None` for anything else.
pub(crate) fn i64_array(column: &Column) -> Option<Int64Array> {
    macro_rules! integers {
        ($ty:ty) => {
            column.scalars::<$ty>()?.iter().map(|value| *value as i64).collect::<Vec<i64>>().into()
        };
    }
    let integers: ScalarBuffer<i64> = match column.data_type() {
        DataType::Int64 => column.scalars()?,
        DataType::Boolean => bits(&column.boolean()?, i64::from),
        // Not all values fit, or they are not integers.
        DataType::UInt64 | DataType::Float32 | DataType::Float64 => return None,
        other => with_number!(other, integers, return None),
    };
    Int64Array::try_new(integers, column.nulls().cloned()).ok()
}

fn bits<T>(array: &BooleanArray, value: impl Fn(bool) -> T) -> ScalarBuffer<T>
where
    T: arrow_buffer::ArrowNativeType,
{
    array.values().iter().map(value).collect::<Vec<T>>().into()
}
