//! Arrow arrays to buffers and back.
//!
//! Type by type and not through `ArrayData`, which knows every type of Arrow and
//! would make each component a megabyte larger.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Float64Array, Int64Array, PrimitiveArray,
    StringArray,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, TimeUnit};

use crate::{Error, Result};

/// A column as it crosses: see `column-data` in `wit/step.wit`.
pub(crate) struct Buffers {
    pub(crate) len: u64,
    pub(crate) null_count: u64,
    pub(crate) validity: Option<Vec<u8>>,
    pub(crate) offsets: Option<Vec<u8>>,
    pub(crate) values: Vec<u8>,
}

/// Bytes as values, without a copy where they are aligned, as they are when an
/// allocator made them.
fn scalars<T: ArrowNativeType>(bytes: Vec<u8>, len: usize) -> Result<ScalarBuffer<T>> {
    if bytes.len() != len * size_of::<T>() {
        return Err(Error::new("a buffer has another size than its column"));
    }
    let aligned = bytes.as_ptr().align_offset(align_of::<T>()) == 0;
    let buffer = if aligned { Buffer::from_vec(bytes) } else { Buffer::from(bytes.as_slice()) };
    Ok(ScalarBuffer::new(buffer, 0, len))
}

fn bits(bytes: Vec<u8>, len: usize) -> Result<BooleanBuffer> {
    if bytes.len() != len.div_ceil(8) {
        return Err(Error::new("a buffer has another size than its column"));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bytes), 0, len))
}

/// Calls a macro with the Arrow type of a type of fixed width.
macro_rules! with_primitive {
    ($data_type:expr, $call:ident, $otherwise:expr) => {
        match $data_type {
            DataType::Int8 => $call!(Int8Type),
            DataType::Int16 => $call!(Int16Type),
            DataType::Int32 => $call!(Int32Type),
            DataType::Int64 => $call!(Int64Type),
            DataType::UInt8 => $call!(UInt8Type),
            DataType::UInt16 => $call!(UInt16Type),
            DataType::UInt32 => $call!(UInt32Type),
            DataType::UInt64 => $call!(UInt64Type),
            DataType::Float32 => $call!(Float32Type),
            DataType::Float64 => $call!(Float64Type),
            DataType::Date32 => $call!(Date32Type),
            DataType::Timestamp(TimeUnit::Second, _) => $call!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $call!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $call!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $call!(TimestampNanosecondType),
            _ => $otherwise,
        }
    };
}

fn nulls(validity: Option<Vec<u8>>, null_count: u64, len: usize) -> Result<Option<NullBuffer>> {
    match validity.filter(|_| null_count > 0) {
        Some(validity) => Ok(Some(NullBuffer::new(bits(validity, len)?))),
        None => Ok(None),
    }
}

fn offsets(offsets: Option<Vec<u8>>, len: usize) -> Result<OffsetBuffer<i32>> {
    let offsets = offsets.ok_or_else(|| Error::new("a column of text without offsets"))?;
    Ok(OffsetBuffer::new(scalars(offsets, len + 1)?))
}

/// A boolean column that the host checked.
pub(crate) fn bool_array(buffers: Buffers) -> Result<BooleanArray> {
    let Buffers { len, null_count, validity, values, .. } = buffers;
    let nulls = nulls(validity, null_count, len as usize)?;
    Ok(BooleanArray::new(bits(values, len as usize)?, nulls))
}

/// A column of text that the host checked.
pub(crate) fn text_array(buffers: Buffers) -> Result<StringArray> {
    let len = buffers.len as usize;
    let nulls = nulls(buffers.validity, buffers.null_count, len)?;
    Ok(StringArray::try_new(offsets(buffers.offsets, len)?, Buffer::from_vec(buffers.values), nulls)?)
}

/// Calls a macro with the type of the values of a number.
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
pub(crate) fn f64_array(data_type: &DataType, buffers: Buffers) -> Result<Option<Float64Array>> {
    let Buffers { len, null_count, validity, values, .. } = buffers;
    let len = len as usize;
    let nulls = nulls(validity, null_count, len)?;
    macro_rules! floats {
        ($ty:ty) => {
            scalars::<$ty>(values, len)?.iter().map(|value| *value as f64).collect::<Vec<f64>>().into()
        };
    }
    let floats: ScalarBuffer<f64> = match data_type {
        DataType::Float64 => scalars(values, len)?,
        DataType::Boolean => bits(values, len)?.iter().map(|b| f64::from(u8::from(b))).collect::<Vec<f64>>().into(),
        other => with_number!(other, floats, return Ok(None)),
    };
    Ok(Some(Float64Array::try_new(floats, nulls)?))
}

