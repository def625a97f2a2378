//! The types of text columns: the narrowest type that holds all values.

use std::sync::Arc;

use ::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use ::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use ::arrow::datatypes::{DataType as ArrowType, TimeUnit};
use millrace_expr::{parse_date, parse_timestamp};

/// The values that count as missing unless a pipeline lists others.
pub const MISSING: [&str; 1] = [""];

/// 2^53: floats represent all integers up to here exactly.
const EXACT: u64 = 1 << 53;

/// Kinds of values, ordered by inclusion; the join of two is the narrowest that holds both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::read) enum TextKind {
    /// Only missing values so far.
    Missing,
    Bool,
    Int,
    /// An integer that a float does not represent exactly.
    Long,
    Float,
    Date,
    Timestamp,
    TimestampUtc,
    Text,
}

impl TextKind {
    /// The kind of a value. A value is text if a number would lose some of it: `007`, `+1`,
    /// integers beyond 64 bits, `1e400`.
    pub(in crate::read) fn of(text: &[u8]) -> Self {
        match number(text) {
            Some(Number::Int(value)) if value.unsigned_abs() <= EXACT => return Self::Int,
            Some(Number::Int(_)) => return Self::Long,
            Some(Number::Float(_)) => return Self::Float,
            None => {}
        }
        match text.first() {
            Some(b'0'..=b'9' | b'-') => {
                let Ok(text) = std::str::from_utf8(text) else { return Self::Text };
                if parse_date(text).is_some() {
                    return Self::Date;
                }
                match parse_timestamp(text).filter(|_| is_micros(text)) {
                    Some((_, true)) => Self::TimestampUtc,
                    Some((_, false)) => Self::Timestamp,
                    None => Self::Text,
                }
            }
            Some(b't' | b'f' | b'T' | b'F') if boolean(text).is_some() => Self::Bool,
            _ => Self::Text,
        }
    }

    pub(in crate::read) fn join(self, other: Self) -> Self {
        use TextKind::{Date, Float, Int, Long, Missing, Text, Timestamp};
        match (self, other) {
            (a, b) if a == b => a,
            (Missing, a) | (a, Missing) => a,
            (Int, Float) | (Float, Int) => Float,
            (Int, Long) | (Long, Int) => Long,
            (Date, Timestamp) | (Timestamp, Date) => Timestamp,
            _ => Text,
        }
    }

    /// The widest kind, other than text, that further values may lead to.
    pub(in crate::read) fn wider(self) -> Self {
        match self {
            Self::Missing | Self::Int => Self::Float,
            Self::Date => Self::Timestamp,
            other => other,
        }
    }

