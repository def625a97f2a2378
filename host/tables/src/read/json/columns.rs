//! Lines of JSON whose columns are known, straight into them.

use std::sync::Arc;

use ::arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use ::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField};
use ::arrow::error::ArrowError;
use ::arrow::json::reader::ReaderBuilder;

use super::kind::{Kind, exact, int};
use super::lexer::{Member, Value};

enum Values {
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
    Text {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
    },
    /// Of a type that was given: as written, each on a line. What it may mean says arrow.
    Given(Vec<u8>),
    /// Nobody wants more than its type.
    Checked,
}

/// A value that its column cannot hold.
pub(super) enum Misfit {
    Kind,
    /// An integer that a float would not hold to the last digit.
    Digits,
}

/// A column on its way.
pub(super) struct Column {
    kind: Kind,
    given: Option<ArrowType>,
    values: Values,
    rows: usize,
    /// Rows without a value.
    missing: Vec<usize>,
    /// Where the last of a text begins.
    last: usize,
}

impl Column {
    /// With room for so many rows.
    pub(super) fn new(kind: Kind, given: Option<&ArrowType>, is_kept: bool, rows: usize) -> Self {
        let values = match kind {
            _ if given.is_some() => Values::Given(Vec::new()),
            _ if !is_kept || kind == Kind::Nested => Values::Checked,
            Kind::Int => Values::Int(Vec::with_capacity(rows)),
            Kind::Huge | Kind::Float => Values::Float(Vec::with_capacity(rows)),
            Kind::Bool => Values::Bool(Vec::with_capacity(rows)),
            _ => {
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                Values::Text { bytes: Vec::with_capacity(rows * 8), offsets }
            }
        };
        Self { kind, given: given.cloned(), values, rows: 0, missing: Vec::new(), last: 0 }
    }

    /// Rows so far.
    #[inline]
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a value.
    #[inline]
    pub(super) fn push(&mut self, member: &Member<'_>) -> Result<(), Misfit> {
        let Member { value, written, .. } = member;
        match (&mut self.values, value) {
            (Values::Int(values), Value::Number { is_integer: true }) => {
                values.push(int(written).ok_or(Misfit::Kind)?);
            }
            (Values::Float(values), Value::Number { is_integer: false }) => {
                values.push(fast_float2::parse(written).map_err(|_| Misfit::Kind)?);
            }
            (Values::Float(values), Value::Number { is_integer: true }) => {
                values.push(exact(written).ok_or(Misfit::Digits)?);
            }
            (Values::Text { bytes, offsets }, Value::Text(text)) => {
                bytes.extend_from_slice(text);
                // The reader cuts blocks long before 2 GiB.
                offsets.push(bytes.len() as i32);
            }
            (Values::Bool(values), Value::Bool(value)) => values.push(*value),
            (Values::Given(lines), _) => {
                if self.given == Some(ArrowType::Float64)
                    && *value == (Value::Number { is_integer: true })
                    && exact(written).is_none()
                {
                    return Err(Misfit::Digits);
                }
                self.last = lines.len();
                lines.extend_from_slice(written);
                lines.push(b'\n');
            }
            (_, Value::Null) => {
                self.push_null();
                return Ok(());
            }
            (Values::Checked, _) => match (self.kind, Kind::of(value, written)) {
                (Kind::Float | Kind::Huge, Kind::Int | Kind::Huge) => drop(exact(written).ok_or(Misfit::Digits)?),
                (Kind::Huge, Kind::Float) | (Kind::Null, Kind::Text) => {}
                (Kind::Nested, kind) if kind != Kind::Nested => {}
                (known, kind) if known == kind && kind != Kind::Nested => {}
                _ => return Err(Misfit::Kind),
            },
            _ => return Err(Misfit::Kind),
        }
        self.rows += 1;
        Ok(())
    }

    /// Adds that there is no value.
    pub(super) fn push_null(&mut self) {
        match &mut self.values {
            Values::Int(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Bool(values) => values.push(false),
            Values::Text { offsets, .. } => offsets.push(offsets.last().copied().unwrap_or(0)),
            Values::Given(lines) => {
                self.last = lines.len();
                lines.extend_from_slice(b"null\n");
            }
            Values::Checked => {}
        }
        if !matches!(self.values, Values::Given(_) | Values::Checked) {
            self.missing.push(self.rows);
        }
        self.rows += 1;
    }

    /// Takes back the last value: of several of one name the last holds.
    pub(super) fn pop(&mut self) {
        self.rows -= 1;
        if self.missing.last() == Some(&self.rows) {
            self.missing.pop();
        }
        match &mut self.values {
            Values::Int(values) => drop(values.pop()),
            Values::Float(values) => drop(values.pop()),
            Values::Bool(values) => drop(values.pop()),
            Values::Text { bytes, offsets } => {
                offsets.pop();
                bytes.truncate(offsets.last().map_or(0, |end| *end as usize));
            }
            Values::Given(lines) => lines.truncate(self.last),
            Values::Checked => {}
        }
    }

    pub(super) fn arrow(&self) -> ArrowType {
        self.given.clone().unwrap_or_else(|| self.kind.arrow())
    }

    /// All values; of a column that nobody wants none. Fails with the first row of which arrow
    /// cannot make the type that was given.
    pub(super) fn finish(self) -> Result<Option<ArrayRef>, (usize, ArrowError)> {
        let Self { values, rows, missing, given, .. } = self;
        let nulls = || {
            (!missing.is_empty()).then(|| {
                let mut valid = vec![true; rows];
                missing.iter().for_each(|row| valid[*row] = false);
                NullBuffer::new(BooleanBuffer::from(valid))
            })
        };
        Ok(Some(match values {
            Values::Checked => return Ok(None),
            Values::Int(values) => Arc::new(Int64Array::new(values.into(), nulls())),
            Values::Float(values) => Arc::new(Float64Array::new(values.into(), nulls())),
            Values::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls())),
            Values::Text { bytes, offsets } => {
                let array = StringArray::try_new(OffsetBuffer::new(offsets.into()), bytes.into(), nulls());
                Arc::new(array.map_err(|error| (0, error))?)
            }
            Values::Given(lines) => {
                let to = given.unwrap_or(ArrowType::Utf8);
                match as_given(&lines, rows, &to) {
                    Ok(array) => array,
                    Err(error) => {
                        let mut lines = lines.split_inclusive(|byte| *byte == b'\n');
                        let wrong = lines.position(|line| as_given(line, 1, &to).is_err());
                        return Err((wrong.unwrap_or(0), error));
                    }
                }
            }
        }))
    }
}

/// Values of JSON, each on a line, as arrow reads them.
fn as_given(lines: &[u8], rows: usize, to: &ArrowType) -> Result<ArrayRef, ArrowError> {
    let field = Arc::new(ArrowField::new("value", to.clone(), true));
    if rows == 0 {
        return Ok(::arrow::array::new_empty_array(to));
    }
    let mut decoder = ReaderBuilder::new_with_field(field).with_batch_size(rows).build_decoder()?;
    decoder.decode(lines)?;
    let batch = decoder.flush()?.filter(|batch| batch.num_rows() == rows);
    let short = || ArrowError::JsonError(format!("not {rows} values"));
    batch.map(|batch| batch.column(0).clone()).ok_or_else(short)
}