/// A column of integers or booleans as 64-bit ones; `None` for anything else.
pub(crate) fn i64_array(data_type: &DataType, buffers: Buffers) -> Result<Option<Int64Array>> {
    let Buffers { len, null_count, validity, values, .. } = buffers;
    let len = len as usize;
    let nulls = nulls(validity, null_count, len)?;
    macro_rules! integers {
        ($ty:ty) => {
            scalars::<$ty>(values, len)?.iter().map(|value| *value as i64).collect::<Vec<i64>>().into()
        };
    }
    let integers: ScalarBuffer<i64> = match data_type {
        DataType::Int64 => scalars(values, len)?,
        DataType::Boolean => bits(values, len)?.iter().map(i64::from).collect::<Vec<i64>>().into(),
        // They do not all fit, or are no integers.
        DataType::UInt64 | DataType::Float32 | DataType::Float64 => return Ok(None),
        other => with_number!(other, integers, return Ok(None)),
    };
    Ok(Some(Int64Array::try_new(integers, nulls)?))
}

/// Takes buffers that the host checked.
pub(crate) fn from_buffers(data_type: &DataType, buffers: Buffers) -> Result<ArrayRef> {
    macro_rules! primitive {
        ($ty:ty) => {{
            let len = buffers.len as usize;
            let nulls = nulls(buffers.validity, buffers.null_count, len)?;
            let values = scalars::<<$ty as ArrowPrimitiveType>::Native>(buffers.values, len)?;
            Arc::new(PrimitiveArray::<$ty>::try_new(values, nulls)?.with_data_type(data_type.clone()))
        }};
    }
    Ok(match data_type {
        DataType::Boolean => Arc::new(bool_array(buffers)?),
        DataType::Utf8 => Arc::new(text_array(buffers)?),
        DataType::Binary => {
            let len = buffers.len as usize;
            let nulls = nulls(buffers.validity, buffers.null_count, len)?;
            Arc::new(BinaryArray::try_new(offsets(buffers.offsets, len)?, Buffer::from_vec(buffers.values), nulls)?)
        }
        other => with_primitive!(other, primitive, return Err(unsupported(other))),
    })
}

fn unsupported(data_type: &DataType) -> Error {
    Error::new(format!("a column cannot be of type {}", crate::plan::type_name(data_type)))
}

fn packed(bits: &BooleanBuffer) -> Vec<u8> {
    bits.sliced().as_slice()[..bits.len().div_ceil(8)].to_vec()
}

/// Offsets from 0 and the values between the first and the last.
fn variable(offsets: &OffsetBuffer<i32>, values: &[u8]) -> (Option<Vec<u8>>, Vec<u8>) {
    let first = offsets[0];
    let last = offsets[offsets.len() - 1];
    let rebased = offsets.iter().flat_map(|end| (end - first).to_le_bytes()).collect();
    (Some(rebased), values[first as usize..last as usize].to_vec())
}

/// Hands an array over.
pub(crate) fn to_buffers(array: &dyn Array) -> Result<Buffers> {
    macro_rules! primitive {
        ($ty:ty) => {
            (None, array.as_primitive::<$ty>().values().inner().as_slice().to_vec())
        };
    }
    let (offsets, values) = match array.data_type() {
        DataType::Boolean => (None, packed(array.as_boolean().values())),
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            variable(array.offsets(), array.values())
        }
        DataType::Binary => {
            let array = array.as_binary::<i32>();
            variable(array.offsets(), array.values())
        }
        other => with_primitive!(other, primitive, return Err(unsupported(other))),
    };
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    Ok(Buffers {
        len: array.len() as u64,
        null_count: nulls.map_or(0, |nulls| nulls.null_count() as u64),
        validity: nulls.map(|nulls| packed(nulls.inner())),
        offsets,
        values,
    })
}
