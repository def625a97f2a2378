//! A column as Arrow buffers, in one normal form.
//!
//! Normal form: no validity buffer when there are no nulls, offsets from 0, buffers of exactly
//! the needed size, unused bits of the last byte zero. So the digest depends on the content
//! alone, not on how a column was sliced or built.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema, TimeUnit as ArrowUnit};
use bytes::Bytes;
use millrace_types::{ColumnDigest, ColumnName, DataType, Field, Schema, TimeUnit};

/// A column that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// An Arrow type without a counterpart here.
    #[error("type {0} is not supported; leave it out with `columns`")]
    Type(String),
    /// Buffers that contradict each other.
    #[error("{0}")]
    Buffers(String),
}

/// A column of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnBytes {
    pub(crate) data_type: DataType,
    pub(crate) rows: usize,
    pub(crate) null_count: usize,
    pub(crate) validity: Option<Bytes>,
    pub(crate) offsets: Option<Bytes>,
    pub(crate) values: Bytes,
}

/// Some rows of a column, without a copy: what a guest receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The number of rows.
    pub rows: usize,
    /// The number of nulls among them.
    pub null_count: usize,
    /// A bit for each row, when there are nulls.
    pub validity: Option<Bytes>,
    /// `rows + 1` 32-bit integers, for types of variable size: relative to the first of them.
    pub offsets: Option<Bytes>,
    /// The values.
    pub values: Bytes,
}

impl Block {
    /// The size of its buffers, in bytes.
    pub fn bytes(&self) -> u64 {
        bytes_of(self.validity.as_ref(), self.offsets.as_ref(), &self.values)
    }
}

fn bytes_of(validity: Option<&Bytes>, offsets: Option<&Bytes>, values: &Bytes) -> u64 {
    let of = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
    (values.len() + of(validity) + of(offsets)) as u64
}

/// A column whose buffers are borrowed, for instance from the memory of a guest, and in normal
/// form; only bitmaps in which bits had to be cleared are copies.
#[derive(Debug, Clone)]
pub struct ColumnRef<'a> {
    pub(crate) data_type: DataType,
    pub(crate) rows: usize,
    pub(crate) null_count: usize,
    pub(crate) validity: Option<Cow<'a, [u8]>>,
    pub(crate) offsets: Option<&'a [u8]>,
    pub(crate) values: Cow<'a, [u8]>,
}

impl ColumnRef<'_> {
    /// The number of values, nulls included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The size of its buffers, in bytes.
    pub fn bytes(&self) -> u64 {
        let validity = self.validity.as_ref().map_or(0, |bytes| bytes.len());
        (self.values.len() + validity + self.offsets.map_or(0, <[u8]>::len)) as u64
    }

    /// An owned copy.
    pub fn to_column(&self) -> ColumnBytes {
        ColumnBytes {
            data_type: self.data_type.clone(),
            rows: self.rows,
            null_count: self.null_count,
            validity: self.validity.as_deref().map(Bytes::copy_from_slice),
            offsets: self.offsets.map(Bytes::copy_from_slice),
            values: Bytes::copy_from_slice(&self.values),
        }
    }

    /// The hasher of the column's digest, after type, rows and nulls. Then follow the three
    /// buffers, each after its length; an absent buffer has length 0.
    pub(crate) fn hasher(&self) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 column");
        let name = self.data_type.to_string();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&(self.rows as u64).to_le_bytes()).update(&(self.null_count as u64).to_le_bytes());
        hasher
    }
}

impl ColumnBytes {
    /// A column without rows.
    ///
    /// # Errors
    /// Never, for the types that exist.
    pub fn empty(data_type: &DataType) -> Result<Self, ColumnError> {
        Self::from_array(&arrow::array::new_empty_array(&arrow_type(data_type)))
    }

    /// Its type.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The number of values, nulls included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of nulls.
    pub fn null_count(&self) -> usize {
        self.null_count
    }

    /// A bit for each value, when there are nulls.
    pub fn validity(&self) -> Option<&Bytes> {
        self.validity.as_ref()
    }

