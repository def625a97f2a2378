//! Checks what a guest claims about a column.
//!
//! A guest claims that some bytes are a column. No claim is trusted: this is the only way from
//! [`Unchecked`] to a [`ColumnBytes`] that is stored.

use std::borrow::Cow;

use millrace_types::{DataType, bounds};

use crate::column::{ColumnBytes, ColumnRef, clear_unused_bits};

/// A column as a guest describes it; the slices may be in its memory.
#[derive(Debug, Clone, Copy)]
pub struct Unchecked<'a> {
    /// The claimed number of values.
    pub rows: u64,
    /// The claimed number of nulls.
    pub null_count: u64,
    /// A bit for each value.
    pub validity: Option<&'a [u8]>,
    /// 32-bit offsets.
    pub offsets: Option<&'a [u8]>,
    /// The values.
    pub values: &'a [u8],
}

/// A claim that is not true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// More rows than a part can have.
    #[error("it has {rows} rows, and a part has at most {}", bounds::PART_ROWS)]
    Rows {
        /// The claimed number.
        rows: u64,
    },
    /// A buffer of another size than rows and type require.
    #[error("its {buffer} buffer has {found} bytes, and {rows} rows of {data_type} need {expected}")]
    Size {
        /// `validity`, `offsets` or `values`.
        buffer: &'static str,
        /// The claimed number of rows.
        rows: u64,
        /// The type of the column.
        data_type: DataType,
        /// The size of the buffer, in bytes.
        found: usize,
        /// The required size, in bytes.
        expected: u64,
    },
    /// An offsets buffer for a type without one, or none for a type with one.
    #[error("a column of {data_type} has {} offsets buffer", if *.expected { "an" } else { "no" })]
    Offsets {
        /// The type of the column.
        data_type: DataType,
        /// Whether the type has offsets.
        expected: bool,
    },
    /// A number of nulls other than that of the unset bits.
    #[error("it claims {claimed} nulls, and its validity buffer has {found}")]
    NullCount {
        /// The claimed number.
        claimed: u64,
        /// The number of unset bits.
        found: u64,
    },
    /// Nulls in a column that is not nullable.
    #[error("it has {nulls} nulls, and its schema allows none")]
    NotNullable {
        /// The number of nulls.
        nulls: u64,
    },
    /// An offset that is less than the one before it, or beyond the values.
    #[error("offset {index} is {offset}, after {before}, and there are {bytes} bytes of values")]
    OffsetOrder {
        /// The index of the offset.
        index: usize,
        /// Its value.
        offset: i32,
        /// The one before it.
        before: i32,
        /// The size of the values, in bytes.
        bytes: usize,
    },
    /// Text that is not UTF-8.
    #[error("row {row} is not valid UTF-8")]
    Utf8 {
        /// Counted from 0.
        row: usize,
    },
    /// An index beyond the rows.
    #[error("row {row} has index {index}, and there are {rows} rows")]
    Index {
        /// Counted from 0.
        row: usize,
        /// The index.
        index: u32,
        /// The number of rows that can be taken.
        rows: u64,
    },
}

impl<'a> Unchecked<'a> {
    /// The column, if every claim is true.
    ///
    /// # Errors
    /// The first claim that is not true.
    pub fn check(&self, data_type: &DataType, nullable: bool) -> Result<ColumnBytes, ClaimError> {
        self.check_in_place(data_type, nullable).map(|column| column.to_column())
    }

