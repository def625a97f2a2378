//! Gathers the rows that a selection picks.

use arrow::array::{Array, ArrayRef, BooleanArray, cast::AsArray};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute::{concat, filter, take};
use arrow::datatypes::UInt32Type;
use bytes::Bytes;
use millrace_types::{DataType, Selection};

use crate::check::count_ones;
use crate::column::{ColumnBytes, ColumnError};

/// The number of rows that a mask keeps.
pub fn kept(mask: &ColumnBytes) -> u64 {
    count_ones(&mask.values)
}

/// Whether the indices are 0, 1, 2, …
pub fn is_identity(indices: &ColumnBytes) -> bool {
    let (values, rest) = indices.values.as_chunks();
    indices.null_count == 0 && rest.is_empty() && (0u32..).zip(values).all(|(i, index)| u32::from_le_bytes(*index) == i)
}

/// The selected rows of `sources`, taken as one run of rows.
///
/// # Errors
/// When the selection does not fit the sources, or the result would not fit 32-bit offsets.
pub fn gather(kind: Selection, selection: &ColumnBytes, sources: &[ColumnBytes]) -> Result<ColumnBytes, ColumnError> {
    if let (Selection::Mask, [source]) = (kind, sources)
        && source.data_type.is_variable()
    {
        return masked(mask_of(&selection.to_array()?, source.rows)?, source);
    }
    let arrays = sources.iter().map(ColumnBytes::to_array).collect::<Result<Vec<_>, _>>()?;
    let source: ArrayRef = match arrays.as_slice() {
        [] => return Err(wrong("a selection without a column to select from")),
        [one] => one.clone(),
        many => {
            let bytes: usize = sources.iter().map(|source| source.values.len()).sum();
            if sources[0].data_type.is_variable() && bytes > i32::MAX as usize {
                return Err(wrong("the rows to take from have more than 2 GiB of text"));
            }
            let many: Vec<&dyn Array> = many.iter().map(|array| &**array).collect();
            concat(&many).map_err(|error| ColumnError::Buffers(error.to_string()))?
        }
    };
    let selection = selection.to_array()?;
    let picked = match kind {
        Selection::Mask => filter(&source, mask_of(&selection, source.len())?),
        Selection::Take => {
            let indices =
                selection.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong("indices that are not uint32"))?;
            if indices.iter().flatten().any(|index| index as usize >= source.len()) {
                return Err(wrong("an index beyond the rows"));
            }
            if matches!(sources[0].data_type, DataType::Utf8 | DataType::Binary) {
                let offsets = source.to_data();
                let offsets = offsets.buffers()[0].typed_data::<i32>();
                let length = |index: u32| (offsets[index as usize + 1] - offsets[index as usize]) as u64;
                if indices.iter().flatten().map(length).sum::<u64>() > i32::MAX as u64 {
                    return Err(wrong("the taken rows have more than 2 GiB of text"));
                }
            }
            take(&source, indices, None)
        }
    };
    ColumnBytes::from_array(&*picked.map_err(|error| ColumnError::Buffers(error.to_string()))?)
}

fn wrong(what: &str) -> ColumnError {
    ColumnError::Buffers(what.to_owned())
}

fn mask_of(selection: &ArrayRef, rows: usize) -> Result<&BooleanArray, ColumnError> {
    let mask = selection.as_boolean_opt().ok_or_else(|| wrong("a mask that is not boolean"))?;
    if mask.len() != rows || mask.null_count() > 0 {
        return Err(wrong("a mask of another length than its column, or with nulls"));
    }
    Ok(mask)
}