    /// `rows + 1` 32-bit integers, for types of variable size.
    pub fn offsets(&self) -> Option<&Bytes> {
        self.offsets.as_ref()
    }

    /// The values.
    pub fn values(&self) -> &Bytes {
        &self.values
    }

    /// The size of its buffers, in bytes.
    pub fn bytes(&self) -> u64 {
        bytes_of(self.validity.as_ref(), self.offsets.as_ref(), &self.values)
    }

    /// The digest of its type, length and buffers.
    pub fn digest(&self) -> ColumnDigest {
        let mut hasher = self.as_ref().hasher();
        for buffer in [self.validity.as_ref(), self.offsets.as_ref(), Some(&self.values)] {
            let buffer = buffer.map_or(&[][..], |bytes| bytes);
            hasher.update(&(buffer.len() as u64).to_le_bytes()).update(buffer);
        }
        hasher.finalize().into()
    }

    /// Some of its rows. Only bitmaps are copied, and only when the first row is not a multiple
    /// of eight or the last byte has set bits of other rows.
    ///
    /// # Errors
    /// When it has fewer rows, or offsets outside its values, which is possible when they come
    /// from disk.
    pub fn block(&self, rows: Range<usize>) -> Result<Block, ColumnError> {
        let (from, to) = (rows.start, rows.end);
        if from > to || to > self.rows {
            return Err(ColumnError::Buffers(format!("rows {from} to {to} of a column of {}", self.rows)));
        }
        let bits = |bytes: &Bytes| BooleanBuffer::new(Buffer::from(bytes.clone()), from, rows.len());
        let validity = self.validity.as_ref().map(bits);
        let null_count = validity.as_ref().map_or(0, |bits| rows.len() - bits.count_set_bits());
        let validity = validity.filter(|_| null_count > 0).map(|bits| bitmap(&bits, rows.len()));
        let (offsets, values) = match (&self.offsets, self.data_type.width()) {
            (Some(offsets), _) => {
                let (offsets, values) = variable(offsets, &self.values, from..to)?;
                (Some(offsets), values)
            }
            (None, Some(width)) => (None, self.values.slice(from * width..to * width)),
            (None, None) => (None, bitmap(&bits(&self.values), rows.len())),
        };
        Ok(Block { rows: rows.len(), null_count, validity, offsets, values })
    }

    /// A borrow of the column.
    pub fn as_ref(&self) -> ColumnRef<'_> {
        ColumnRef {
            data_type: self.data_type.clone(),
            rows: self.rows,
            null_count: self.null_count,
            validity: self.validity.as_deref().map(Cow::Borrowed),
            offsets: self.offsets.as_deref(),
            values: Cow::Borrowed(&self.values),
        }
    }

    /// The column as an Arrow array. Everything is validated again: bytes from disk are not
    /// trusted.
    ///
    /// # Errors
    /// When offsets or text are invalid.
    pub fn to_array(&self) -> Result<ArrayRef, ColumnError> {
        let mut data = ArrayData::builder(arrow_type(&self.data_type)).len(self.rows).align_buffers(true);
        if let Some(validity) = &self.validity {
            data = data.null_bit_buffer(Some(Buffer::from(validity.clone())));
        }
        if let Some(offsets) = &self.offsets {
            data = data.add_buffer(Buffer::from(offsets.clone()));
        }
        data = data.add_buffer(Buffer::from(self.values.clone()));
        data.build().map(make_array).map_err(|error| ColumnError::Buffers(error.to_string()))
    }

    /// A column with the values of an Arrow array.
    ///
    /// # Errors
    /// When the type of the array is not supported.
    pub fn from_array(array: &dyn Array) -> Result<Self, ColumnError> {
        let data_type = type_from_arrow(array.data_type())?;
        let data = array.to_data();
        let (rows, offset) = (data.len(), data.offset());
        let validity = data.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| bitmap(nulls.inner(), rows));
        let null_count = validity.as_ref().map_or(0, |_| data.null_count());
        let (offsets, values) = match &data_type {
            DataType::Boolean => {
                let bits = BooleanBuffer::new(data.buffers()[0].clone(), offset, rows);
                (None, bitmap(&bits, rows))
            }
            DataType::Utf8 | DataType::Binary => {
                let offsets = &data.buffers()[0].typed_data::<i32>()[offset..];
                if rows == 0 {
                    (Some(Bytes::from_static(&[0; 4])), Bytes::new())
                } else {
                    let (first, last) = (offsets[0], offsets[rows]);
                    let values = data.buffers()[1].slice_with_length(first as usize, (last - first) as usize);
                    let offsets = match first {
                        0 => data.buffers()[0]
                            .slice_with_length(offset * size_of::<i32>(), (rows + 1) * size_of::<i32>()),
                        _ => {
                            Buffer::from_vec(offsets[..=rows].iter().map(|offset| offset - first).collect::<Vec<i32>>())
                        }
                    };
                    (Some(from_buffer(offsets)), from_buffer(values))
                }
            }
            other => {
                let width = other.width().unwrap_or(1);
                (None, from_buffer(data.buffers()[0].slice_with_length(offset * width, rows * width)))
            }
        };
        Ok(Self { data_type, rows, null_count, validity, offsets, values })
    }
}