    /// The column without a copy, in the memory of the guest, under the same conditions.
    ///
    /// # Errors
    /// The first claim that is not true.
    pub fn check_in_place(&self, data_type: &DataType, nullable: bool) -> Result<ColumnRef<'a>, ClaimError> {
        let Self { rows, null_count, validity, offsets, values } = *self;
        if rows > bounds::PART_ROWS {
            return Err(ClaimError::Rows { rows });
        }
        let count = rows as usize;
        let size = |buffer, found: usize, expected: u64| {
            let data_type = data_type.clone();
            if found as u64 == expected {
                Ok(())
            } else {
                Err(ClaimError::Size { buffer, rows, data_type, found, expected })
            }
        };
        let validity = match validity {
            None if null_count != 0 => return Err(ClaimError::NullCount { claimed: null_count, found: 0 }),
            None => None,
            Some(bits) => {
                size("validity", bits.len(), rows.div_ceil(8))?;
                let bits = clean_bits(bits, count);
                let found = rows - count_ones(&bits);
                if found != null_count {
                    return Err(ClaimError::NullCount { claimed: null_count, found });
                }
                (found > 0).then_some(bits)
            }
        };
        if !nullable && null_count > 0 {
            return Err(ClaimError::NotNullable { nulls: null_count });
        }
        if data_type.is_variable() != offsets.is_some() {
            return Err(ClaimError::Offsets { data_type: data_type.clone(), expected: data_type.is_variable() });
        }
        let values = match (data_type, offsets) {
            (DataType::Boolean, _) => {
                size("values", values.len(), rows.div_ceil(8))?;
                clean_bits(values, count)
            }
            (_, Some(offsets)) => {
                size("offsets", offsets.len(), (rows + 1) * 4)?;
                check_offsets(offsets, values.len())?;
                if *data_type == DataType::Utf8 {
                    check_utf8(offsets, values)?;
                }
                Cow::Borrowed(values)
            }
            (fixed, None) => {
                size("values", values.len(), rows * fixed.width().unwrap_or(1) as u64)?;
                Cow::Borrowed(values)
            }
        };
        let data_type = data_type.clone();
        Ok(ColumnRef { data_type, rows: count, null_count: null_count as usize, validity, offsets, values })
    }

    /// The indices of a take, if every one of them is below `rows`.
    ///
    /// # Errors
    /// The first claim that is not true.
    pub fn check_indices(&self, rows: u64) -> Result<ColumnBytes, ClaimError> {
        let column = self.check(&DataType::UInt32, true)?;
        for row in 0..column.rows {
            let index = read_u32(&column.values, row);
            let null = column.validity.as_ref().is_some_and(|bits| bits[row / 8] & (1 << (row % 8)) == 0);
            if u64::from(index) >= rows && !null {
                return Err(ClaimError::Index { row, index, rows });
            }
        }
        Ok(column)
    }
}

pub(crate) fn read_u32(bytes: &[u8], index: usize) -> u32 {
    let at = index * 4;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The bits, with those after the last row zero.
fn clean_bits(bits: &[u8], rows: usize) -> Cow<'_, [u8]> {
    match (bits.last(), rows % 8) {
        (Some(last), used @ 1..) if last >> used != 0 => {
            let mut bits = bits.to_vec();
            clear_unused_bits(&mut bits, rows);
            Cow::Owned(bits)
        }
        _ => Cow::Borrowed(bits),
    }
}

pub(crate) fn count_ones(bits: &[u8]) -> u64 {
    bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
}

fn check_offsets(offsets: &[u8], bytes: usize) -> Result<(), ClaimError> {
    let mut before = 0;
    let count = offsets.len() / 4;
    for index in 0..count {
        let offset = read_u32(offsets, index) as i32;
        let wrong = offset < before || (index == 0 && offset != 0) || (index + 1 == count && offset as usize != bytes);
        if wrong {
            return Err(ClaimError::OffsetOrder { index, offset, before, bytes });
        }
        before = offset;
    }
    Ok(())
}

