//! A column as its Arrow buffers, of any type.
//!
//! `dyn Array` supports all that Arrow can do with each of its types, and a component that uses
//! one links all of that. A column has only a type and buffers; code that needs values asks for
//! an array of one type, which costs no copy.

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, PrimitiveArray, StringArray, make_array,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};

/// The values of a column.
#[derive(Debug, Clone)]
pub enum Values {
    /// One bit per row.
    Bits(BooleanBuffer),
    /// The same number of bytes for each row.
    Fixed(Buffer),
    /// Bytes between two offsets.
    Variable(OffsetBuffer<i32>, Buffer),
}

/// A column of one part.
#[derive(Debug, Clone)]
pub struct Column {
    data_type: DataType,
    len: usize,
    nulls: Option<NullBuffer>,
    values: Values,
}

/// The size in bytes of one value of a fixed-width type.
pub(crate) fn width(data_type: &DataType) -> Option<usize> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => 1,
        DataType::Int16 | DataType::UInt16 => 2,
        DataType::Int32 | DataType::UInt32 | DataType::Float32 | DataType::Date32 => 4,
        DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Timestamp(..) => 8,
        _ => return None,
    })
}

impl Column {
    /// A column from its buffers.
    ///
    /// Returns `None` when they do not fit together, or a column cannot have the type.
    pub fn new(data_type: DataType, len: usize, nulls: Option<NullBuffer>, values: Values) -> Option<Self> {
        let fits = match (&data_type, &values) {
            (DataType::Boolean, Values::Bits(bits)) => bits.len() == len,
            (DataType::Utf8 | DataType::Binary, Values::Variable(offsets, _)) => offsets.len() == len + 1,
            (fixed, Values::Fixed(bytes)) => width(fixed).is_some_and(|width| bytes.len() == len * width),
            _ => false,
        };
        let fits = fits && nulls.as_ref().is_none_or(|nulls| nulls.len() == len);
        fits.then(|| Self { data_type, len, nulls: nulls.filter(|nulls| nulls.null_count() > 0), values })
    }

    /// The type.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which rows have a value; `None` when all have one.
    pub fn nulls(&self) -> Option<&NullBuffer> {
        self.nulls.as_ref()
    }

    /// The number of rows without a value.
    pub fn null_count(&self) -> usize {
        self.nulls.as_ref().map_or(0, NullBuffer::null_count)
    }

    /// Whether a row has a value.
    pub fn is_valid(&self, row: usize) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }

    /// The values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The values of a fixed-width type, contiguous in memory.
    ///
    /// `None` when a value of `T` has another size than the type.
    pub fn scalars<T: ArrowNativeType>(&self) -> Option<ScalarBuffer<T>> {
        match (&self.values, width(&self.data_type)) {
            (Values::Fixed(bytes), Some(width)) if width == size_of::<T>() => {
                let aligned = bytes.as_ptr().align_offset(align_of::<T>()) == 0;
                let bytes = if aligned { bytes.clone() } else { Buffer::from(bytes.as_slice()) };
                Some(ScalarBuffer::new(bytes, 0, self.len))
            }
            _ => None,
        }
    }

    /// A boolean column as an array.
    pub fn boolean(&self) -> Option<BooleanArray> {
        match &self.values {
            Values::Bits(bits) => Some(BooleanArray::new(bits.clone(), self.nulls.clone())),
            _ => None,
        }
    }

    /// A column of text as an array. `None` when it has another type, or is not valid text.
    pub fn text(&self) -> Option<StringArray> {
        match (&self.data_type, &self.values) {
            (DataType::Utf8, Values::Variable(offsets, values)) => {
                StringArray::try_new(offsets.clone(), values.clone(), self.nulls.clone()).ok()
            }
            _ => None,
        }
    }

    /// A column of one primitive type as an array.
    pub fn primitive<T: ArrowPrimitiveType>(&self) -> Option<PrimitiveArray<T>> {
        if T::DATA_TYPE != self.data_type {
            return None;
        }
        Some(PrimitiveArray::new(self.scalars::<T::Native>()?, self.nulls.clone()))
    }

    /// Rows `from..from + len`, without a copy.
    #[must_use]
    pub fn slice(&self, from: usize, len: usize) -> Self {
        let values = match &self.values {
            Values::Bits(bits) => Values::Bits(bits.slice(from, len)),
            Values::Fixed(bytes) => {
                let width = bytes.len().checked_div(self.len).unwrap_or(0);
                Values::Fixed(bytes.slice_with_length(from * width, len * width))
            }
            Values::Variable(offsets, bytes) => Values::Variable(offsets.slice(from, len), bytes.clone()),
        };
        let nulls = self.nulls.as_ref().map(|nulls| nulls.slice(from, len));
        Self { data_type: self.data_type.clone(), len, nulls: nulls.filter(|nulls| nulls.null_count() > 0), values }
    }
}