/// The offsets of these rows, and the values between them.
fn variable(offsets: &Bytes, values: &Bytes, rows: Range<usize>) -> Result<(Bytes, Bytes), ColumnError> {
    let (ends, _) = offsets[rows.start * size_of::<i32>()..(rows.end + 1) * size_of::<i32>()].as_chunks::<4>();
    let end = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |end| i32::from_le_bytes(*end));
    let (first, last) = (end(ends.first()), end(ends.last()));
    let span = |first: i32, last: i32| Some(usize::try_from(first).ok()?..usize::try_from(last).ok()?);
    let between = span(first, last).filter(|between| between.start <= between.end && between.end <= values.len());
    let between = between.ok_or_else(|| ColumnError::Buffers("offsets outside their values".to_owned()))?;
    // The offsets between the first and the last are not checked, as in a whole column.
    Ok((offsets.slice_ref(ends.as_flattened()), values.slice(between)))
}

fn from_buffer(buffer: Buffer) -> Bytes {
    Bytes::from_owner(buffer)
}

/// The bits from the first row on, with the unused bits of the last byte zero. Copied only if
/// bits have to be shifted or cleared.
fn bitmap(bits: &BooleanBuffer, rows: usize) -> Bytes {
    let bytes = bits.sliced().slice_with_length(0, rows.div_ceil(8));
    if bytes.last().is_none_or(|last| last & !used_bits(rows) == 0) {
        return from_buffer(bytes);
    }
    let mut bytes = bytes.to_vec();
    clear_unused_bits(&mut bytes, rows);
    bytes.into()
}

/// A mask of the bits in the last byte of a bitmap that stand for rows.
fn used_bits(rows: usize) -> u8 {
    match rows % 8 {
        0 => u8::MAX,
        used => (1 << used) - 1,
    }
}

pub(crate) fn clear_unused_bits(bytes: &mut [u8], rows: usize) {
    if let Some(last) = bytes.last_mut() {
        *last &= used_bits(rows);
    }
}

/// The Arrow type for one of our types.
pub fn arrow_type(data_type: &DataType) -> ArrowType {
    match data_type {
        DataType::Boolean => ArrowType::Boolean,
        DataType::Int8 => ArrowType::Int8,
        DataType::Int16 => ArrowType::Int16,
        DataType::Int32 => ArrowType::Int32,
        DataType::Int64 => ArrowType::Int64,
        DataType::UInt8 => ArrowType::UInt8,
        DataType::UInt16 => ArrowType::UInt16,
        DataType::UInt32 => ArrowType::UInt32,
        DataType::UInt64 => ArrowType::UInt64,
        DataType::Float32 => ArrowType::Float32,
        DataType::Float64 => ArrowType::Float64,
        DataType::Utf8 => ArrowType::Utf8,
        DataType::Binary => ArrowType::Binary,
        DataType::Date32 => ArrowType::Date32,
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second => ArrowUnit::Second,
                TimeUnit::Millisecond => ArrowUnit::Millisecond,
                TimeUnit::Microsecond => ArrowUnit::Microsecond,
                TimeUnit::Nanosecond => ArrowUnit::Nanosecond,
            };
            ArrowType::Timestamp(unit, zone.as_deref().map(Arc::from))
        }
    }
}

