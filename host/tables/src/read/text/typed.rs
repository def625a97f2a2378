//! CSV whose types are known, parsed straight into columns.
//!
//! A block is parsed field by field into vectors of the columns' types: no text is stored, and
//! a number ends where its digits end. Anything that is not plain (a value of another type, a
//! record with too many fields, bytes after a closing quote) is not an error here: the block is
//! parsed again by the slow parser, which reports errors.

use std::sync::Arc;

use ::arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use ::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use ::arrow::datatypes::DataType as ArrowType;

use super::infer::{RawColumn, TextKind, float, int};

enum TypedValues {
    Int(Vec<i64>),
    Float(Vec<f64>),
    Text {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
    },
    /// Other types, as text.
    Raw(RawColumn),
    /// Only the types of the values are checked; with the bytes of text so far.
    Checked(Check, usize),
    /// The column is not selected.
    Skipped,
}

/// The type that is checked in a column whose values no step reads.
#[derive(Clone, Copy)]
enum Check {
    Int,
    Float,
    Text,
}

/// A column that is being read.
struct ColumnSoFar {
    values: TypedValues,
    to: ArrowType,
    /// Whether the type was inferred.
    is_inferred: bool,
    /// Whether the column had no value so far, and so has no type yet.
    is_untyped: bool,
    /// Rows without a value.
    missing: Vec<usize>,
}

/// How a column is read.
pub(in crate::read) struct Wanted {
    /// The type; `None` if the column is not selected.
    pub(in crate::read) to: Option<ArrowType>,
    /// The kind from which the type was inferred, if it was.
    pub(in crate::read) inferred: Option<TextKind>,
    /// Whether its values are needed, and not only its type.
    pub(in crate::read) is_kept: bool,
}

/// The columns of a block that is being read.
pub(in crate::read) struct Typed<'a> {
    delimiter: u8,
    missing: &'a [&'a [u8]],
    /// Whether the empty field counts as missing, and no text that begins like a number does.
    is_plain: bool,
    columns: Vec<ColumnSoFar>,
    rows: usize,
    /// A buffer for a field with doubled quotes, after they are undoubled.
    unquoted: Vec<u8>,
}

/// The block is not plain: the slow parser must read it.
pub(in crate::read) struct NotPlain;

type Plain<T> = Result<T, NotPlain>;