    pub(in crate::read) fn arrow(self) -> ArrowType {
        match self {
            Self::Missing | Self::Text => ArrowType::Utf8,
            Self::Bool => ArrowType::Boolean,
            Self::Int | Self::Long => ArrowType::Int64,
            Self::Float => ArrowType::Float64,
            Self::Date => ArrowType::Date32,
            Self::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampUtc => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

enum Number {
    Int(i64),
    Float(f64),
}

/// A number, if it loses no digits of its text.
fn number(text: &[u8]) -> Option<Number> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits.first()? {
        b'0'..=b'9' | b'.' => {}
        b'n' | b'N' if text.eq_ignore_ascii_case(b"nan") => return Some(Number::Float(f64::NAN)),
        _ => return None,
    }
    if digits[0] == b'0' && digits.get(1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    if text == b"-0" {
        return Some(Number::Float(-0.0)); // an integer has no such zero
    }
    // Any 18 digits fit.
    if digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
        let value = digits.iter().fold(0i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        return Some(Number::Int(if digits.len() == text.len() { value } else { -value }));
    }
    if digits.iter().all(u8::is_ascii_digit) {
        return std::str::from_utf8(text).ok()?.parse().ok().map(Number::Int);
    }
    let value: f64 = fast_float2::parse(text).ok()?;
    // A number that overflows or underflows loses digits too.
    let mantissa = || digits.iter().take_while(|b| !b.eq_ignore_ascii_case(&b'e'));
    let kept = if value == 0.0 { mantissa().all(|b| matches!(b, b'0' | b'.')) } else { value.is_finite() };
    kept.then_some(Number::Float(value))
}

/// An integer, if inference accepts the text as one.
pub(in crate::read) fn int(text: &[u8]) -> Option<i64> {
    match number(text)? {
        Number::Int(value) => Some(value),
        Number::Float(_) => None,
    }
}

/// A float, if inference accepts the text as a number that a float holds.
pub(in crate::read) fn float(text: &[u8]) -> Option<f64> {
    match number(text)? {
        Number::Int(value) => (value.unsigned_abs() <= EXACT).then_some(value as f64),
        Number::Float(value) => Some(value),
    }
}

/// Whether microseconds hold all digits of a time.
fn is_micros(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.bytes().take_while(u8::is_ascii_digit).skip(6).all(|digit| digit == b'0')
}

/// Whether a float that was parsed as infinite is written as infinity: `inf` is, `1e400` is
/// not.
fn is_infinity(text: &str) -> bool {
    text.trim_start_matches(['+', '-']).starts_with(['i', 'I'])
}

/// A time in a unit, with or without a UTC offset in the text; `None` if the unit loses digits.
fn exact_time(text: &str, unit: TimeUnit) -> Option<i64> {
    let (local, minutes) = match text.len().checked_sub(6).and_then(|at| Some((text.get(..at)?, text.get(at..)?))) {
        Some((local, offset)) if offset.as_bytes()[3] == b':' && offset.starts_with(['+', '-']) => {
            let number = |range| -> Option<i64> {
                let digits: &str = offset.get(range)?;
                digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
            };
            let (hours, minutes) = (number(1..3)?, number(4..6)?);
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            // Only after a time, and not after a `Z`.
            let is_offset = hours < 24 && minutes < 60 && local.contains(':') && !local.ends_with('Z');
            (local, is_offset.then_some(sign * (hours * 60 + minutes))?)
        }
        _ => (text, 0),
    };
    let (micros, _) = parse_timestamp(local)?;
    let fraction = local.split_once('.').map_or("", |(_, fraction)| fraction.trim_end_matches('Z'));
    let beyond = fraction.get(6..).unwrap_or("");
    let nanos = beyond.bytes().chain(*b"000").take(3).fold(0, |nanos, digit| nanos * 10 + i128::from(digit - b'0'));
    let is_held = beyond.bytes().skip(3).all(|digit| digit == b'0');
    let nanos = i128::from(micros) * 1000 + nanos - i128::from(minutes) * 60_000_000_000;
    let per_unit = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    };
    (is_held && nanos % per_unit == 0).then(|| i64::try_from(nanos / per_unit).ok())?
}

fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"true" | b"True" | b"TRUE" => Some(true),
        b"false" | b"False" | b"FALSE" => Some(false),
        _ => None,
    }
}

/// The fields of one column of one part, as written in the file.
#[derive(Default)]
pub(in crate::read) struct RawColumn {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    missing: Vec<bool>,
    missing_count: usize,
}

/// A value that is not of the type of its column.
pub(in crate::read) struct Misfit {
    /// Counted from 0 in the part.
    pub(in crate::read) row: usize,
    pub(in crate::read) text: String,
}

impl RawColumn {
    pub(in crate::read) fn push(&mut self, field: &[u8], missing: bool) {
        if !missing {
            self.bytes.extend_from_slice(field);
        }
        self.ends.push(self.bytes.len());
        self.missing.push(missing);
        self.missing_count += usize::from(missing);
    }

    /// Removes the last field.
    pub(in crate::read) fn pop(&mut self) {
        self.ends.pop();
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.missing_count -= usize::from(self.missing.pop() == Some(true));
    }