/// Our type for an Arrow type.
///
/// # Errors
/// When the type is not supported.
pub fn type_from_arrow(data_type: &ArrowType) -> Result<DataType, ColumnError> {
    Ok(match data_type {
        ArrowType::Boolean => DataType::Boolean,
        ArrowType::Int8 => DataType::Int8,
        ArrowType::Int16 => DataType::Int16,
        ArrowType::Int32 => DataType::Int32,
        ArrowType::Int64 => DataType::Int64,
        ArrowType::UInt8 => DataType::UInt8,
        ArrowType::UInt16 => DataType::UInt16,
        ArrowType::UInt32 => DataType::UInt32,
        ArrowType::UInt64 => DataType::UInt64,
        ArrowType::Float32 => DataType::Float32,
        ArrowType::Float64 => DataType::Float64,
        ArrowType::Utf8 => DataType::Utf8,
        ArrowType::Binary => DataType::Binary,
        ArrowType::Date32 => DataType::Date32,
        ArrowType::Timestamp(unit, zone) => {
            let unit = match unit {
                ArrowUnit::Second => TimeUnit::Second,
                ArrowUnit::Millisecond => TimeUnit::Millisecond,
                ArrowUnit::Microsecond => TimeUnit::Microsecond,
                ArrowUnit::Nanosecond => TimeUnit::Nanosecond,
            };
            DataType::Timestamp(unit, zone.as_deref().map(str::to_owned))
        }
        other => return Err(ColumnError::Type(other.to_string())),
    })
}

/// The Arrow schema for one of our schemas.
pub fn schema_to_arrow(schema: &Schema) -> ArrowSchema {
    let field = |field: &Field| ArrowField::new(field.name.as_str(), arrow_type(&field.data_type), field.nullable);
    ArrowSchema::new(schema.fields.iter().map(field).collect::<Vec<_>>())
}

