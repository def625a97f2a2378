//! Evaluates a checked tree over columns of a block of rows. Loops run over all rows, and nulls
//! are handled separately, so that they vectorise; only what can fail goes row by row.
//!
//! Long because every operator is here, with the loops of most of them; nothing else is.

use std::borrow::Cow;
use std::fmt::Write;

use arrow_array::{BooleanArray, Date32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, TimeUnit};

use crate::check::{Checked, Function, Op, Type, Typed, days_to_micros};
use crate::column::{Column, Values as Stored};
use crate::error::ExprError;
use crate::hash;
use crate::loops;
use crate::math;
use crate::parse::{Arith, Compare, Literal, Span};
use crate::time::{DAY_US, civil, parse_date, parse_timestamp};

/// 2^63: the first float that is too large for an `i64`.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// The same value in every row, or one for each.
enum Values<T: ArrowNativeType> {
    One(T),
    Many(ScalarBuffer<T>),
}

enum Texts {
    One(String),
    Many(StringArray),
}

impl Texts {
    fn get(&self, row: usize) -> &str {
        match self {
            Self::One(text) => text,
            Self::Many(array) => array.value(row),
        }
    }
}

enum Data {
    /// Integers, days, microseconds.
    Int(Values<i64>),
    Float(Values<f64>),
    Bool(BooleanBuffer),
    Text(Texts),
}

struct Vector {
    data: Data,
    nulls: Option<NullBuffer>,
}

type Result<T> = std::result::Result<T, ExprError>;

impl<T: ArrowNativeType> Values<T> {
    fn get(&self, row: usize) -> T {
        match self {
            Self::One(value) => *value,
            Self::Many(values) => values[row],
        }
    }

    fn slice(&self, rows: usize) -> Cow<'_, [T]> {
        match self {
            Self::One(value) => Cow::Owned(vec![*value; rows]),
            Self::Many(values) => Cow::Borrowed(values),
        }
    }

    fn expand(self, rows: usize) -> ScalarBuffer<T> {
        match self {
            Self::One(value) => vec![value; rows].into(),
            Self::Many(values) => values,
        }
    }

    fn map<R: ArrowNativeType>(&self, f: impl Fn(T) -> R) -> Values<R> {
        match self {
            Self::One(value) => Values::One(f(*value)),
            Self::Many(values) => Values::Many(values.iter().map(|value| f(*value)).collect::<Vec<R>>().into()),
        }
    }
}

impl Values<f64> {
    /// As [`Values::map`], with a function of all values at once.
    fn map_all(&self, f: impl Fn(&[f64]) -> Vec<f64>) -> Self {
        match self {
            Self::One(value) => Self::One(f(&[*value])[0]),
            Self::Many(values) => Self::Many(f(values).into()),
        }
    }
}

fn zip<T, R>(a: &Values<T>, b: &Values<T>, f: impl Fn(T, T) -> R) -> Values<R>
where
    T: ArrowNativeType,
    R: ArrowNativeType,
{
    match (a, b) {
        (Values::One(a), Values::One(b)) => Values::One(f(*a, *b)),
        (Values::One(a), Values::Many(b)) => Values::Many(b.iter().map(|b| f(*a, *b)).collect::<Vec<R>>().into()),
        (Values::Many(a), Values::One(b)) => Values::Many(a.iter().map(|a| f(*a, *b)).collect::<Vec<R>>().into()),
        (Values::Many(a), Values::Many(b)) => {
            Values::Many(a.iter().zip(b.iter()).map(|(a, b)| f(*a, *b)).collect::<Vec<R>>().into())
        }
    }
}

fn test<T: ArrowNativeType>(rows: usize, a: &Values<T>, b: &Values<T>, f: impl Fn(T, T) -> bool) -> BooleanBuffer {
    match (a, b) {
        (Values::One(a), Values::One(b)) => constant(f(*a, *b), rows),
        (Values::One(a), Values::Many(b)) => BooleanBuffer::collect_bool(rows, |i| f(*a, b[i])),
        (Values::Many(a), Values::One(b)) => BooleanBuffer::collect_bool(rows, |i| f(a[i], *b)),
        (Values::Many(a), Values::Many(b)) => BooleanBuffer::collect_bool(rows, |i| f(a[i], b[i])),
    }
}

fn constant(value: bool, rows: usize) -> BooleanBuffer {
    if value { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) }
}

fn texts(
    rows: usize,
    nulls: Option<&NullBuffer>,
    span: Span,
    mut write: impl FnMut(usize, &mut String),
) -> Result<StringArray> {
    let mut values = String::new();
    let mut ends = Vec::with_capacity(rows + 1);
    ends.push(0);
    for row in 0..rows {
        if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
            write(row, &mut values);
        }
        let too_long = |_| ExprError::at(span, "the texts of a part are longer than 2 GiB: make smaller parts");
        ends.push(i32::try_from(values.len()).map_err(too_long)?);
    }
    let offsets = OffsetBuffer::new(ends.into());
    StringArray::try_new(offsets, Buffer::from_vec(values.into_bytes()), None).map_err(|_| wrong_kind(span))
}

fn wrong_kind(span: Span) -> ExprError {
    ExprError::at(span, "a value does not have the type that its column declares")
}

