//! Lines of JSON whose columns are known, read straight into these columns.

use std::sync::Arc;

use ::arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use ::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField};
use ::arrow::error::ArrowError;
use ::arrow::json::reader::ReaderBuilder;

use super::kind::{JsonKind, exact, int};
use super::lexer::{Member, Value};
use crate::read::text::infer::RawColumn;

enum JsonValues {
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
    Text {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
    },
    /// Values for a given type: text without its quotes, other values as written.
    Given(RawColumn),
    /// Values as written, each on a line: arrow decodes the bytes.
    Binary(Vec<u8>),
    /// Only the types of the values are checked; no step reads the values.
    Checked,
}

/// A value that its column cannot hold.
pub(super) enum Misfit {
    Kind,
    /// An integer that a float does not represent exactly.
    Digits,
}

/// A value that is not of the type given for its column.
pub(super) struct NotGiven {
    /// Counted from 0.
    pub(super) row: usize,
    /// The value.
    pub(super) text: String,
}

/// A column that is being read.
pub(super) struct Column {
    kind: JsonKind,
    given: Option<ArrowType>,
    values: JsonValues,
    rows: usize,
    /// Rows without a value.
    missing: Vec<u32>,
    /// The offset of the last line of `JsonValues::Binary`.
    last: usize,
}

impl Column {
    /// A column with room for `rows` rows.
    pub(super) fn new(kind: JsonKind, given: Option<&ArrowType>, is_kept: bool, rows: usize) -> Self {
        let values = match kind {
            _ if given == Some(&ArrowType::Binary) => JsonValues::Binary(Vec::new()),
            _ if given.is_some() => JsonValues::Given(RawColumn::default()),
            _ if !is_kept || kind == JsonKind::Nested => JsonValues::Checked,
            JsonKind::Int => JsonValues::Int(Vec::with_capacity(rows)),
            JsonKind::Huge | JsonKind::Float => JsonValues::Float(Vec::with_capacity(rows)),
            JsonKind::Bool => JsonValues::Bool(Vec::with_capacity(rows)),
            _ => {
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                JsonValues::Text { bytes: Vec::with_capacity(rows * 8), offsets }
            }
        };
        Self { kind, given: given.cloned(), values, rows: 0, missing: Vec::new(), last: 0 }
    }

    /// The rows so far; rows without a value after the last one are added later.
    #[inline]
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the value of a row; the rows before it that are not added yet have no value.
    #[inline]
    pub(super) fn push(&mut self, row: usize, member: &Member<'_>) -> Result<(), Misfit> {
        if self.rows < row {
            self.fill(row);
        }
        let Member { value, written, .. } = member;
        match (&mut self.values, value) {
            (JsonValues::Int(values), Value::Number { is_integer: true }) => {
                values.push(int(written).ok_or(Misfit::Kind)?);
            }
            (JsonValues::Float(values), Value::Number { is_integer: false }) => {
                values.push(fast_float2::parse(written).map_err(|_| Misfit::Kind)?);
            }
            (JsonValues::Float(values), Value::Number { is_integer: true }) => {
                values.push(exact(written).ok_or(Misfit::Digits)?);
            }
            (JsonValues::Text { bytes, offsets }, Value::Text(text)) => {
                bytes.extend_from_slice(text);
                // Blocks are cut long before 2 GiB.
                offsets.push(bytes.len() as i32);
            }
            (JsonValues::Bool(values), Value::Bool(value)) => values.push(*value),
            (_, Value::Null) => {
                self.fill(row + 1);
                return Ok(());
            }
            (JsonValues::Given(raw), _) => {
                let is_long = || exact(written).is_none();
                if self.given == Some(ArrowType::Float64) && *value == (Value::Number { is_integer: true }) && is_long()
                {
                    return Err(Misfit::Digits);
                }
                let text = match value {
                    Value::Text(text) => &**text,
                    _ => written,
                };
                raw.push(text, false);
            }
            (JsonValues::Binary(lines), _) => {
                self.last = lines.len();
                lines.extend_from_slice(written);
                lines.push(b'\n');
            }
            (JsonValues::Checked, _) => match (self.kind, JsonKind::of(value, written)) {
                (JsonKind::Float | JsonKind::Huge, JsonKind::Int | JsonKind::Huge) => {
                    exact(written).ok_or(Misfit::Digits)?;
                }
                (JsonKind::Huge, JsonKind::Float) | (JsonKind::Null, JsonKind::Text) => {}
                (JsonKind::Nested, kind) if kind != JsonKind::Nested => {}
                (known, kind) if known == kind && kind != JsonKind::Nested => {}
                _ => return Err(Misfit::Kind),
            },
            _ => return Err(Misfit::Kind),
        }
        self.rows += 1;
        Ok(())
    }