pub(crate) fn field_from_arrow(field: &ArrowField) -> Result<Field, ColumnError> {
    Ok(Field {
        name: ColumnName::new(field.name()),
        data_type: type_from_arrow(field.data_type())?,
        nullable: field.is_nullable(),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn same(array: &dyn Array, slice: &dyn Array) {
        let (a, b) = (ColumnBytes::from_array(array).unwrap(), ColumnBytes::from_array(slice).unwrap());
        assert_eq!(a, b);
        assert_eq!(a.digest(), b.digest());
        let back = a.to_array().unwrap();
        assert_eq!(ColumnBytes::from_array(&*back).unwrap(), a);
    }

    /// Some rows, as a column in normal form.
    fn normal(whole: &ColumnBytes, rows: Range<usize>) -> ColumnBytes {
        let Block { rows, null_count, validity, offsets, values } = whole.block(rows).unwrap();
        let from_zero = |offsets: Bytes| {
            let (ends, _) = offsets.as_chunks::<4>();
            let first = i32::from_le_bytes(ends[0]);
            ends.iter().flat_map(|end| (i32::from_le_bytes(*end) - first).to_le_bytes()).collect()
        };
        let data_type = whole.data_type.clone();
        ColumnBytes { data_type, rows, null_count, validity, offsets: offsets.map(from_zero), values }
    }

    proptest! {
        /// Equal values give equal columns, however the array was built.
        #[test]
        fn a_slice_and_a_fresh_array_give_equal_columns(
            values in prop::collection::vec(prop::option::of((any::<i64>(), any::<bool>(), ".{0,5}")), 1..80),
            from in 0usize..40,
        ) {
            let from = from.min(values.len());
            let rest = &values[from..];
            let length = rest.len();
            macro_rules! check {
                ($array:ty, $get:expr) => {{
                    let whole: $array = values.iter().map(|v| v.as_ref().map($get)).collect();
                    let fresh: $array = rest.iter().map(|v| v.as_ref().map($get)).collect();
                    same(&fresh, &whole.slice(from, length));
                    let whole = ColumnBytes::from_array(&whole).unwrap();
                    let middle = from + length / 2;
                    let (first, second) = (fresh.slice(0, length / 2), fresh.slice(length / 2, length - length / 2));
                    for (rows, expected) in [(from..middle, first), (middle..values.len(), second)] {
                        prop_assert_eq!(normal(&whole, rows), ColumnBytes::from_array(&expected).unwrap());
                    }
                    prop_assert!(whole.block(from..values.len() + 1).is_err());
                }};
            }
            check!(Int64Array, |v: &(i64, bool, String)| v.0);
            check!(BooleanArray, |v: &(i64, bool, String)| v.1);
            check!(StringArray, |v: &(i64, bool, String)| v.2.clone());
        }
    }

    /// Rows for a guest are copied once, into its memory: cutting them out must not copy.
    #[test]
    fn a_block_shares_the_memory_of_its_column() {
        let shares = |whole: &Bytes, part: &Bytes| whole.as_ptr_range().contains(&part.as_ptr());
        let set = |row: usize| (!row.is_multiple_of(3)).then_some(row.is_multiple_of(7));
        let bits = ColumnBytes::from_array(&(0..100).map(set).collect::<BooleanArray>()).unwrap();
        for (rows, is_shared) in [(16..64, true), (64..100, true), (0..100, true), (0..5, false), (3..64, false)] {
            let some = bits.block(rows.clone()).unwrap();
            let validity = some.validity.expect("nulls");
            assert_eq!(shares(bits.validity().unwrap(), &validity), is_shared, "{rows:?}");
            assert_eq!(shares(bits.values(), &some.values), is_shared, "{rows:?}");
            assert_eq!(some.null_count, rows.filter(|row| row.is_multiple_of(3)).count());
        }
        let texts =
            ColumnBytes::from_array(&StringArray::from_iter_values((0..100).map(|row| row.to_string()))).unwrap();
        for rows in [0..64, 64..100, 3..5, 0..100] {
            let some = texts.block(rows).unwrap();
            assert!(shares(texts.values(), &some.values));
            assert!(shares(texts.offsets().unwrap(), &some.offsets.unwrap()));
        }
    }

    /// Offsets from disk are not trusted.
    #[test]
    fn offsets_outside_the_values_are_an_error() {
        let column = ColumnBytes::from_array(&StringArray::from(vec!["ab", "c", "def"])).unwrap();
        let with = |offsets: [i32; 4]| {
            let offsets: Vec<u8> = offsets.iter().flat_map(|end| end.to_le_bytes()).collect();
            ColumnBytes { offsets: Some(offsets.into()), ..column.clone() }
        };
        assert_eq!(with([0, 2, 3, 6]).block(1..3).unwrap().values, Bytes::from_static(b"cdef"));
        for offsets in [[0, 2, 3, 7], [0, -1, 3, 6], [0, 5, 3, 4], [0, i32::MIN, 3, i32::MAX]] {
            assert!(with(offsets).block(1..3).is_err(), "{offsets:?}");
        }
        // Offsets in between are for the guest to check, as in a whole column.
        assert!(with([0, 2, i32::MIN, 6]).block(1..3).is_ok());
        #[expect(clippy::reversed_empty_ranges, reason = "an erroneous caller")]
        let backwards = column.block(2..1);
        assert!(backwards.is_err() && column.block(4..4).is_err() && column.block(3..3).unwrap().rows == 0);
    }

    #[test]
    fn the_digest_covers_type_length_and_nulls() {
        let digest = |array: &dyn Array| ColumnBytes::from_array(array).unwrap().digest();
        let a = digest(&Int64Array::from(vec![0, 0]));
        assert_ne!(a, digest(&Int64Array::from(vec![0, 0, 0])));
        assert_ne!(a, digest(&Int64Array::from(vec![Some(0), None])));
        assert_ne!(a, digest(&arrow::array::UInt64Array::from(vec![0, 0])));
    }
}