impl Column {
    /// The rows whose bit is set.
    #[must_use]
    pub fn filter(&self, mask: &BooleanBuffer) -> Self {
        let bits = |bits: &BooleanBuffer| mask.set_indices().map(|row| bits.value(row)).collect::<BooleanBuffer>();
        let values = match &self.values {
            Values::Bits(values) => Values::Bits(bits(values)),
            Values::Fixed(bytes) => {
                let width = bytes.len().checked_div(self.len).unwrap_or(0);
                let mut kept = Vec::with_capacity(mask.count_set_bits() * width);
                for (from, to) in mask.set_slices() {
                    kept.extend_from_slice(&bytes[from * width..to * width]);
                }
                Values::Fixed(Buffer::from_vec(kept))
            }
            Values::Variable(offsets, bytes) => {
                let mut ends = Vec::with_capacity(mask.count_set_bits() + 1);
                let mut kept = Vec::new();
                ends.push(0);
                for row in mask.set_indices() {
                    kept.extend_from_slice(&bytes[offsets[row] as usize..offsets[row + 1] as usize]);
                    // Not longer than the column that it comes from.
                    ends.push(kept.len() as i32);
                }
                Values::Variable(OffsetBuffer::new(ends.into()), Buffer::from_vec(kept))
            }
        };
        let nulls = self.nulls.as_ref().map(|nulls| NullBuffer::new(bits(nulls.inner())));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        Self { data_type: self.data_type.clone(), len: mask.count_set_bits(), nulls, values }
    }
}

impl<T: ArrowPrimitiveType> From<PrimitiveArray<T>> for Column {
    fn from(array: PrimitiveArray<T>) -> Self {
        let len = array.len();
        let (data_type, values, nulls) = array.into_parts();
        Self { data_type, len, nulls, values: Values::Fixed(values.into_inner()) }
    }
}

impl From<BooleanArray> for Column {
    fn from(array: BooleanArray) -> Self {
        let (values, nulls) = array.into_parts();
        Self { data_type: DataType::Boolean, len: values.len(), nulls, values: Values::Bits(values) }
    }
}

impl From<StringArray> for Column {
    fn from(array: StringArray) -> Self {
        let len = array.len();
        let (offsets, values, nulls) = array.into_parts();
        Self { data_type: DataType::Utf8, len, nulls, values: Values::Variable(offsets, values) }
    }
}

impl From<BinaryArray> for Column {
    fn from(array: BinaryArray) -> Self {
        let len = array.len();
        let (offsets, values, nulls) = array.into_parts();
        Self { data_type: DataType::Binary, len, nulls, values: Values::Variable(offsets, values) }
    }
}

impl From<Vec<i64>> for Column {
    fn from(values: Vec<i64>) -> Self {
        PrimitiveArray::<arrow_array::types::Int64Type>::from(values).into()
    }
}

impl From<Vec<f64>> for Column {
    fn from(values: Vec<f64>) -> Self {
        PrimitiveArray::<arrow_array::types::Float64Type>::from(values).into()
    }
}

/// A type that a column cannot have, or an array that is not consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnTypeError(pub DataType);

impl std::fmt::Display for ColumnTypeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a column cannot be of type {}", self.0)
    }
}

impl std::error::Error for ColumnTypeError {}

/// Converts any array whose type a column can have. For the host and for tests: it supports
/// every Arrow type.
impl TryFrom<&dyn Array> for Column {
    type Error = ColumnTypeError;

    fn try_from(array: &dyn Array) -> Result<Self, ColumnTypeError> {
        let unfit = || ColumnTypeError(array.data_type().clone());
        let data = array.to_data();
        let (len, from) = (data.len(), data.offset());
        let buffer = |index: usize| data.buffers().get(index).cloned().ok_or_else(unfit);
        let values = match array.data_type() {
            DataType::Boolean => Values::Bits(BooleanBuffer::new(buffer(0)?, from, len)),
            DataType::Utf8 | DataType::Binary => {
                let offsets = if len == 0 {
                    OffsetBuffer::new_empty()
                } else {
                    OffsetBuffer::new(ScalarBuffer::new(buffer(0)?, from, len + 1))
                };
                Values::Variable(offsets, buffer(1)?)
            }
            fixed => {
                let width = width(fixed).ok_or_else(unfit)?;
                Values::Fixed(buffer(0)?.slice_with_length(from * width, len * width))
            }
        };
        Self::new(array.data_type().clone(), len, array.nulls().cloned(), values).ok_or_else(unfit)
    }
}

/// For the host and for tests: it supports every Arrow type.
impl TryFrom<Column> for ArrayRef {
    type Error = ArrowError;

    fn try_from(column: Column) -> Result<Self, ArrowError> {
        let builder = ArrayData::builder(column.data_type).len(column.len).nulls(column.nulls);
        let builder = match column.values {
            Values::Bits(bits) => builder.add_buffer(bits.sliced()),
            Values::Fixed(bytes) => builder.add_buffer(bytes),
            Values::Variable(offsets, bytes) => builder.add_buffer(offsets.into_inner().into_inner()).add_buffer(bytes),
        };
        builder.align_buffers(true).build().map(make_array)
    }
}
