//! The types of the columns of JSON lines, from the kinds of all their values.

use std::collections::{BTreeMap, HashMap, HashSet};

use ::arrow::datatypes::DataType as ArrowType;
use millrace_types::bounds;

use super::lexer::{Lexer, NotJson, Value};

/// 2^53: floats represent all integers up to here exactly.
const EXACT: u64 = 1 << 53;

/// Kinds of values, ordered by inclusion; the join of two is the narrowest that holds both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonKind {
    /// Only nulls so far.
    Null,
    Bool,
    Int,
    /// An integer of more than 64 bits, which no type holds.
    Huge,
    Float,
    /// Also kinds that no other kind holds together: then the values that are not text are
    /// errors.
    Text,
    /// A list or an object.
    Nested,
}

impl JsonKind {
    /// The kind of a value, as it is written.
    pub(super) fn of(value: &Value<'_>, written: &[u8]) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number { is_integer: true } if int(written).is_some() => Self::Int,
            Value::Number { is_integer: true } => Self::Huge,
            Value::Number { is_integer: false } => Self::Float,
            Value::Text(_) => Self::Text,
            Value::List | Value::Object => Self::Nested,
        }
    }

    pub(super) fn join(self, other: Self) -> Self {
        use JsonKind::{Float, Huge, Int, Nested, Null, Text};
        match (self, other) {
            (a, b) if a == b => a,
            (Null, a) | (a, Null) => a,
            (Nested, _) | (_, Nested) => Nested,
            (Int | Huge, Float) | (Float, Int | Huge) => Float,
            (Int, Huge) | (Huge, Int) => Huge,
            _ => Text,
        }
    }

    pub(super) fn arrow(self) -> ArrowType {
        match self {
            Self::Null | Self::Text | Self::Nested => ArrowType::Utf8,
            Self::Bool => ArrowType::Boolean,
            Self::Int => ArrowType::Int64,
            Self::Huge | Self::Float => ArrowType::Float64,
        }
    }
}

/// An integer of 64 bits.
#[inline]
pub(super) fn int(written: &[u8]) -> Option<i64> {
    let digits = written.strip_prefix(b"-").unwrap_or(written);
    if digits.len() > 18 {
        return std::str::from_utf8(written).ok()?.parse().ok();
    }
    let value = digits.iter().fold(0i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(if digits.len() == written.len() { value } else { -value })
}

/// An integer as a float, if the float is exact.
pub(super) fn exact(written: &[u8]) -> Option<f64> {
    int(written).filter(|value| value.unsigned_abs() <= EXACT).map(|value| value as f64)
}

/// Finds columns by name. Mostly a name is at the same index as in the object before.
pub(super) struct Names {
    names: Vec<Box<[u8]>>,
    columns: HashMap<Box<[u8]>, usize>,
    /// The column at each index of an object.
    order: Vec<usize>,
}

impl Names {
    pub(super) fn new<'n>(names: impl IntoIterator<Item = &'n [u8]>) -> Self {
        let names: Vec<Box<[u8]>> = names.into_iter().map(Into::into).collect();
        let columns = names.iter().cloned().zip(0..).collect();
        Self { names, columns, order: Vec::new() }
    }

    /// The column of a name that is at this index of its object.
    #[inline]
    pub(super) fn find(&mut self, index: usize, name: &[u8]) -> Option<usize> {
        match self.order.get(index) {
            Some(column) if *self.names[*column] == *name => Some(*column),
            _ => self.find_elsewhere(index, name),
        }
    }

    #[cold]
    fn find_elsewhere(&mut self, index: usize, name: &[u8]) -> Option<usize> {
        let column = *self.columns.get(name)?;
        if let Some(known) = self.order.get_mut(index) {
            *known = column;
        } else if index == self.order.len() && index < self.names.len() {
            self.order.push(column);
        }
        Some(column)
    }

    /// Adds a name, unless there are as many as a table may have columns.
    pub(super) fn add(&mut self, name: &[u8]) -> Option<usize> {
        let column = self.names.len();
        if column >= bounds::COLUMNS {
            return None;
        }
        self.columns.insert(name.into(), column);
        self.names.push(name.into());
        Some(column)
    }
}

/// Names, each with the joined kind of its values.
pub(super) type Kinds = BTreeMap<Box<[u8]>, JsonKind>;

/// Joins the kinds of `more` into `kinds`.
pub(super) fn join_all(kinds: &mut Kinds, more: Kinds) {
    for (name, kind) in more {
        let known = kinds.entry(name).or_insert(kind);
        *known = known.join(kind);
    }
}

/// Why the kinds of lines cannot be determined.
pub(super) enum Unlooked {
    /// The input is not JSON, at this offset.
    NotJson(usize),
    /// There are more names than a table may have columns.
    TooMany,
}

/// The kinds of the values of at most `most` objects, for the names in `asked`, or for all
/// names.
pub(super) fn kinds_of(lines: &[u8], most: usize, asked: Option<&HashSet<String>>) -> Result<Kinds, Unlooked> {
    let is_asked = |name: &[u8]| asked.is_none_or(|asked| asked.iter().any(|asked| asked.as_bytes() == name));
    let mut lexer = Lexer::new(lines);
    let mut names = Names::new([]);
    let mut kinds: Vec<NameKind> = Vec::new();
    let mut object: Vec<usize> = Vec::new();
    let not_json = |lexer: &Lexer<'_>| Unlooked::NotJson(lexer.at());
    for number in 1..=most {
        if !lexer.object().map_err(|NotJson| not_json(&lexer))? {
            break;
        }
        let mut index = 0;
        while let Some(member) = lexer.member().map_err(|NotJson| not_json(&lexer))? {
            let column = match names.find(index, &member.name) {
                Some(column) => Some(column),
                None => {
                    let is_asked = is_asked(&member.name);
                    let column = names.add(&member.name);
                    if column.is_none() && is_asked {
                        return Err(Unlooked::TooMany);
                    }
                    kinds.extend(column.map(|_| NameKind {
                        all: JsonKind::Null,
                        last: JsonKind::Null,
                        object: 0,
                        is_asked,
                    }));
                    column
                }
            };
            if let Some(column) = column {
                let seen = &mut kinds[column];
                if seen.object != number {
                    seen.object = number;
                    object.push(column);
                }
                // Of several members with one name, the last counts.
                seen.last = JsonKind::of(&member.value, member.written);
            }
            index += 1;
        }
        for column in object.drain(..) {
            kinds[column].all = kinds[column].all.join(kinds[column].last);
        }
    }
    let asked = names.names.into_iter().zip(kinds).filter(|(_, seen)| seen.is_asked);
    Ok(asked.map(|(name, seen)| (name, seen.all)).collect())
}

/// What is known about a name.
struct NameKind {
    all: JsonKind,
    /// The kind in the last object that has the name.
    last: JsonKind,
    /// The number of that object, from 1.
    object: usize,
    is_asked: bool,
}