impl<'a> Typed<'a> {
    pub(in crate::read) fn new(wanted: Vec<Wanted>, delimiter: u8, missing: &'a [&'a [u8]], rows: usize) -> Self {
        let column = |Wanted { to, inferred, is_kept }: Wanted| {
            let is_inferred = inferred.is_some();
            let values = match &to {
                None => TypedValues::Skipped,
                Some(ArrowType::Int64) if is_inferred && !is_kept => TypedValues::Checked(Check::Int, 0),
                Some(ArrowType::Float64) if is_inferred && !is_kept => TypedValues::Checked(Check::Float, 0),
                Some(ArrowType::Utf8) if inferred != Some(TextKind::Missing) && !is_kept => {
                    TypedValues::Checked(Check::Text, 0)
                }
                Some(ArrowType::Int64) if is_inferred => TypedValues::Int(Vec::with_capacity(rows)),
                Some(ArrowType::Float64) if is_inferred => TypedValues::Float(Vec::with_capacity(rows)),
                Some(ArrowType::Utf8) if inferred != Some(TextKind::Missing) => {
                    let mut offsets = Vec::with_capacity(rows + 1);
                    offsets.push(0);
                    TypedValues::Text { bytes: Vec::with_capacity(rows * 8), offsets }
                }
                Some(_) => TypedValues::Raw(RawColumn::default()),
            };
            let is_untyped = inferred == Some(TextKind::Missing);
            ColumnSoFar { values, to: to.unwrap_or(ArrowType::Null), is_inferred, is_untyped, missing: Vec::new() }
        };
        let odd = |text: &&[u8]| text.first().is_some_and(|first| matches!(first, b'0'..=b'9' | b'-' | b'.'));
        Self {
            delimiter,
            missing,
            is_plain: missing.contains(&&b""[..]) && !missing.iter().any(odd),
            columns: wanted.into_iter().map(column).collect(),
            rows: 0,
            unquoted: Vec::new(),
        }
    }

    /// The number of rows read.
    pub(in crate::read) fn rows(&self) -> usize {
        self.rows
    }

    /// Reads a block to its end.
    pub(in crate::read) fn block(&mut self, bytes: &[u8]) -> Plain<()> {
        // A carriage return alone ends a line as well, which only the slow parser handles.
        let ends_line = |at: usize| bytes.get(at + 1) == Some(&b'\n');
        if !memchr::memchr_iter(b'\r', bytes).all(ends_line) {
            return Err(NotPlain);
        }
        let is_checked = |column: &ColumnSoFar| matches!(column.values, TypedValues::Checked(Check::Text, _));
        // Text that no step reads is checked for UTF-8 in one call.
        if self.columns.iter().any(is_checked) && std::str::from_utf8(bytes).is_err() {
            return Err(NotPlain);
        }
        let mut at = 0;
        let last = self.columns.len() - 1;
        while at < bytes.len() {
            let empty = match &bytes[at..] {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => 0,
            };
            if empty > 0 {
                at += empty;
                continue;
            }
            for index in 0..=last {
                at = self.field(index, bytes, at)?;
                if index == last && bytes.get(at) == Some(&b'\r') {
                    at += 1;
                }
                let is_field_end = match bytes.get(at) {
                    Some(byte) => *byte == if index == last { b'\n' } else { self.delimiter },
                    None => index == last,
                };
                if !is_field_end {
                    return Err(NotPlain);
                }
                at += 1;
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// Reads the field that begins at `at`. Returns the offset of its end.
    #[inline]
    fn field(&mut self, index: usize, bytes: &[u8], at: usize) -> Plain<usize> {
        let Self { delimiter, is_plain, columns, missing, rows, unquoted } = self;
        let column = &mut columns[index];
        let is_end = |at: usize| bytes.get(at).is_none_or(|byte| *byte == *delimiter || *byte == b'\n');
        if *is_plain {
            match &mut column.values {
                TypedValues::Int(values) => {
                    if let Some((value, end)) = int_at(bytes, at)
                        && is_end(end)
                    {
                        values.push(value);
                        return Ok(end);
                    }
                }
                TypedValues::Float(values) => {
                    if let Some((value, end)) = float_at(bytes, at)
                        && is_end(end)
                    {
                        values.push(value);
                        return Ok(end);
                    }
                }
                TypedValues::Checked(Check::Int, _) => {
                    if let Some(end) = end_of_int(bytes, at).filter(|end| is_end(*end)) {
                        return Ok(end);
                    }
                }
                TypedValues::Checked(Check::Float, _) => {
                    if let Some(end) = end_of_float(bytes, at).filter(|end| is_end(*end)) {
                        return Ok(end);
                    }
                }
                _ => {}
            }
        }
        let (field, end) = match bytes.get(at) {
            Some(b'"') => quoted(bytes, at + 1, unquoted)?,
            _ => {
                let length = memchr::memchr2(*delimiter, b'\n', &bytes[at..]).unwrap_or(bytes.len() - at);
                let field = &bytes[at..at + length];
                let field = field.strip_suffix(b"\r").unwrap_or(field);
                (field, at + field.len())
            }
        };
        let is_missing = missing.contains(&field);
        if is_missing && !matches!(column.values, TypedValues::Checked(..)) {
            column.missing.push(*rows);
        }
        match &mut column.values {
            TypedValues::Checked(check, text) if !is_missing => match check {
                Check::Int => drop(int(field).ok_or(NotPlain)?),
                Check::Float => drop(float(field).ok_or(NotPlain)?),
                Check::Text => *text += field.len(),
            },
            TypedValues::Checked(..) => {}
            TypedValues::Int(values) => values.push(if is_missing { 0 } else { int(field).ok_or(NotPlain)? }),
            TypedValues::Float(values) => values.push(if is_missing { 0.0 } else { float(field).ok_or(NotPlain)? }),
            TypedValues::Text { bytes, offsets } => {
                if !is_missing {
                    bytes.extend_from_slice(field);
                }
                offsets.push(i32::try_from(bytes.len()).map_err(|_| NotPlain)?);
            }
            TypedValues::Raw(raw) => {
                if column.is_untyped && !is_missing {
                    return Err(NotPlain);
                }
                raw.push(field, is_missing);
            }
            TypedValues::Skipped => {}
        }
        Ok(end)
    }

    /// The size of the largest column of text, in bytes.
    pub(in crate::read) fn largest(&self) -> usize {
        let bytes = |column: &ColumnSoFar| match &column.values {
            TypedValues::Text { bytes, .. } => bytes.len(),
            TypedValues::Raw(raw) => raw.bytes(),
            TypedValues::Checked(_, text) => *text,
            _ => 0,
        };
        self.columns.iter().map(bytes).max().unwrap_or(0)
    }

    /// The selected columns: index, type, and values unless only the type is needed.
    pub(in crate::read) fn finish(self) -> Plain<Vec<(usize, ArrowType, Option<ArrayRef>)>> {
        let rows = self.rows;
        let mut out = Vec::with_capacity(self.columns.len());
        for (index, ColumnSoFar { values, to, is_inferred, missing, .. }) in self.columns.into_iter().enumerate() {
            let nulls = || {
                (!missing.is_empty()).then(|| {
                    let mut valid = vec![true; rows];
                    missing.iter().for_each(|row| valid[*row] = false);
                    NullBuffer::new(BooleanBuffer::from(valid))
                })
            };
            let array: ArrayRef = match values {
                TypedValues::Skipped => continue,
                TypedValues::Checked(..) => {
                    out.push((index, to, None));
                    continue;
                }
                TypedValues::Int(values) => Arc::new(Int64Array::new(values.into(), nulls())),
                TypedValues::Float(values) => Arc::new(Float64Array::new(values.into(), nulls())),
                TypedValues::Text { bytes, offsets } => {
                    let offsets = OffsetBuffer::new(offsets.into());
                    Arc::new(StringArray::try_new(offsets, bytes.into(), nulls()).map_err(|_| NotPlain)?)
                }
                TypedValues::Raw(raw) => raw.parse(&to, is_inferred).map_err(|_| NotPlain)?,
            };
            out.push((index, to, Some(array)));
        }
        Ok(out)
    }
}

/// The content of a quoted field, and the offset after its closing quote.
#[inline]
fn quoted<'b>(bytes: &'b [u8], from: usize, unquoted: &'b mut Vec<u8>) -> Plain<(&'b [u8], usize)> {
    let quote = |from: usize| memchr::memchr(b'"', &bytes[from..]).map(|length| from + length).ok_or(NotPlain);
    let mut end = quote(from)?;
    if bytes.get(end + 1) != Some(&b'"') {
        return Ok((&bytes[from..end], end + 1));
    }
    unquoted.clear();
    let mut start = from;
    while bytes.get(end + 1) == Some(&b'"') {
        // Of two quotes the first one is kept.
        unquoted.extend_from_slice(&bytes[start..=end]);
        start = end + 2;
        end = quote(start)?;
    }
    unquoted.extend_from_slice(&bytes[start..end]);
    Ok((unquoted, end + 1))
}

/// The integer of at most 18 digits that begins at `at`, and the offset of its end.
#[inline]
fn int_at(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let is_negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(is_negative);
    let mut value = 0i64;
    let mut end = start;
    while let Some(digit) = bytes.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        if end - start == 18 {
            return None;
        }
        value = value * 10 + i64::from(digit);
        end += 1;
    }
    // Neither `007` nor the empty text is an integer.
    let is_one = end > start && (bytes[start] != b'0' || end == start + 1 && !is_negative);
    is_one.then_some((if is_negative { -value } else { value }, end))
}