    pub(in crate::read) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.missing.clear();
        self.missing_count = 0;
    }

    pub(in crate::read) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        (!self.missing[row]).then(|| &self.bytes[start..self.ends[row]])
    }

    fn misfit(&self, row: usize) -> Misfit {
        let text = String::from_utf8_lossy(self.get(row).unwrap_or_default());
        Misfit { row, text: text.chars().take(60).collect() }
    }

    /// The narrowest type of all values.
    pub(in crate::read) fn kind(&self) -> TextKind {
        let mut kind = TextKind::Missing;
        for row in 0..self.ends.len() {
            if let Some(text) = self.get(row) {
                kind = kind.join(TextKind::of(text));
                if kind == TextKind::Text {
                    break;
                }
            }
        }
        kind
    }

    fn nulls(&self) -> Option<NullBuffer> {
        let valid = || BooleanBuffer::collect_bool(self.missing.len(), |row| !self.missing[row]);
        (self.missing_count > 0).then(|| NullBuffer::new(valid()))
    }

    fn each<T: Default + Copy>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Misfit> {
        self.each_bytes(|text| parse(std::str::from_utf8(text).ok()?))
    }

    fn each_bytes<T: Default + Copy>(&self, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>, Misfit> {
        let mut out = Vec::with_capacity(self.ends.len());
        for row in 0..self.ends.len() {
            out.push(match self.get(row) {
                None => T::default(),
                Some(text) => parse(text).ok_or_else(|| self.misfit(row))?,
            });
        }
        Ok(out)
    }

    /// The column as an array of a type. With `strict`, only values are accepted from which
    /// inference would infer this type, so that the type of a column never depends on how its
    /// file is divided; without it, any value that can be read as the type is accepted.
    pub(in crate::read) fn parse(&self, to: &ArrowType, strict: bool) -> Result<ArrayRef, Misfit> {
        let nulls = self.nulls();
        macro_rules! number {
            ($array:ident, $native:ty) => {{
                let values = self.each(|text| text.trim().parse::<$native>().ok())?;
                Arc::new(::arrow::array::$array::new(ScalarBuffer::from(values), nulls)) as ArrayRef
            }};
        }
        Ok(match to {
            ArrowType::Utf8 => return self.text(nulls),
            ArrowType::Int64 if strict => Arc::new(Int64Array::new(self.each_bytes(int)?.into(), nulls)),
            ArrowType::Float64 if strict => Arc::new(Float64Array::new(self.each_bytes(float)?.into(), nulls)),
            ArrowType::Float64 => {
                let float = |text: &str| {
                    let text = text.trim();
                    text.parse::<f64>().ok().filter(|value| !value.is_infinite() || is_infinity(text))
                };
                Arc::new(Float64Array::new(self.each(float)?.into(), nulls))
            }
            ArrowType::Boolean => {
                let parse = |text: &str| match text {
                    "1" | "yes" | "Yes" if !strict => Some(true),
                    "0" | "no" | "No" if !strict => Some(false),
                    _ => boolean(text.as_bytes()),
                };
                Arc::new(BooleanArray::new(self.each(parse)?.into(), nulls))
            }
            ArrowType::Date32 => {
                let values = self.each(|text| parse_date(text).and_then(|days| i32::try_from(days).ok()))?;
                Arc::new(Date32Array::new(values.into(), nulls))
            }
            ArrowType::Timestamp(unit, _) if !strict => {
                let values = Int64Array::new(self.each(|text| exact_time(text.trim(), *unit))?.into(), nulls);
                ::arrow::compute::cast(&values, to).map_err(|_| self.misfit(0))?
            }
            ArrowType::Timestamp(unit, zone) => {
                let utc = |text: &str, is_utc: bool| is_utc == zone.is_some() || parse_date(text).is_some();
                let parse = |text: &str| {
                    let found = parse_timestamp(text).filter(|(_, is_utc)| utc(text, *is_utc))?;
                    is_micros(text).then_some(found.0)
                };
                let micros =
                    TimestampMicrosecondArray::new(self.each(parse)?.into(), nulls).with_timezone_opt(zone.clone());
                let to = ArrowType::Timestamp(*unit, zone.clone());
                ::arrow::compute::cast(&micros, &to).map_err(|_| self.misfit(0))?
            }
            ArrowType::Int8 => number!(Int8Array, i8),
            ArrowType::Int16 => number!(Int16Array, i16),
            ArrowType::Int32 => number!(Int32Array, i32),
            ArrowType::Int64 => number!(Int64Array, i64),
            ArrowType::UInt8 => number!(UInt8Array, u8),
            ArrowType::UInt16 => number!(UInt16Array, u16),
            ArrowType::UInt32 => number!(UInt32Array, u32),
            ArrowType::UInt64 => number!(UInt64Array, u64),
            ArrowType::Float32 => {
                let float = |text: &str| {
                    let text = text.trim();
                    text.parse::<f32>().ok().filter(|value| !value.is_infinite() || is_infinity(text))
                };
                Arc::new(Float32Array::new(self.each(float)?.into(), nulls))
            }
            _ => {
                let values = (0..self.ends.len()).map(|row| self.get(row));
                Arc::new(values.collect::<::arrow::array::BinaryArray>())
            }
        })
    }

    fn text(&self, nulls: Option<NullBuffer>) -> Result<ArrayRef, Misfit> {
        let mut offsets = Vec::with_capacity(self.ends.len() + 1);
        offsets.push(0);
        // Parts are cut long before 2 GiB.
        offsets.extend(self.ends.iter().map(|end| *end as i32));
        let array = StringArray::try_new(OffsetBuffer::new(offsets.into()), self.bytes.clone().into(), nulls);
        array.map(|array| Arc::new(array) as ArrayRef).map_err(|_| {
            let valid = |row: &usize| self.get(*row).is_none_or(|text| std::str::from_utf8(text).is_ok());
            let row = (0..self.ends.len()).find(|row| !valid(row)).unwrap_or(0);
            self.misfit(row)
        })
    }
}