impl Vector {
    fn new(data: Data, nulls: Option<NullBuffer>) -> Self {
        Self { data, nulls: nulls.filter(|nulls| nulls.null_count() > 0) }
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    fn int(&self, span: Span) -> Result<&Values<i64>> {
        match &self.data {
            Data::Int(values) => Ok(values),
            _ => Err(wrong_kind(span)),
        }
    }

    fn float(&self, span: Span) -> Result<&Values<f64>> {
        match &self.data {
            Data::Float(values) => Ok(values),
            _ => Err(wrong_kind(span)),
        }
    }

    fn bool(&self, span: Span) -> Result<&BooleanBuffer> {
        match &self.data {
            Data::Bool(values) => Ok(values),
            _ => Err(wrong_kind(span)),
        }
    }

    fn text(&self, span: Span) -> Result<&Texts> {
        match &self.data {
            Data::Text(values) => Ok(values),
            _ => Err(wrong_kind(span)),
        }
    }

    fn into_column(self, ty: Type, rows: usize, span: Span) -> Result<Column> {
        let nulls = self.nulls;
        Ok(match (self.data, ty) {
            (Data::Int(values), Type::Int) => Int64Array::new(values.expand(rows), nulls).into(),
            (Data::Int(values), Type::Time) => TimestampMicrosecondArray::new(values.expand(rows), nulls).into(),
            (Data::Int(values), Type::Date) => {
                // Days come from 32 bits or from a parsed date, which is smaller.
                let days: Vec<i32> = values.expand(rows).iter().map(|days| *days as i32).collect();
                Date32Array::new(days.into(), nulls).into()
            }
            (Data::Float(values), Type::Float) => Float64Array::new(values.expand(rows), nulls).into(),
            (Data::Bool(values), Type::Bool) => BooleanArray::new(values, nulls).into(),
            (Data::Text(Texts::Many(array)), Type::Text) => {
                let (offsets, values, _) = array.into_parts();
                StringArray::new(offsets, values, nulls).into()
            }
            (Data::Text(Texts::One(text)), Type::Text) => {
                let (offsets, values, _) =
                    texts(rows, nulls.as_ref(), span, |_, out| out.push_str(&text))?.into_parts();
                StringArray::new(offsets, values, nulls).into()
            }
            _ => return Err(wrong_kind(span)),
        })
    }
}

/// The texts that a text is concatenated from, in order.
fn pieces<'t>(node: &'t Typed, found: &mut Vec<&'t Typed>) {
    match &node.op {
        Op::Call(Function::Concat, texts) => texts.iter().for_each(|text| pieces(text, found)),
        _ => found.push(node),
    }
}

/// A number of characters: 0 for a negative number, and the same on 32-bit machines, such as a
/// guest, as on 64-bit ones.
fn count(number: i64) -> usize {
    number.clamp(0, i64::from(i32::MAX)) as usize
}

/// Text that is not ASCII follows the rules of Unicode: a character may change its length, and its
/// form at the end of a word.
fn lower(text: &str, out: &mut String) {
    if text.is_ascii() {
        out.extend(text.bytes().map(|byte| char::from(byte.to_ascii_lowercase())));
    } else {
        out.push_str(&text.to_lowercase());
    }
}

fn upper(text: &str, out: &mut String) {
    if text.is_ascii() {
        out.extend(text.bytes().map(|byte| char::from(byte.to_ascii_uppercase())));
    } else {
        out.push_str(&text.to_uppercase());
    }
}

impl Checked {
    /// Computes the column.
    ///
    /// # Errors
    /// When a value has no result, with its row: integer overflow, a text that is not a number.
    pub fn column(&self, columns: &[Column], rows: usize) -> Result<Column> {
        let evaluator = Evaluator { columns, rows, used: None };
        evaluator.eval(&self.root)?.into_column(self.root.ty, rows, self.root.span)
    }

    /// The rows for which a condition holds; null counts as false.
    ///
    /// # Errors
    /// As [`Self::column`], and when the expression is not boolean.
    pub fn mask(&self, columns: &[Column], rows: usize) -> Result<BooleanArray> {
        if self.root.ty != Type::Bool {
            let message = format!("expected a condition, found {}", self.root.ty);
            return Err(ExprError::at(self.root.span, message));
        }
        let vector = Evaluator { columns, rows, used: None }.eval(&self.root)?;
        let values = vector.bool(self.root.span)?;
        Ok(BooleanArray::new(valid_and(values, vector.nulls.as_ref()), None))
    }
}

fn valid_and(values: &BooleanBuffer, nulls: Option<&NullBuffer>) -> BooleanBuffer {
    match nulls {
        Some(nulls) => values & nulls.inner(),
        None => values.clone(),
    }
}

struct Evaluator<'a> {
    columns: &'a [Column],
    rows: usize,
    /// The rows whose result is used. All are computed, but the others never fail: values that a
    /// condition guards may be invalid where the condition does not hold.
    used: Option<BooleanBuffer>,
}