/// The number of digits from `at` on; eight at a time.
#[inline]
fn digits(bytes: &[u8], at: usize) -> usize {
    const EACH: u64 = u64::MAX / 255;
    let mut end = at;
    while let Some(eight) = bytes.get(end..).and_then(|rest| rest.first_chunk()) {
        let value = u64::from_le_bytes(*eight) ^ (EACH * u64::from(b'0'));
        // The upper bit of each byte that is not a digit: a digit is at most 9, and 9 + 118 < 128.
        let others = (((value & (EACH * 127)) + EACH * 118) | value) & (EACH * 128);
        if others != 0 {
            return end + others.trailing_zeros() as usize / 8 - at;
        }
        end += 8;
    }
    end + bytes[end..].iter().take_while(|byte| byte.is_ascii_digit()).count() - at
}

/// The end of the integer that begins at `at`, if [`int_at`] accepts it.
#[inline]
fn end_of_int(bytes: &[u8], at: usize) -> Option<usize> {
    let is_negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(is_negative);
    let length = digits(bytes, start);
    let is_one = matches!(length, 1..=18) && (bytes[start] != b'0' || length == 1 && !is_negative);
    is_one.then_some(start + length)
}

/// The end of the number that begins at `at`, without its value. Only for numbers of which a
/// float loses nothing, whatever their digits are.
#[inline]
fn end_of_float(bytes: &[u8], at: usize) -> Option<usize> {
    let start = at + usize::from(bytes.get(at) == Some(&b'-'));
    let whole = digits(bytes, start);
    // Less than 2^53, and without leading zeros.
    let is_safe = matches!(whole, 1..=15) && (whole == 1 || bytes[start] != b'0');
    let point = start + whole;
    if !is_safe || bytes.get(point) != Some(&b'.') {
        return is_safe.then_some(point);
    }
    let decimals = digits(bytes, point + 1);
    // The least number with 300 decimals is a normal float: it does not underflow.
    matches!(decimals, 1..=300).then_some(point + 1 + decimals)
}