/// Validates all values in one call, which is fast, and then only that no value starts inside a
/// character.
fn check_utf8(offsets: &[u8], values: &[u8]) -> Result<(), ClaimError> {
    let rows = offsets.len() / 4 - 1;
    let row_of = |at: usize| (0..rows).find(|row| read_u32(offsets, row + 1) as usize > at).unwrap_or(0);
    let text = std::str::from_utf8(values).map_err(|error| ClaimError::Utf8 { row: row_of(error.valid_up_to()) })?;
    match (0..=rows).find(|row| !text.is_char_boundary(read_u32(offsets, *row) as usize)) {
        Some(row) => Err(ClaimError::Utf8 { row: row.min(rows.saturating_sub(1)) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utf8(rows: u64, offsets: &[i32], values: &[u8]) -> Result<ColumnBytes, ClaimError> {
        let offsets: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        Unchecked { rows, null_count: 0, validity: None, offsets: Some(&offsets), values }.check(&DataType::Utf8, true)
    }

    #[test]
    fn each_false_claim_is_reported() {
        let error = |result: Result<ColumnBytes, ClaimError>| result.unwrap_err().to_string();
        let fixed = |rows, null_count, validity, values| {
            Unchecked { rows, null_count, validity, offsets: None, values }.check(&DataType::Int32, false)
        };
        assert_eq!(error(fixed(2, 0, None, &[0; 7])), "its values buffer has 7 bytes, and 2 rows of int32 need 8");
        assert_eq!(
            error(fixed(u64::MAX, 0, None, &[])),
            format!("it has {} rows, and a part has at most 2147483648", u64::MAX)
        );
        assert_eq!(error(fixed(2, 1, None, &[0; 8])), "it claims 1 nulls, and its validity buffer has 0");
        assert_eq!(error(fixed(2, 0, Some(&[1]), &[0; 8])), "it claims 0 nulls, and its validity buffer has 1");
        assert_eq!(error(fixed(2, 1, Some(&[1]), &[0; 8])), "it has 1 nulls, and its schema allows none");
        assert_eq!(error(utf8(2, &[0, 3, 2], b"abc")), "offset 2 is 2, after 3, and there are 3 bytes of values");
        assert_eq!(error(utf8(1, &[0, 4], b"abc")), "offset 1 is 4, after 0, and there are 3 bytes of values");
        assert_eq!(error(utf8(1, &[-1, 3], b"abc")), "offset 0 is -1, after 0, and there are 3 bytes of values");
        assert_eq!(error(utf8(2, &[0, 1, 2], "ü".as_bytes())), "row 1 is not valid UTF-8");
        assert_eq!(error(utf8(2, &[0, 1, 2], &[b'a', 0xff])), "row 1 is not valid UTF-8");
        assert_eq!(error(utf8(0, &[], &[])), "its offsets buffer has 0 bytes, and 0 rows of utf8 need 4");
    }

    #[test]
    fn an_index_beyond_the_rows_is_refused_unless_null() {
        let values: Vec<u8> = [0u32, 9, 2].iter().flat_map(|i| i.to_le_bytes()).collect();
        let claims = Unchecked { rows: 3, null_count: 0, validity: None, offsets: None, values: &values };
        assert_eq!(claims.check_indices(9).unwrap_err(), ClaimError::Index { row: 1, index: 9, rows: 9 });
        assert!(claims.check_indices(10).is_ok());
        assert!(Unchecked { null_count: 1, validity: Some(&[0b101]), ..claims }.check_indices(9).is_ok());
    }

    proptest! {
        /// Any claim is an error, or gives a column that Arrow accepts too.
        #[test]
        fn accepted_columns_are_valid_for_arrow(
            rows in 0u64..6,
            null_count in 0u64..4,
            validity in prop::option::of(prop::collection::vec(any::<u8>(), 0..2)),
            offsets in prop::option::of(prop::collection::vec(-1i32..6, 0..7)),
            values in prop::collection::vec(any::<u8>(), 0..48),
            data_type in prop::sample::select(vec![DataType::Boolean, DataType::Int8, DataType::Float64, DataType::Utf8, DataType::Binary]),
        ) {
            let offsets: Option<Vec<u8>> = offsets.map(|o| o.iter().flat_map(|offset| offset.to_le_bytes()).collect());
            let claims = Unchecked { rows, null_count, validity: validity.as_deref(), offsets: offsets.as_deref(), values: &values };
            if let Ok(column) = claims.check(&data_type, true) {
                let array = column.to_array().unwrap();
                prop_assert_eq!(array.len() as u64, rows);
                prop_assert_eq!(ColumnBytes::from_array(&*array).unwrap(), column);
            }
        }
    }
}
