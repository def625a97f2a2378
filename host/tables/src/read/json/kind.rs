//! What columns of JSON lines are: by the kinds of all their values.

use std::collections::{BTreeMap, HashMap, HashSet};

use ::arrow::datatypes::DataType as ArrowType;
use millrace_types::bounds;

use super::lexer::{Lexer, NotJson, Value};

/// 2^53: integers up to here are floats without loss.
const EXACT: u64 = 1 << 53;

/// Kinds of values by inclusion; joined, the narrowest that holds both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing but nulls so far.
    Null,
    Bool,
    Int,
    /// An integer of more than 64 bits, which nothing holds.
    Huge,
    Float,
    /// Also what nothing else holds: then those that are no text are mistakes.
    Text,
    /// A list or an object.
    Nested,
}

impl Kind {
    /// What a value is, as it is written.
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
        use Kind::{Float, Huge, Int, Nested, Null, Text};
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

/// An integer as a float that holds all of it.
pub(super) fn exact(written: &[u8]) -> Option<f64> {
    int(written).filter(|value| value.unsigned_abs() <= EXACT).map(|value| value as f64)
}

/// Columns by their names, of which the next is mostly the one that stood in this place in
/// the object before.
pub(super) struct Names {
    names: Vec<Box<[u8]>>,
    places: HashMap<Box<[u8]>, usize>,
    /// By place in the object.
    order: Vec<usize>,
}

impl Names {
    pub(super) fn new<'n>(names: impl IntoIterator<Item = &'n [u8]>) -> Self {
        let names: Vec<Box<[u8]>> = names.into_iter().map(Into::into).collect();
        let places = names.iter().cloned().zip(0..).collect();
        Self { names, places, order: Vec::new() }
    }

    /// The column of a name that stands in this place of its object.
    #[inline]
    pub(super) fn find(&mut self, place: usize, name: &[u8]) -> Option<usize> {
        match self.order.get(place) {
            Some(column) if *self.names[*column] == *name => Some(*column),
            _ => self.find_elsewhere(place, name),
        }
    }

    #[cold]
    fn find_elsewhere(&mut self, place: usize, name: &[u8]) -> Option<usize> {
        let column = *self.places.get(name)?;
        if let Some(known) = self.order.get_mut(place) {
            *known = column;
        } else if place == self.order.len() && place < self.names.len() {
            self.order.push(column);
        }
        Some(column)
    }

    /// Takes one more name, unless there are as many as columns are taken.
    pub(super) fn add(&mut self, name: &[u8]) -> Option<usize> {
        let column = self.names.len();
        if column >= bounds::COLUMNS {
            return None;
        }
        self.places.insert(name.into(), column);
        self.names.push(name.into());
        Some(column)
    }
}

/// Names with what their values are together.
pub(super) type Kinds = BTreeMap<Box<[u8]>, Kind>;

/// Adds what is known of names.
pub(super) fn join_all(kinds: &mut Kinds, more: Kinds) {
    for (name, kind) in more {
        let known = kinds.entry(name).or_insert(kind);
        *known = known.join(kind);
    }
}

/// Why lines were not looked at to their end.
pub(super) enum Unlooked {
    /// It is no JSON, here.
    NotJson(usize),
    /// There are more names than columns are taken.
    TooMany,
}

/// Looks at all values of at most so many objects, of the names that are asked for, or all.
pub(super) fn kinds_of(lines: &[u8], most: usize, asked: Option<&HashSet<String>>) -> Result<Kinds, Unlooked> {
    let is_asked = |name: &[u8]| asked.is_none_or(|asked| asked.iter().any(|asked| asked.as_bytes() == name));
    let mut lexer = Lexer::new(lines);
    let mut names = Names::new([]);
    let mut kinds: Vec<Seen> = Vec::new();
    let mut object: Vec<usize> = Vec::new();
    let not_json = |lexer: &Lexer<'_>| Unlooked::NotJson(lexer.at());
    for number in 1..=most {
        if !lexer.object().map_err(|NotJson| not_json(&lexer))? {
            break;
        }
        let mut place = 0;
        while let Some(member) = lexer.member().map_err(|NotJson| not_json(&lexer))? {
            let column = match names.find(place, &member.name) {
                Some(column) => Some(column),
                None => {
                    let is_asked = is_asked(&member.name);
                    let column = names.add(&member.name);
                    if column.is_none() && is_asked {
                        return Err(Unlooked::TooMany);
                    }
                    kinds.extend(column.map(|_| Seen { all: Kind::Null, last: Kind::Null, object: 0, is_asked }));
                    column
                }
            };
            if let Some(column) = column {
                let seen = &mut kinds[column];
                if seen.object != number {
                    seen.object = number;
                    object.push(column);
                }
                // Of several of one name the last holds.
                seen.last = Kind::of(&member.value, member.written);
            }
            place += 1;
        }
        for column in object.drain(..) {
            kinds[column].all = kinds[column].all.join(kinds[column].last);
        }
    }
    let asked = names.names.into_iter().zip(kinds).filter(|(_, seen)| seen.is_asked);
    Ok(asked.map(|(name, seen)| (name, seen.all)).collect())
}

/// What was seen of a name.
struct Seen {
    all: Kind,
    /// In the object that was the last to have it.
    last: Kind,
    object: usize,
    is_asked: bool,
}
