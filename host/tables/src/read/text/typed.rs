//! CSV whose types are known, straight into columns.
//!
//! A block is read field by field into vectors of their type: no text is kept, and a number
//! ends where its digits do. Whatever is not plain (a value of another type, a record with too
//! many fields, something behind a closing quote) is no error here but a reason to read the
//! block again the careful way, which says what is wrong.

use std::sync::Arc;

use ::arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use ::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use ::arrow::datatypes::DataType as ArrowType;

use super::infer::{Kind, RawColumn, float, int};

enum Values {
    Int(Vec<i64>),
    Float(Vec<f64>),
    Text {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
    },
    /// Other types, as text.
    Raw(RawColumn),
    /// Looked at for its type alone; so much text there was.
    Checked(Check, usize),
    /// Nobody asked for it.
    Skipped,
}

/// What holds of values that nobody wants.
#[derive(Clone, Copy)]
enum Check {
    Int,
    Float,
    Text,
}

/// A column on its way.
struct ColumnSoFar {
    values: Values,
    to: ArrowType,
    /// Whether the type was inferred.
    is_inferred: bool,
    /// No value was seen so far.
    is_untyped: bool,
    /// Rows without a value.
    missing: Vec<usize>,
}

/// What a column is to be read as.
pub(in crate::read) struct Wanted {
    /// As what; none if nobody asked for it.
    pub(in crate::read) to: Option<ArrowType>,
    /// Whether that was inferred, and from what.
    pub(in crate::read) inferred: Option<Kind>,
    /// Whether somebody wants its values, and not its type alone.
    pub(in crate::read) is_kept: bool,
}

/// The columns of one block on their way.
pub(in crate::read) struct Typed<'a> {
    delimiter: u8,
    missing: &'a [&'a [u8]],
    /// Whether the empty field is missing, and nothing that begins like a number is.
    is_plain: bool,
    columns: Vec<ColumnSoFar>,
    rows: usize,
    /// A field whose quotes were doubled, without.
    unquoted: Vec<u8>,
}

/// Why a block is read again: it is not as plain as it seemed.
pub(in crate::read) struct NotPlain;

type Plain<T> = Result<T, NotPlain>;