impl Evaluator<'_> {
    /// The same evaluator, where only these rows are used.
    fn over(&self, rows: &BooleanBuffer) -> Self {
        let used = self.used.as_ref().map_or_else(|| rows.clone(), |used| used & rows);
        Self { used: Some(used), ..*self }
    }

    /// Whether a row has a value, and its result is used.
    fn is_used(&self, row: usize, nulls: Option<&NullBuffer>) -> bool {
        nulls.is_none_or(|nulls| nulls.is_valid(row)) && self.used.as_ref().is_none_or(|used| used.value(row))
    }

    fn eval(&self, node: &Typed) -> Result<Vector> {
        let span = node.span;
        match &node.op {
            Op::Column(index) => match self.columns.get(*index) {
                Some(array) if array.len() == self.rows => self.load(array, span),
                _ => Err(ExprError::at(span, "the column is missing or has another number of rows")),
            },
            Op::Const(literal) => Ok(self.constant(literal, node.ty)),
            Op::Negate(inner) => {
                let inner = self.eval(inner)?;
                let data = match &inner.data {
                    Data::Int(values) => {
                        Data::Int(self.checked(span, &inner.nulls, values, values, |a, _| a.checked_neg())?)
                    }
                    _ => Data::Float(inner.float(span)?.map(|a| -a)),
                };
                Ok(Vector::new(data, inner.nulls))
            }
            Op::Not(inner) => {
                let inner = self.eval(inner)?;
                let flipped = !inner.bool(span)?;
                Ok(Vector::new(Data::Bool(flipped), inner.nulls))
            }
            Op::And(a, b) => self.logic(a, b, true),
            Op::Or(a, b) => self.logic(a, b, false),
            Op::IsNull(inner) => {
                let data = match self.eval(inner)?.nulls {
                    Some(nulls) => !nulls.inner(),
                    None => constant(false, self.rows),
                };
                Ok(Vector::new(Data::Bool(data), None))
            }
            Op::Like(inner, pattern) => {
                let inner = self.eval(inner)?;
                let texts = inner.text(span)?;
                let data = BooleanBuffer::collect_bool(self.rows, |row| pattern.matches(texts.get(row)));
                Ok(Vector::new(Data::Bool(data), inner.nulls))
            }
            Op::Arith(op, a, b) => self.arith(*op, a, b, span),
            Op::Compare(op, a, b) => self.compare(*op, &self.eval(a)?, &self.eval(b)?, span),
            Op::Cast(inner) => self.cast(inner, node.ty, span),
            Op::Case(arms, otherwise) => self.case(arms, otherwise, node.ty, span),
            Op::Call(function, args) => self.call(*function, args, node.ty, span),
        }
    }

    fn constant(&self, literal: &Literal, ty: Type) -> Vector {
        let data = match literal {
            Literal::Null => {
                let data = match ty {
                    Type::Bool => Data::Bool(constant(false, self.rows)),
                    Type::Int | Type::Date | Type::Time => Data::Int(Values::One(0)),
                    Type::Float => Data::Float(Values::One(0.0)),
                    Type::Text => Data::Text(Texts::One(String::new())),
                };
                return Vector::new(data, Some(NullBuffer::new_null(self.rows)));
            }
            Literal::Bool(value) => Data::Bool(constant(*value, self.rows)),
            Literal::Int(value) => Data::Int(Values::One(*value)),
            Literal::Float(value) => Data::Float(Values::One(*value)),
            Literal::Text(text) => Data::Text(Texts::One(text.clone())),
        };
        Vector::new(data, None)
    }

    /// Applies `each`, which has no result for some values. `all` is faster, but has no result
    /// for some blocks.
    fn fitting(
        &self,
        span: Span,
        nulls: &Option<NullBuffer>,
        a: &Values<i64>,
        b: &Values<i64>,
        all: fn(&[i64], &[i64]) -> Option<Vec<i64>>,
        each: fn(i64, i64) -> Option<i64>,
    ) -> Result<Values<i64>> {
        match all(&a.slice(self.rows), &b.slice(self.rows)) {
            Some(made) => Ok(Values::Many(made.into())),
            None => self.checked(span, nulls, a, b, each),
        }
    }

    /// Applies a function that has no result for some values.
    fn checked(
        &self,
        span: Span,
        nulls: &Option<NullBuffer>,
        a: &Values<i64>,
        b: &Values<i64>,
        f: impl Fn(i64, i64) -> Option<i64>,
    ) -> Result<Values<i64>> {
        let mut out = Vec::with_capacity(self.rows);
        for row in 0..self.rows {
            match f(a.get(row), b.get(row)) {
                Some(value) => out.push(value),
                None if !self.is_used(row, nulls.as_ref()) => out.push(0),
                None => {
                    let (a, b) = (a.get(row), b.get(row));
                    let message = format!("the result does not fit 64 bits (values {a} and {b})");
                    return Err(ExprError { row: Some(row), ..ExprError::at(span, message) });
                }
            }
        }
        Ok(Values::Many(out.into()))
    }

    fn arith(&self, op: Arith, a: &Typed, b: &Typed, span: Span) -> Result<Vector> {
        let (a, b) = (self.eval(a)?, self.eval(b)?);
        let mut nulls = NullBuffer::union(a.nulls.as_ref(), b.nulls.as_ref());
        let data = match (&a.data, &b.data) {
            (Data::Int(a), Data::Int(b)) => {
                if op == Arith::Rem {
                    // As in SQL: anything modulo zero is null.
                    let valid = test(self.rows, a, b, |_, b| b != 0);
                    nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::new(valid)));
                }
                Data::Int(match op {
                    Arith::Add => self.fitting(span, &nulls, a, b, loops::sums, i64::checked_add)?,
                    Arith::Sub => self.fitting(span, &nulls, a, b, loops::differences, i64::checked_sub)?,
                    Arith::Mul => self.fitting(span, &nulls, a, b, loops::products, i64::checked_mul)?,
                    _ => zip(a, b, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) }),
                })
            }
            (Data::Float(a), Data::Float(b)) => Data::Float(match op {
                Arith::Add => zip(a, b, |a, b| a + b),
                Arith::Sub => zip(a, b, |a, b| a - b),
                Arith::Mul => zip(a, b, |a, b| a * b),
                Arith::Div => zip(a, b, |a, b| a / b),
                Arith::Rem => zip(a, b, libm::fmod as fn(f64, f64) -> f64),
            }),
            _ => return Err(wrong_kind(span)),
        };
        Ok(Vector::new(data, nulls))
    }

    fn compare(&self, op: Compare, a: &Vector, b: &Vector, span: Span) -> Result<Vector> {
        fn by<T: PartialOrd + ArrowNativeType>(
            rows: usize,
            op: Compare,
            a: &Values<T>,
            b: &Values<T>,
        ) -> BooleanBuffer {
            // Three loops are enough, for NaN too: each is compiled for all shapes of both sides.
            match op {
                Compare::Eq => test(rows, a, b, |a, b| a == b),
                Compare::Lt => test(rows, a, b, |a, b| a < b),
                Compare::Le => test(rows, a, b, |a, b| a <= b),
                Compare::Ne => !&by(rows, Compare::Eq, a, b),
                Compare::Gt => by(rows, Compare::Lt, b, a),
                Compare::Ge => by(rows, Compare::Le, b, a),
            }
        }
        fn holds<T: PartialOrd + ?Sized>(op: Compare, a: &T, b: &T) -> bool {
            match op {
                Compare::Eq => a == b,
                Compare::Ne => a != b,
                Compare::Lt => a < b,
                Compare::Le => a <= b,
                Compare::Gt => a > b,
                Compare::Ge => a >= b,
            }
        }
        let rows = self.rows;
        let data = match (&a.data, &b.data) {
            (Data::Int(a), Data::Int(b)) => by(rows, op, a, b),
            (Data::Float(a), Data::Float(b)) => by(rows, op, a, b),
            (Data::Bool(a), Data::Bool(b)) => {
                BooleanBuffer::collect_bool(rows, |i| holds(op, &a.value(i), &b.value(i)))
            }
            (Data::Text(a), Data::Text(b)) => BooleanBuffer::collect_bool(rows, |i| holds(op, a.get(i), b.get(i))),
            _ => return Err(wrong_kind(span)),
        };
        Ok(Vector::new(Data::Bool(data), NullBuffer::union(a.nulls.as_ref(), b.nulls.as_ref())))
    }

    /// Three-valued logic: false wins in `and`, true in `or`, else null wins.
    fn logic(&self, a: &Typed, b: &Typed, and: bool) -> Result<Vector> {
        let left = self.eval(a)?;
        let x = left.bool(a.span)?;
        // Where the left side decides alone, the right one is not used.
        let undecided = if and { x.clone() } else { !x };
        let undecided = match &left.nulls {
            Some(nulls) => &undecided | &!nulls.inner(),
            None => undecided,
        };
        let right = self.over(&undecided).eval(b)?;
        let y = right.bool(b.span)?;
        if left.nulls.is_none() && right.nulls.is_none() {
            return Ok(Vector::new(Data::Bool(if and { x & y } else { x | y }), None));
        }
        let all = constant(true, self.rows);
        let valid = |nulls: &Option<NullBuffer>| nulls.as_ref().map_or(all.clone(), |nulls| nulls.inner().clone());
        let (x_valid, y_valid) = (valid(&left.nulls), valid(&right.nulls));
        let (x_true, y_true) = (x & &x_valid, y & &y_valid);
        let (x_false, y_false) = (&!x & &x_valid, &!y & &y_valid);
        let (is_true, is_false) =
            if and { (&x_true & &y_true, &x_false | &y_false) } else { (&x_true | &y_true, &x_false & &y_false) };
        let known = &is_true | &is_false;
        Ok(Vector::new(Data::Bool(is_true), Some(NullBuffer::new(known))))
    }

    fn cast(&self, inner: &Typed, to: Type, span: Span) -> Result<Vector> {
        let from = inner.ty;
        let inner = self.eval(inner)?;
        let fail = |row: usize, what: String| {
            let message = format!("{what} cannot be converted to {to}");
            Err(ExprError { row: Some(row), ..ExprError::at(span, message) })
        };
        let data = match (&inner.data, to) {
            (Data::Int(values), Type::Float) => Data::Float(values.map(|value| value as f64)),
            (Data::Int(values), Type::Bool) => Data::Bool(test(self.rows, values, &Values::One(0), |a, b| a != b)),
            (Data::Int(days), Type::Time) if from == Type::Date => {
                Data::Int(self.checked(span, &inner.nulls, days, days, |days, _| days_to_micros(days))?)
            }
            (Data::Int(micros), Type::Date) if from == Type::Time => {
                Data::Int(micros.map(|micros| micros.div_euclid(DAY_US)))
            }
            (Data::Bool(values), Type::Int) => {
                Data::Int(Values::Many(values.iter().map(i64::from).collect::<Vec<_>>().into()))
            }
            (Data::Bool(values), Type::Float) => {
                Data::Float(Values::Many(values.iter().map(|b| f64::from(u8::from(b))).collect::<Vec<_>>().into()))
            }
            (Data::Float(values), Type::Bool) => Data::Bool(test(self.rows, values, &Values::One(0.0), |a, b| a != b)),
            (Data::Float(values), Type::Int) => {
                let mut out = Vec::with_capacity(self.rows);
                for row in 0..self.rows {
                    let value = values.get(row);
                    // Truncates; 2^63 itself does not fit.
                    if (-TWO_63..TWO_63).contains(&value) {
                        out.push(value as i64);
                    } else if !self.is_used(row, inner.nulls.as_ref()) {
                        out.push(0);
                    } else {
                        return fail(row, format!("the value {value}"));
                    }
                }
                Data::Int(Values::Many(out.into()))
            }
            (Data::Text(texts), _) => return self.parse_texts(texts, &inner, to, span),
            (_, Type::Text) => return self.to_text(&inner, from, span),
            _ => return Err(wrong_kind(span)),
        };
        Ok(Vector::new(data, inner.nulls))
    }

    fn parse_texts(&self, texts: &Texts, inner: &Vector, to: Type, span: Span) -> Result<Vector> {
        fn each<T: Copy>(
            of: &Evaluator<'_>,
            inner: &Vector,
            texts: &Texts,
            empty: T,
            parse: impl Fn(&str) -> Option<T>,
        ) -> std::result::Result<Vec<T>, usize> {
            let one = |row| match parse(texts.get(row).trim()) {
                _ if inner.is_null(row) => Ok(empty),
                Some(value) => Ok(value),
                None if of.is_used(row, None) => Err(row),
                None => Ok(empty),
            };
            (0..of.rows).map(one).collect()
        }
        let data = match to {
            Type::Bool => each(self, inner, texts, false, |text| match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "1" => Some(true),
                "false" | "f" | "no" | "0" => Some(false),
                _ => None,
            })
            .map(|values| Data::Bool(values.into())),
            Type::Int => each(self, inner, texts, 0, |t| t.parse().ok()).map(|v| Data::Int(Values::Many(v.into()))),
            Type::Float => {
                each(self, inner, texts, 0.0, |t| t.parse().ok()).map(|v| Data::Float(Values::Many(v.into())))
            }
            Type::Date => each(self, inner, texts, 0, parse_date).map(|v| Data::Int(Values::Many(v.into()))),
            Type::Time => each(self, inner, texts, 0, |t| parse_timestamp(t).map(|(micros, _)| micros))
                .map(|v| Data::Int(Values::Many(v.into()))),
            Type::Text => return Err(wrong_kind(span)),
        };
        match data {
            Ok(data) => Ok(Vector::new(data, inner.nulls.clone())),
            Err(row) => {
                let text: String = texts.get(row).chars().take(40).collect();
                let message = format!("the text `{text}` is not {to}");
                Err(ExprError { row: Some(row), ..ExprError::at(span, message) })
            }
        }
    }

    fn to_text(&self, inner: &Vector, from: Type, span: Span) -> Result<Vector> {
        fn date(days: i64, out: &mut String) -> std::fmt::Result {
            let (year, month, day) = civil(days);
            write!(out, "{year:04}-{month:02}-{day:02}")
        }
        let time = |micros: i64, out: &mut String| {
            let of_day = micros.rem_euclid(DAY_US);
            let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
            let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
            date(micros.div_euclid(DAY_US), out)?;
            write!(out, " {hour:02}:{minute:02}:{second:02}")?;
            if fraction == 0 { Ok(()) } else { write!(out, ".{fraction:06}") }
        };
        self.texts(inner.nulls.clone(), span, |row, out| {
            let written = match &inner.data {
                Data::Int(values) if from == Type::Date => date(values.get(row), out),
                Data::Int(values) if from == Type::Time => time(values.get(row), out),
                Data::Int(values) => write!(out, "{}", values.get(row)),
                Data::Float(values) => write!(out, "{}", values.get(row)),
                Data::Bool(values) => write!(out, "{}", values.value(row)),
                Data::Text(texts) => out.write_str(texts.get(row)),
            };
            // Writing to a string cannot fail.
            written.unwrap_or_default();
        })
    }

    /// A text for each row, written one after the other.
    fn texts(&self, nulls: Option<NullBuffer>, span: Span, write: impl FnMut(usize, &mut String)) -> Result<Vector> {
        // Rows that are not used get no text: they may be many, and long.
        let used = self.used.clone().map(NullBuffer::new);
        let written = NullBuffer::union(nulls.as_ref(), used.as_ref());
        let array = texts(self.rows, written.as_ref(), span, write)?;
        Ok(Vector::new(Data::Text(Texts::Many(array)), nulls))
    }

    fn case(&self, arms: &[(Typed, Typed)], otherwise: &Typed, ty: Type, span: Span) -> Result<Vector> {
        let mut masks = Vec::with_capacity(arms.len());
        let mut values = Vec::with_capacity(arms.len() + 1);
        let mut rest = constant(true, self.rows);
        for (condition, value) in arms {
            let vector = self.over(&rest).eval(condition)?;
            let mask = &rest & &valid_and(vector.bool(condition.span)?, vector.nulls.as_ref());
            values.push(self.over(&mask).eval(value)?);
            rest = &rest & &!&mask;
            masks.push(mask);
        }
        values.push(self.over(&rest).eval(otherwise)?);
        self.choose(&values, &masks, ty, span)
    }

    /// The rows that have a value.
    fn valid(&self, vector: &Vector) -> BooleanBuffer {
        vector.nulls.as_ref().map_or_else(|| constant(true, self.rows), |nulls| nulls.inner().clone())
    }

    /// For each row the value of the first vector whose mask has the row; of the last one,
    /// which has no mask, if none has it.
    fn choose(&self, values: &[Vector], masks: &[BooleanBuffer], ty: Type, span: Span) -> Result<Vector> {
        let (last, sides) = values.split_last().ok_or_else(|| wrong_kind(span))?;
        // Backwards, so that the first match wins.
        let sides = || sides.iter().zip(masks).rev();
        let bits = |of: &dyn Fn(&Vector) -> Result<BooleanBuffer>| {
            sides().try_fold(of(last)?, |all, (side, mask)| Ok(&(&of(side)? & mask) | &(&all & &!mask)))
        };
        let has_nulls = values.iter().any(|value| value.nulls.is_some());
        let nulls = has_nulls.then(|| bits(&|value| Ok(self.valid(value)))).transpose()?.map(NullBuffer::new);
        let data = match ty {
            Type::Bool => Data::Bool(bits(&|value| Ok(value.bool(span)?.clone()))?),
            Type::Int | Type::Date | Type::Time => {
                let mut made = last.int(span)?.slice(self.rows).into_owned();
                for (side, mask) in sides() {
                    loops::overwrite(&mut made, &side.int(span)?.slice(self.rows), mask);
                }
                Data::Int(Values::Many(made.into()))
            }
            Type::Float => {
                let mut made = last.float(span)?.slice(self.rows).into_owned();
                for (side, mask) in sides() {
                    loops::overwrite(&mut made, &side.float(span)?.slice(self.rows), mask);
                }
                Data::Float(Values::Many(made.into()))
            }
            Type::Text => {
                let texts = values.iter().map(|value| value.text(span)).collect::<Result<Vec<_>>>()?;
                let first = |row| masks.iter().position(|mask| mask.value(row)).unwrap_or(masks.len());
                return self.texts(nulls, span, |row, out| out.push_str(texts[first(row)].get(row)));
            }
        };
        Ok(Vector::new(data, nulls))
    }

    #[expect(clippy::too_many_lines, reason = "one match over all functions")]
    fn call(&self, function: Function, args: &[Typed], ty: Type, span: Span) -> Result<Vector> {
        use Function as F;
        if let (F::Bucket, [text, buckets]) = (function, args) {
            return self.bucket(text, buckets, span);
        }
        if function == F::Coalesce {
            return self.coalesce(args, ty, span);
        }
        let values = args.iter().map(|arg| self.eval(arg)).collect::<Result<Vec<_>>>()?;
        let mut nulls = None;
        for value in &values {
            nulls = NullBuffer::union(nulls.as_ref(), value.nulls.as_ref());
        }
        let first = &values[0];
        let float = |f: fn(f64) -> f64| Ok(Data::Float(first.float(span)?.map(f)));
        let date = |f: fn((i64, i64, i64)) -> i64| {
            Ok(Data::Int(first.int(span)?.map(|micros| f(civil(micros.div_euclid(DAY_US))))))
        };
        let clock =
            |f: fn(i64) -> i64| Ok(Data::Int(first.int(span)?.map(|micros| f(micros.rem_euclid(DAY_US) / 1_000_000))));
        let data: Result<Data> = match function {
            F::Abs if ty == Type::Int => {
                let values = first.int(span)?;
                Ok(Data::Int(self.checked(span, &nulls, values, values, |a, _| a.checked_abs())?))
            }
            // Not through a function pointer, so that these loops vectorise. Correctly rounded
            // results are the same everywhere.
            F::Abs => Ok(Data::Float(first.float(span)?.map(f64::abs))),
            F::Ceil => Ok(Data::Float(first.float(span)?.map(f64::ceil))),
            F::Floor => Ok(Data::Float(first.float(span)?.map(f64::floor))),
            F::Round => Ok(Data::Float(first.float(span)?.map(math::round))),
            F::Sqrt => Ok(Data::Float(first.float(span)?.map(f64::sqrt))),
            F::Exp => Ok(Data::Float(first.float(span)?.map(math::exp))),
            F::Ln => Ok(Data::Float(first.float(span)?.map_all(math::ln_of_each))),
            F::Log10 => float(libm::log10),
            F::Log2 => float(libm::log2),
            F::Log1p => Ok(Data::Float(first.float(span)?.map_all(math::log1p_of_each))),
            F::Expm1 => float(libm::expm1),
            F::Sign if ty == Type::Int => Ok(Data::Int(first.int(span)?.map(i64::signum))),
            F::Sign => float(|a| {
                if a > 0.0 {
                    1.0
                } else if a < 0.0 {
                    -1.0
                } else {
                    a
                }
            }),
            F::Pow => {
                Ok(Data::Float(zip(first.float(span)?, values[1].float(span)?, libm::pow as fn(f64, f64) -> f64)))
            }
            F::IsNan => {
                let values = first.float(span)?;
                Ok(Data::Bool(test(self.rows, values, values, |a, _| a.is_nan())))
            }
            F::Div => {
                let (a, b) = (first.int(span)?, values[1].int(span)?);
                if let Values::One(b @ 1..) = *b {
                    return Ok(Vector::new(Data::Int(a.map(|a| a.div_euclid(b))), nulls));
                }
                let valid = test(self.rows, a, b, |_, b| b != 0);
                nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::new(valid)));
                let floor = |a: i64, b: i64| {
                    let quotient = a.checked_div(b)?;
                    Some(if a % b != 0 && (a < 0) != (b < 0) { quotient - 1 } else { quotient })
                };
                Ok(Data::Int(self.checked(span, &nulls, a, b, floor)?))
            }
            F::Year => date(|(year, _, _)| year),
            F::Month => date(|(_, month, _)| month),
            F::Day => date(|(_, _, day)| day),
            F::Hour => clock(|seconds| seconds / 3_600),
            F::Minute => clock(|seconds| seconds / 60 % 60),
            F::Second => clock(|seconds| seconds % 60),
            // 1970-01-01 was a Thursday; Monday is 0.
            F::Weekday => Ok(Data::Int(first.int(span)?.map(|micros| (micros.div_euclid(DAY_US) + 3).rem_euclid(7)))),
            F::Epoch => Ok(Data::Int(first.int(span)?.map(|micros| micros.div_euclid(1_000_000)))),
            F::Least | F::Greatest => return self.extreme(&values, function == F::Greatest, nulls, span),
            F::NullIf => {
                let equal = self.compare(Compare::Eq, first, &values[1], span)?;
                let equal = valid_and(equal.bool(span)?, equal.nulls.as_ref());
                let keep = NullBuffer::new(!&equal);
                let nulls = NullBuffer::union(first.nulls.as_ref(), Some(&keep));
                let kept = values.into_iter().next().ok_or_else(|| wrong_kind(span))?;
                return Ok(Vector::new(kept.data, nulls));
            }
            _ => return self.text_call(function, &values, nulls, span),
        };
        Ok(Vector::new(data?, nulls))
    }

    fn coalesce(&self, args: &[Typed], ty: Type, span: Span) -> Result<Vector> {
        let mut values: Vec<Vector> = Vec::with_capacity(args.len());
        let mut rest = constant(true, self.rows);
        for arg in args {
            let value = self.over(&rest).eval(arg)?;
            rest = match &value.nulls {
                Some(nulls) => &rest & &!nulls.inner(),
                None => constant(false, self.rows),
            };
            values.push(value);
        }
        let valid = |value: &Vector| self.valid(value);
        let masks: Vec<BooleanBuffer> = values[..values.len() - 1].iter().map(valid).collect();
        self.choose(&values, &masks, ty, span)
    }

    fn extreme(&self, values: &[Vector], greatest: bool, nulls: Option<NullBuffer>, span: Span) -> Result<Vector> {
        let pick = |a_first: bool| a_first != greatest;
        let (first, others) = values.split_first().ok_or_else(|| wrong_kind(span))?;
        let data = match &first.data {
            Data::Float(values) => {
                let mut best = values.slice(self.rows).into_owned();
                for other in others {
                    for (a, b) in best.iter_mut().zip(other.float(span)?.slice(self.rows).iter()) {
                        // NaN wins on either side.
                        *a = if a.is_nan() | (pick(*a <= *b) & !b.is_nan()) { *a } else { *b };
                    }
                }
                Data::Float(Values::Many(best.into()))
            }
            _ => {
                let mut best = first.int(span)?.slice(self.rows).into_owned();
                for other in others {
                    for (a, b) in best.iter_mut().zip(other.int(span)?.slice(self.rows).iter()) {
                        *a = if greatest { (*a).max(*b) } else { (*a).min(*b) };
                    }
                }
                Data::Int(Values::Many(best.into()))
            }
        };
        Ok(Vector::new(data, nulls))
    }

    /// The hash of a text modulo a number, without building the text where it is a concatenation.
    fn bucket(&self, text: &Typed, buckets: &Typed, span: Span) -> Result<Vector> {
        let mut found = Vec::new();
        pieces(text, &mut found);
        let (mut states, mut nulls) = (vec![hash::BEGIN; self.rows], None);
        for piece in found {
            let piece = self.eval(piece)?;
            match piece.text(span)? {
                Texts::One(text) => states.iter_mut().for_each(|state| *state = hash::all(*state, text.as_bytes())),
                Texts::Many(array) => hash::rows(&mut states, |row| array.value(row).as_bytes()),
            }
            nulls = NullBuffer::union(nulls.as_ref(), piece.nulls.as_ref());
        }
        let buckets = self.eval(buckets)?;
        nulls = NullBuffer::union(nulls.as_ref(), buckets.nulls.as_ref());
        let buckets = buckets.int(span)?;
        let wrong = (0..self.rows).find(|row| buckets.get(*row) <= 0 && self.is_used(*row, nulls.as_ref()));
        if let Some(row) = wrong {
            let message = format!("the number of buckets is {}, but must be positive", buckets.get(row));
            return Err(ExprError { row: Some(row), ..ExprError::at(span, message) });
        }
        let states = Values::Many(states.iter().map(|state| state.cast_signed()).collect::<Vec<_>>().into());
        let numbers = zip(&states, buckets, |state, buckets| {
            (state.cast_unsigned() % buckets.max(1).cast_unsigned()).cast_signed()
        });
        Ok(Vector::new(Data::Int(numbers), nulls))
    }

    fn text_call(
        &self,
        function: Function,
        values: &[Vector],
        nulls: Option<NullBuffer>,
        span: Span,
    ) -> Result<Vector> {
        use Function as F;
        let first = values[0].text(span)?;
        let second = || values[1].text(span);
        let test = |f: fn(&str, &str) -> bool| -> Result<Data> {
            let second = second()?;
            Ok(Data::Bool(BooleanBuffer::collect_bool(self.rows, |row| f(first.get(row), second.get(row)))))
        };
        let data = match function {
            F::Lower => return self.texts(nulls, span, |row, out| lower(first.get(row), out)),
            F::Upper => return self.texts(nulls, span, |row, out| upper(first.get(row), out)),
            F::Trim => return self.texts(nulls, span, |row, out| out.push_str(first.get(row).trim())),
            F::Concat => {
                let texts = values.iter().map(|value| value.text(span)).collect::<Result<Vec<_>>>()?;
                return self.texts(nulls, span, |row, out| texts.iter().for_each(|text| out.push_str(text.get(row))));
            }
            F::Replace => {
                let (from, to) = (second()?, values[2].text(span)?);
                return self
                    .texts(nulls, span, |row, out| out.push_str(&first.get(row).replace(from.get(row), to.get(row))));
            }
            F::Substr => {
                let start = values[1].int(span)?;
                let length = values.get(2).map(|value| value.int(span)).transpose()?;
                return self.texts(nulls, span, |row, out| {
                    let skip = count(start.get(row).saturating_sub(1));
                    let take = length.map_or(usize::MAX, |length| count(length.get(row)));
                    out.extend(first.get(row).chars().skip(skip).take(take));
                });
            }
            F::Length => {
                let lengths: Vec<i64> = (0..self.rows).map(|row| first.get(row).chars().count() as i64).collect();
                Data::Int(Values::Many(lengths.into()))
            }
            F::StartsWith => test(|a, b| a.starts_with(b))?,
            F::EndsWith => test(|a, b| a.ends_with(b))?,
            F::Contains => test(|a, b| a.contains(b))?,
            // Every other function is in `call`.
            _ => return Err(wrong_kind(span)),
        };
        Ok(Vector::new(data, nulls))
    }

    fn load(&self, column: &Column, span: Span) -> Result<Vector> {
        fn scalars<T: ArrowNativeType>(column: &Column, span: Span) -> Result<ScalarBuffer<T>> {
            column.scalars().ok_or_else(|| wrong_kind(span))
        }
        fn wide<T: ArrowNativeType + Into<i64>>(column: &Column, span: Span) -> Result<Data> {
            let values = scalars::<T>(column, span)?;
            Ok(Data::Int(Values::Many(values.iter().map(|value| (*value).into()).collect::<Vec<_>>().into())))
        }
        let micros = |scale: i64| -> Result<Data> {
            let values = scalars::<i64>(column, span)?;
            let mut out = Vec::with_capacity(values.len());
            for (row, value) in values.iter().enumerate() {
                match value.checked_mul(scale) {
                    Some(value) => out.push(value),
                    None if !self.is_used(row, column.nulls()) => out.push(0),
                    None => {
                        let message = "a timestamp does not fit 64 bits of microseconds";
                        return Err(ExprError { row: Some(row), ..ExprError::at(span, message) });
                    }
                }
            }
            Ok(Data::Int(Values::Many(out.into())))
        };
        let data = match column.data_type() {
            DataType::Boolean => match column.values() {
                Stored::Bits(bits) => Data::Bool(bits.clone()),
                _ => return Err(wrong_kind(span)),
            },
            DataType::Int8 => wide::<i8>(column, span)?,
            DataType::Int16 => wide::<i16>(column, span)?,
            DataType::Int32 | DataType::Date32 => wide::<i32>(column, span)?,
            DataType::Int64 => Data::Int(Values::Many(scalars(column, span)?)),
            DataType::UInt8 => wide::<u8>(column, span)?,
            DataType::UInt16 => wide::<u16>(column, span)?,
            DataType::UInt32 => wide::<u32>(column, span)?,
            DataType::UInt64 => {
                let values = scalars::<u64>(column, span)?;
                let large = values
                    .iter()
                    .enumerate()
                    .find(|(row, value)| i64::try_from(**value).is_err() && self.is_used(*row, column.nulls()));
                if let Some((row, value)) = large {
                    let message = format!("{value} does not fit a signed 64-bit integer");
                    return Err(ExprError { row: Some(row), ..ExprError::at(span, message) });
                }
                Data::Int(Values::Many(values.iter().map(|value| *value as i64).collect::<Vec<_>>().into()))
            }
            DataType::Float32 => {
                let values = scalars::<f32>(column, span)?;
                Data::Float(Values::Many(values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>().into()))
            }
            DataType::Float64 => Data::Float(Values::Many(scalars(column, span)?)),
            DataType::Utf8 => Data::Text(Texts::Many(column.text().ok_or_else(|| wrong_kind(span))?)),
            DataType::Timestamp(unit, _) => match unit {
                TimeUnit::Second => micros(1_000_000)?,
                TimeUnit::Millisecond => micros(1_000)?,
                TimeUnit::Microsecond => Data::Int(Values::Many(scalars(column, span)?)),
                TimeUnit::Nanosecond => {
                    let values = scalars::<i64>(column, span)?;
                    let micros: Vec<i64> = values.iter().map(|value| value.div_euclid(1_000)).collect();
                    Data::Int(Values::Many(micros.into()))
                }
            },
            _ => return Err(ExprError::at(span, "a column of this type cannot be used")),
        };
        Ok(Vector::new(data, column.nulls().cloned()))
    }
}