/// The values of variable size that a mask keeps, run after run. Their bytes are moved without
/// validation: an Arrow array would validate each value, which happens anyway when one is built
/// from the result.
fn masked(mask: &BooleanArray, source: &ColumnBytes) -> Result<ColumnBytes, ColumnError> {
    let corrupt = || wrong("offsets that do not fit their values");
    let (offsets, _) = source.offsets.as_deref().unwrap_or_default().as_chunks();
    let rows = mask.true_count();
    let mut ends = Vec::with_capacity(rows + 1);
    let mut values = Vec::with_capacity(source.values.len());
    ends.push(0);
    for (from, to) in mask.values().set_slices() {
        let run = offsets.get(from..=to).ok_or_else(corrupt)?;
        let at = |index: usize| i32::from_le_bytes(run[index]);
        let (first, last) = (at(0), at(to - from));
        // The cast is lossless: the result is no longer than the source.
        let shift = (values.len() as i32).wrapping_sub(first);
        let bytes = usize::try_from(first).ok().zip(usize::try_from(last).ok());
        let bytes = bytes.and_then(|(first, last)| source.values.get(first..last)).ok_or_else(corrupt)?;
        values.extend_from_slice(bytes);
        ends.extend(run[1..].iter().map(|end| i32::from_le_bytes(*end).wrapping_add(shift)));
    }
    let (mut validity, mut null_count) = (None, 0);
    if let Some(bits) = &source.validity {
        if bits.len() < source.rows.div_ceil(8) {
            return Err(wrong("a validity buffer that is too short"));
        }
        let bits = BooleanBuffer::new(Buffer::from(bits.clone()), 0, source.rows);
        let kept = filter(&BooleanArray::new(bits, None), mask).map_err(|error| wrong(&error.to_string()))?;
        null_count = rows - kept.as_boolean().true_count();
        validity = (null_count > 0).then(|| ColumnBytes::from_array(&*kept)).transpose()?.map(|kept| kept.values);
    }
    values.shrink_to_fit();
    let offsets = Some(Bytes::from_owner(Buffer::from_vec(ends)));
    Ok(ColumnBytes { data_type: source.data_type.clone(), rows, null_count, validity, offsets, values: values.into() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, UInt32Array};
    use proptest::prelude::*;

    use super::*;

    fn column(array: &dyn Array) -> ColumnBytes {
        ColumnBytes::from_array(array).unwrap()
    }

    proptest! {
        /// A mask selects the same rows as a take of the indices of its set bits.
        #[test]
        fn a_mask_equals_a_take_of_its_set_bits(rows in prop::collection::vec((prop::option::of(".{0,4}"), any::<bool>()), 0..60)) {
            let texts: StringArray = rows.iter().map(|(text, _)| text.clone()).collect();
            let mask: BooleanArray = rows.iter().map(|(_, keep)| Some(*keep)).collect();
            let indices: UInt32Array = (0u32..).zip(&rows).filter(|(_, (_, keep))| *keep).map(|(i, _)| i).collect();
            let masked = gather(Selection::Mask, &column(&mask), &[column(&texts)]).unwrap();
            let taken = gather(Selection::Take, &column(&indices), &[column(&texts)]).unwrap();
            prop_assert_eq!(&masked, &taken);
            prop_assert_eq!(masked.rows() as u64, kept(&column(&mask)));
        }

        /// Taking from parts gives the same rows as taking from the whole.
        #[test]
        fn parts_and_the_whole_give_the_same_rows(
            values in prop::collection::vec(any::<i64>(), 1..40),
            cut in any::<prop::sample::Index>(),
            picks in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 0..40),
        ) {
            let whole = Arc::new(Int64Array::from(values.clone()));
            let cut = cut.index(values.len());
            let indices: UInt32Array = picks.iter().map(|pick| pick.map(|i| i.index(values.len()) as u32)).collect();
            let parts = [column(&whole.slice(0, cut)), column(&whole.slice(cut, values.len() - cut))];
            let from_parts = gather(Selection::Take, &column(&indices), &parts).unwrap();
            prop_assert_eq!(from_parts, gather(Selection::Take, &column(&indices), &[column(&*whole)]).unwrap());
        }
    }

    #[test]
    fn selections_that_do_not_fit_are_errors() {
        let source = [column(&Int64Array::from(vec![1, 2]))];
        let mask = column(&BooleanArray::from(vec![true]));
        assert!(gather(Selection::Mask, &mask, &source).is_err());
        let indices = column(&UInt32Array::from(vec![2]));
        assert!(gather(Selection::Take, &indices, &source).is_err());
        assert!(gather(Selection::Take, &mask, &source).is_err());
    }

    #[test]
    fn corrupt_columns_of_text_are_errors_and_do_not_panic() {
        let good = column(&StringArray::from(vec![Some("ab"), None, Some("cde"), Some("")]));
        let mask = column(&BooleanArray::from(vec![true, false, true, true]));
        let offsets = |offsets: &[i32]| ColumnBytes {
            offsets: Some(offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect::<Vec<u8>>().into()),
            ..good.clone()
        };
        let all = gather(Selection::Mask, &mask, std::slice::from_ref(&good)).unwrap();
        assert_eq!((all.rows(), all.null_count(), &all.values()[..]), (3, 0, &b"abcde"[..]));
        let corrupt = [
            offsets(&[0, 2, 2, 6, 6]),
            offsets(&[0, 2, 2, i32::MIN, i32::MAX]),
            offsets(&[-1, 2, 2, 5, 5]),
            offsets(&[3, 2, 2, 5, 5]),
            offsets(&[0, 2, 2]),
            offsets(&[]),
            ColumnBytes { offsets: None, ..good.clone() },
            ColumnBytes { validity: Some(Bytes::new()), ..good.clone() },
            ColumnBytes { values: Bytes::new(), ..good },
        ];
        for (number, corrupt) in corrupt.into_iter().enumerate() {
            assert!(gather(Selection::Mask, &mask, &[corrupt]).is_err(), "{number}");
        }
        let short = column(&BooleanArray::from(vec![true]));
        assert!(gather(Selection::Mask, &short, &[column(&StringArray::from(vec!["a", "b"]))]).is_err());
    }
}