impl<'a> Typed<'a> {
    pub(in crate::read) fn new(wanted: Vec<Wanted>, delimiter: u8, missing: &'a [&'a [u8]], rows: usize) -> Self {
        let column = |Wanted { to, inferred, is_kept }: Wanted| {
            let is_inferred = inferred.is_some();
            let values = match &to {
                None => Values::Skipped,
                Some(ArrowType::Int64) if is_inferred && !is_kept => Values::Checked(Check::Int, 0),
                Some(ArrowType::Float64) if is_inferred && !is_kept => Values::Checked(Check::Float, 0),
                Some(ArrowType::Utf8) if inferred != Some(Kind::Missing) && !is_kept => Values::Checked(Check::Text, 0),
                Some(ArrowType::Int64) if is_inferred => Values::Int(Vec::with_capacity(rows)),
                Some(ArrowType::Float64) if is_inferred => Values::Float(Vec::with_capacity(rows)),
                Some(ArrowType::Utf8) if inferred != Some(Kind::Missing) => {
                    let mut offsets = Vec::with_capacity(rows + 1);
                    offsets.push(0);
                    Values::Text { bytes: Vec::with_capacity(rows * 8), offsets }
                }
                Some(_) => Values::Raw(RawColumn::default()),
            };
            let is_untyped = inferred == Some(Kind::Missing);
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

    /// Rows read.
    pub(in crate::read) fn rows(&self) -> usize {
        self.rows
    }

    /// Reads a block to its end.
    pub(in crate::read) fn block(&mut self, bytes: &[u8]) -> Plain<()> {
        // A carriage return by itself ends a line, too.
        let ends_line = |at: usize| bytes.get(at + 1) == Some(&b'\n');
        if !memchr::memchr_iter(b'\r', bytes).all(ends_line) {
            return Err(NotPlain);
        }
        let is_checked = |column: &ColumnSoFar| matches!(column.values, Values::Checked(Check::Text, _));
        // Text that nobody wants is looked at all together.
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
            for place in 0..=last {
                at = self.field(place, bytes, at)?;
                if place == last && bytes.get(at) == Some(&b'\r') {
                    at += 1;
                }
                let ends_as_it_should = match bytes.get(at) {
                    Some(byte) => *byte == if place == last { b'\n' } else { self.delimiter },
                    None => place == last,
                };
                if !ends_as_it_should {
                    return Err(NotPlain);
                }
                at += 1;
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// Reads a field that begins here; gives the place behind it.
    #[inline]
    fn field(&mut self, place: usize, bytes: &[u8], at: usize) -> Plain<usize> {
        let Self { delimiter, is_plain, columns, missing, rows, unquoted } = self;
        let column = &mut columns[place];
        let is_end = |at: usize| bytes.get(at).is_none_or(|byte| *byte == *delimiter || *byte == b'\n');
        if *is_plain {
            match &mut column.values {
                Values::Int(values) => {
                    if let Some((value, end)) = int_at(bytes, at)
                        && is_end(end)
                    {
                        values.push(value);
                        return Ok(end);
                    }
                }
                Values::Float(values) => {
                    if let Some((value, end)) = float_at(bytes, at)
                        && is_end(end)
                    {
                        values.push(value);
                        return Ok(end);
                    }
                }
                Values::Checked(Check::Int, _) => {
                    if let Some(end) = end_of_int(bytes, at).filter(|end| is_end(*end)) {
                        return Ok(end);
                    }
                }
                Values::Checked(Check::Float, _) => {
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
        if is_missing && !matches!(column.values, Values::Checked(..)) {
            column.missing.push(*rows);
        }
        match &mut column.values {
            Values::Checked(check, text) if !is_missing => match check {
                Check::Int => drop(int(field).ok_or(NotPlain)?),
                Check::Float => drop(float(field).ok_or(NotPlain)?),
                Check::Text => *text += field.len(),
            },
            Values::Checked(..) => {}
            Values::Int(values) => values.push(if is_missing { 0 } else { int(field).ok_or(NotPlain)? }),
            Values::Float(values) => values.push(if is_missing { 0.0 } else { float(field).ok_or(NotPlain)? }),
            Values::Text { bytes, offsets } => {
                if !is_missing {
                    bytes.extend_from_slice(field);
                }
                offsets.push(i32::try_from(bytes.len()).map_err(|_| NotPlain)?);
            }
            Values::Raw(raw) => {
                if column.is_untyped && !is_missing {
                    return Err(NotPlain);
                }
                raw.push(field, is_missing);
            }
            Values::Skipped => {}
        }
        Ok(end)
    }

    /// Bytes of the largest column of text.
    pub(in crate::read) fn largest(&self) -> usize {
        let bytes = |column: &ColumnSoFar| match &column.values {
            Values::Text { bytes, .. } => bytes.len(),
            Values::Raw(raw) => raw.bytes(),
            Values::Checked(_, text) => *text,
            _ => 0,
        };
        self.columns.iter().map(bytes).max().unwrap_or(0)
    }

    /// The columns that were asked for: their place, type and values, if those are wanted.
    pub(in crate::read) fn finish(self) -> Plain<Vec<(usize, ArrowType, Option<ArrayRef>)>> {
        let rows = self.rows;
        let mut out = Vec::with_capacity(self.columns.len());
        for (place, ColumnSoFar { values, to, is_inferred, missing, .. }) in self.columns.into_iter().enumerate() {
            let nulls = || {
                (!missing.is_empty()).then(|| {
                    let mut valid = vec![true; rows];
                    missing.iter().for_each(|row| valid[*row] = false);
                    NullBuffer::new(BooleanBuffer::from(valid))
                })
            };
            let array: ArrayRef = match values {
                Values::Skipped => continue,
                Values::Checked(..) => {
                    out.push((place, to, None));
                    continue;
                }
                Values::Int(values) => Arc::new(Int64Array::new(values.into(), nulls())),
                Values::Float(values) => Arc::new(Float64Array::new(values.into(), nulls())),
                Values::Text { bytes, offsets } => {
                    let offsets = OffsetBuffer::new(offsets.into());
                    Arc::new(StringArray::try_new(offsets, bytes.into(), nulls()).map_err(|_| NotPlain)?)
                }
                Values::Raw(raw) => raw.parse(&to, is_inferred).map_err(|_| NotPlain)?,
            };
            out.push((place, to, Some(array)));
        }
        Ok(out)
    }
}

/// A field behind a quote: what is in it, and the place behind its last quote.
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
        // Of two quotes the first one stays.
        unquoted.extend_from_slice(&bytes[start..=end]);
        start = end + 2;
        end = quote(start)?;
    }
    unquoted.extend_from_slice(&bytes[start..end]);
    Ok((unquoted, end + 1))
}

/// An integer of at most 18 digits that begins here, and where it ends.
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
    // `007` is no number, nor is nothing.
    let is_one = end > start && (bytes[start] != b'0' || end == start + 1 && !is_negative);
    is_one.then_some((if is_negative { -value } else { value }, end))
}

/// Digits from here on, eight at a time.
#[inline]
fn digits(bytes: &[u8], at: usize) -> usize {
    const EACH: u64 = u64::MAX / 255;
    let mut end = at;
    while let Some(eight) = bytes.get(end..).and_then(|rest| rest.first_chunk()) {
        let value = u64::from_le_bytes(*eight) ^ (EACH * u64::from(b'0'));
        // The upper bit of each byte that is no digit: a digit is at most 9, and 118 more is below 128.
        let others = (((value & (EACH * 127)) + EACH * 118) | value) & (EACH * 128);
        if others != 0 {
            return end + others.trailing_zeros() as usize / 8 - at;
        }
        end += 8;
    }
    end + bytes[end..].iter().take_while(|byte| byte.is_ascii_digit()).count() - at
}

/// Where an integer ends that begins here, if [`int_at`] would take it.
#[inline]
fn end_of_int(bytes: &[u8], at: usize) -> Option<usize> {
    let is_negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(is_negative);
    let length = digits(bytes, start);
    let is_one = matches!(length, 1..=18) && (bytes[start] != b'0' || length == 1 && !is_negative);
    is_one.then_some(start + length)
}

/// Where a number ends that begins here, without what it is: of those in which nothing is lost,
/// whatever the digits are.
#[inline]
fn end_of_float(bytes: &[u8], at: usize) -> Option<usize> {
    let start = at + usize::from(bytes.get(at) == Some(&b'-'));
    let whole = digits(bytes, start);
    // Less than 2^53, and no zero before others.
    let is_safe = matches!(whole, 1..=15) && (whole == 1 || bytes[start] != b'0');
    let point = start + whole;
    if !is_safe || bytes.get(point) != Some(&b'.') {
        return is_safe.then_some(point);
    }
    let behind = digits(bytes, point + 1);
    // The least that so many digits say is no zero and has all its bits.
    matches!(behind, 1..=300).then_some(point + 1 + behind)
}

/// A number that begins here, of those that nothing can be said against, and where it ends.
#[inline]
fn float_at(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let start = at + usize::from(bytes.get(at) == Some(&b'-'));
    match (bytes.get(start)?, bytes.get(start + 1)) {
        (b'1'..=b'9', _) | (b'0', Some(b'.')) => {}
        _ => return None,
    }
    let (value, length): (f64, usize) = fast_float2::parse_partial(&bytes[at..]).ok()?;
    // What may have lost digits, and zero, are looked at in full.
    let is_safe = value.abs() < (1u64 << 53) as f64 && value.abs() > f64::MIN_POSITIVE;
    is_safe.then_some((value, at + length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Too many digits to tell are left to whoever parses.
    #[test]
    fn a_number_that_nobody_wants_is_none_if_it_is_too_small_to_be_read() {
        for zeros in 290..340 {
            let field = format!("0.{}1", "0".repeat(zeros));
            if end_of_float(field.as_bytes(), 0) == Some(field.len()) {
                assert!(float(field.as_bytes()).is_some(), "{zeros}");
            }
        }
    }

    proptest! {
        /// The fast way takes nothing that the careful one does not, and reads it alike.
        #[test]
        fn numbers_at_a_place_are_those_of_the_whole_field(field in "-?[0-9]{0,20}(\\.[0-9]{0,20})?(e-?[0-9]{1,3})?") {
            let line = format!("{field},x");
            if let Some((value, end)) = int_at(line.as_bytes(), 0) && end == field.len() {
                prop_assert_eq!(int(field.as_bytes()), Some(value));
            }
            if let Some((value, end)) = float_at(line.as_bytes(), 0) && end == field.len() {
                prop_assert_eq!(float(field.as_bytes()).map(f64::to_bits), Some(value.to_bits()));
            }
        }

        /// What is not decoded has the type that it has when it is.
        #[test]
        fn numbers_that_nobody_wants_are_those_that_are_read(
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
            // And of integers all that are read the fast way.
            prop_assert_eq!(end_of_int(bytes, 0), int_at(bytes, 0).map(|(_, end)| end));
        }

        #[test]
        fn digits_are_counted_whatever_comes_behind(bytes in prop::collection::vec(prop_oneof![48u8..58, any::<u8>()], 0..40)) {
            for at in 0..=bytes.len() {
                let expected = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                prop_assert_eq!(digits(&bytes, at), expected);
            }
        }
    }
}