/// The number that begins at `at`, and the offset of its end. Only for numbers that need no
/// further checks.
#[inline]
fn float_at(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let start = at + usize::from(bytes.get(at) == Some(&b'-'));
    match (bytes.get(start)?, bytes.get(start + 1)) {
        (b'1'..=b'9', _) | (b'0', Some(b'.')) => {}
        _ => return None,
    }
    let (value, length): (f64, usize) = fast_float2::parse_partial(&bytes[at..]).ok()?;
    // Zero, and numbers that may have lost digits, need the full check.
    let is_safe = value.abs() < (1u64 << 53) as f64 && value.abs() > f64::MIN_POSITIVE;
    is_safe.then_some((value, at + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers with too many digits are left to the full check.
    #[test]
    fn a_number_that_underflows_is_not_skipped_as_a_number() {
        for zeros in 290..340 {
            let field = format!("0.{}1", "0".repeat(zeros));
            if end_of_float(field.as_bytes(), 0) == Some(field.len()) {
                assert!(float(field.as_bytes()).is_some(), "{zeros}");
            }
        }
    }

    proptest! {
        /// The fast parser accepts only fields that the slow one accepts, with the same value.
        #[test]
        fn the_fast_parser_reads_numbers_like_the_slow_one(field in "-?[0-9]{0,20}(\\.[0-9]{0,20})?(e-?[0-9]{1,3})?") {
            let line = format!("{field},x");
            if let Some((value, end)) = int_at(line.as_bytes(), 0) && end == field.len() {
                prop_assert_eq!(int(field.as_bytes()), Some(value));
            }
            if let Some((value, end)) = float_at(line.as_bytes(), 0) && end == field.len() {
                prop_assert_eq!(float(field.as_bytes()).map(f64::to_bits), Some(value.to_bits()));
            }
        }

        /// A field that is only checked has the same type as when it is decoded.
        #[test]
        fn checking_accepts_only_numbers_that_can_be_decoded(
            field in "-?[0-9]{0,20}(\\.[0-9]{0,20}|\\.0{290,340}[0-9]{0,2})?(e-?[0-9]{1,3})?[a-z]?",
            rest in ",[0-9]{0,9}",
        ) {
            let (line, end) = (format!("{field}{rest}"), Some(field.len()));
            let bytes = line.as_bytes();
            if end_of_int(bytes, 0) == end {
                prop_assert!(int(field.as_bytes()).is_some(), "{}", field);
            }
            if end_of_float(bytes, 0) == end {
                prop_assert!(float(field.as_bytes()).is_some(), "{}", field);
            }
            // And it accepts all integers that the fast parser accepts.
            prop_assert_eq!(end_of_int(bytes, 0), int_at(bytes, 0).map(|(_, end)| end));
        }

        #[test]
        fn digits_are_counted_whatever_follows(bytes in prop::collection::vec(prop_oneof![48u8..58, any::<u8>()], 0..40)) {
            for at in 0..=bytes.len() {
                let expected = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                prop_assert_eq!(digits(&bytes, at), expected);
            }
        }
    }
}