    /// Extends the column to `rows` rows; the new ones have no value.
    pub(super) fn fill(&mut self, rows: usize) {
        let more = rows.saturating_sub(self.rows);
        match &mut self.values {
            JsonValues::Int(values) => values.resize(rows, 0),
            JsonValues::Float(values) => values.resize(rows, 0.0),
            JsonValues::Bool(values) => values.resize(rows, false),
            JsonValues::Text { offsets, .. } => offsets.resize(rows + 1, offsets.last().copied().unwrap_or(0)),
            JsonValues::Given(raw) => (0..more).for_each(|_| raw.push(b"", true)),
            JsonValues::Binary(lines) => {
                for _ in 0..more {
                    self.last = lines.len();
                    lines.extend_from_slice(b"null\n");
                }
            }
            JsonValues::Checked => {}
        }
        if !matches!(self.values, JsonValues::Given(_) | JsonValues::Binary(_) | JsonValues::Checked) {
            // A block has fewer than 2^32 bytes.
            self.missing.extend(self.rows as u32..rows as u32);
        }
        self.rows = rows;
    }

    /// Removes the last value: of several members with one name, the last counts.
    pub(super) fn pop(&mut self) {
        self.rows -= 1;
        if self.missing.last().is_some_and(|row| *row as usize == self.rows) {
            self.missing.pop();
        }
        match &mut self.values {
            JsonValues::Int(values) => drop(values.pop()),
            JsonValues::Float(values) => drop(values.pop()),
            JsonValues::Bool(values) => drop(values.pop()),
            JsonValues::Text { bytes, offsets } => {
                offsets.pop();
                bytes.truncate(offsets.last().map_or(0, |end| *end as usize));
            }
            JsonValues::Given(raw) => raw.pop(),
            JsonValues::Binary(lines) => lines.truncate(self.last),
            JsonValues::Checked => {}
        }
    }

    pub(super) fn arrow(&self) -> ArrowType {
        self.given.clone().unwrap_or_else(|| self.kind.arrow())
    }

    /// All values; `None` for a column that was only checked. Fails with the first value that is
    /// not of the given type.
    pub(super) fn finish(self) -> Result<Option<ArrayRef>, NotGiven> {
        let Self { values, rows, missing, given, .. } = self;
        let nulls = || {
            (!missing.is_empty()).then(|| {
                let mut valid = vec![true; rows];
                missing.iter().for_each(|row| valid[*row as usize] = false);
                NullBuffer::new(BooleanBuffer::from(valid))
            })
        };
        Ok(Some(match values {
            JsonValues::Checked => return Ok(None),
            JsonValues::Int(values) => Arc::new(Int64Array::new(values.into(), nulls())),
            JsonValues::Float(values) => Arc::new(Float64Array::new(values.into(), nulls())),
            JsonValues::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls())),
            JsonValues::Text { bytes, offsets } => {
                let array = StringArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), nulls());
                Arc::new(array.map_err(|error| NotGiven { row: 0, text: error.to_string() })?)
            }
            JsonValues::Given(raw) => {
                let to = given.unwrap_or(ArrowType::Utf8);
                raw.parse(&to, false).map_err(|misfit| NotGiven { row: misfit.row, text: misfit.text })?
            }
            JsonValues::Binary(lines) => binary(&lines, rows).or_else(|error| {
                let wrong = |(row, line)| binary(line, 1).err().map(|_| (row, line));
                let (row, line) = (0..)
                    .zip(lines.split_inclusive(|byte| *byte == b'\n'))
                    .find_map(wrong)
                    .ok_or_else(|| NotGiven { row: 0, text: error.to_string() })?;
                let text = String::from_utf8_lossy(line.trim_ascii()).chars().take(60).collect();
                Err(NotGiven { row, text })
            })?,
        }))
    }
}

/// Decodes binary values, each on a line, from the hexadecimal digits that an export writes.
fn binary(lines: &[u8], rows: usize) -> Result<ArrayRef, ArrowError> {
    let field = Arc::new(ArrowField::new("value", ArrowType::Binary, true));
    if rows == 0 {
        return Ok(::arrow::array::new_empty_array(&ArrowType::Binary));
    }
    let mut decoder = ReaderBuilder::new_with_field(field).with_batch_size(rows).build_decoder()?;
    decoder.decode(lines)?;
    let batch = decoder.flush()?.filter(|batch| batch.num_rows() == rows);
    let short = || ArrowError::JsonError(format!("not {rows} values"));
    batch.map(|batch| batch.column(0).clone()).ok_or_else(short)
}
