//! Keys of groups. The values of each column of the key are numbered, then the rows of these
//! numbers, so that no row needs a materialized key.

use millrace_sdk::kernels::sort;
use millrace_sdk::key_rows::{KeyRows, KeyValues};
use millrace_sdk::keys::{Numbering, Packed};
use millrace_sdk::prelude::*;
use millrace_sdk::texts::Texts;

/// The type of a key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// Integers.
    Int,
    /// Booleans.
    Bool,
    /// Text.
    Text,
}

/// Distinct values.
#[derive(Debug, Serialize, Deserialize)]
pub enum Values {
    /// Integers, and booleans as 0 and 1.
    Ints(Packed<i64>),
    /// The concatenated texts, and the end offset of each.
    Texts(String, Packed<u32>),
}

/// One column of the keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyColumn {
    /// Its distinct values.
    values: Values,
    /// By key: 0 for a missing value, else the index of the value plus 1.
    codes: Packed<u32>,
}

/// The keys of the groups of a part, by number.
#[derive(Debug, Serialize, Deserialize)]
pub enum Keys {
    /// One column of integers, and the group with the missing key.
    Ints(Packed<i64>, Option<u32>),
    /// Anything else, with the number of keys.
    Columns(usize, Vec<KeyColumn>),
}

impl Keys {
    /// The number of keys.
    pub fn count(&self) -> usize {
        match self {
            Self::Ints(keys, _) => keys.0.len(),
            Self::Columns(count, _) => *count,
        }
    }

    /// Returns for each row the number of its group, and the key of each group.
    pub fn of(part: &Part, by: &[String], kinds: &[KeyKind]) -> Result<(Vec<u32>, Self)> {
        if let ([name], [KeyKind::Int | KeyKind::Bool]) = (by, kinds) {
            // Fetched as a whole: it is read twice.
            let column = part.i64(name)?;
            let mut numbering = Numbering::of([&column]);
            let numbers = match column.null_count() {
                0 => numbering.numbers(column.values()),
                _ => column.iter().map(|key| number_or_missing(&mut numbering, key)).collect(),
            };
            let (keys, missing) = numbering.into_keys();
            return Ok((numbers, Self::Ints(Packed(keys), missing)));
        }
        let mut known: Vec<KeyValues> = kinds.iter().map(|kind| KeyValues::new(*kind == KeyKind::Text)).collect();
        let mut codes = Vec::with_capacity(by.len());
        for (name, known) in by.iter().zip(&mut known) {
            codes.push(known.codes(part, name)?);
        }
        let radices: Vec<u64> = known.iter().map(|known| known.len() as u64 + 1).collect();
        let mut rows = KeyRows::new(&radices, part.rows());
        let (numbers, count) = (rows.numbers(&codes), rows.len());
        let columns = known.into_iter().zip(rows.codes());
        let columns = columns.map(|(known, codes)| KeyColumn { values: values_of(known), codes: Packed(codes) });
        Ok((numbers, Self::Columns(count, columns.collect())))
    }
}

fn number_or_missing(numbering: &mut Numbering, key: Option<i64>) -> u32 {
    match key {
        Some(key) => numbering.number(key),
        None => numbering.missing(),
    }
}

/// The codes of values, by their index.
fn codes_of(known: &mut KeyValues, values: &Values) -> Vec<u32> {
    match (known, values) {
        (KeyValues::Ints(known), Values::Ints(Packed(ints))) => {
            known.expect(ints);
            ints.iter().map(|int| known.number(*int) + 1).collect()
        }
        (KeyValues::Texts(known), Values::Texts(texts, ends)) => {
            each_text(texts, &ends.0).map(|text| known.number(text) + 1).collect()
        }
        // The partials of this step all have the same columns.
        _ => Vec::new(),
    }
}

fn values_of(known: KeyValues) -> Values {
    match known {
        KeyValues::Ints(ints) => Values::Ints(Packed(ints.into_keys().0)),
        KeyValues::Texts(texts) => {
            let mut all = String::new();
            let mut ends = Vec::with_capacity(texts.len());
            for text in texts.iter() {
                all.push_str(text);
                // A part has less than 4 GiB of text.
                ends.push(all.len() as u32);
            }
            Values::Texts(all, Packed(ends))
        }
    }
}

/// The rank of each code among all; a missing value comes first.
fn ranks(order: impl ExactSizeIterator<Item = u32>) -> Vec<u32> {
    let mut ranks = vec![0; order.len() + 1];
    (1..).zip(order).for_each(|(rank, index)| ranks[index as usize + 1] = rank);
    ranks
}

/// The groups in the order of their keys, from the rank of each column of each group: sorted by the
/// last column first; groups of equal rank keep their order.
fn order_of_groups(count: usize, columns: &[(Vec<u32>, Vec<u32>)]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    for (codes, ranks) in columns.iter().rev() {
        let rank = |group: &u32| u64::from(ranks[codes[*group as usize] as usize]);
        let mut keys: Vec<u64> = (0u64..).zip(&order).map(|(index, group)| rank(group) << 32 | index).collect();
        sort(&mut keys);
        order = keys.iter().map(|key| order[*key as u32 as usize]).collect();
    }
    order
}

/// The indices of texts in sorted order. Usually the first bytes in which any of them differ
/// decide, so these are stored next to the indices.
fn order_of_texts(texts: &[&str]) -> Vec<u32> {
    let Some(first) = texts.first() else { return Vec::new() };
    let alike = |text: &&str| first.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    let from = texts.iter().map(alike).min().unwrap_or(0);
    let head = |text: &str| {
        let rest = &text.as_bytes()[from..];
        let mut eight = [0; 8];
        let length = rest.len().min(8);
        eight[..length].copy_from_slice(&rest[..length]);
        u64::from_be_bytes(eight)
    };
    let mut order: Vec<(u64, u32)> = (0..).zip(texts).map(|(index, text)| (head(text), index)).collect();
    let text = |index: u32| &texts[index as usize].as_bytes()[from..];
    order.sort_unstable_by(|(a, a_index), (b, b_index)| a.cmp(b).then_with(|| text(*a_index).cmp(text(*b_index))));
    order.into_iter().map(|(_, index)| index).collect()
}

fn each_text<'t>(texts: &'t str, ends: &'t [u32]) -> impl Iterator<Item = &'t str> {
    let mut start = 0;
    ends.iter().map(move |end| {
        let end = *end as usize;
        texts.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()
    })
}

/// The groups of the parts so far.
#[derive(Debug)]
pub enum Merging {
    /// One column of integers.
    Ints(Numbering),
    /// Anything else.
    Columns(Box<Columns>),
}

/// The key columns, and the keys.
#[derive(Debug)]
pub struct Columns {
    known: Vec<KeyValues>,
    rows: KeyRows,
}

impl Merging {
    /// Creates an empty set of groups, for key columns of these types.
    pub fn new(kinds: &[KeyKind]) -> Self {
        match kinds {
            [KeyKind::Int | KeyKind::Bool] => Self::Ints(Numbering::default()),
            kinds => {
                let known = kinds.iter().map(|kind| KeyValues::new(*kind == KeyKind::Text)).collect();
                let rows = KeyRows::new(&vec![1 << 32; kinds.len()], 0);
                Self::Columns(Box::new(Columns { known, rows }))
            }
        }
    }

    /// Returns the numbers that the groups of one more part have among all groups.
    pub fn numbers(&mut self, keys: &Keys) -> Vec<u32> {
        match (self, keys) {
            (Self::Ints(all), Keys::Ints(Packed(keys), missing)) => {
                all.expect(keys);
                let key = |(index, key): (u32, &i64)| (*missing != Some(index)).then_some(*key);
                match missing {
                    None => all.numbers(keys),
                    Some(_) => (0..).zip(keys).map(|of| number_or_missing(all, key(of))).collect(),
                }
            }
            (Self::Columns(all), Keys::Columns(_, columns)) => {
                let known = all.known.iter_mut().zip(columns);
                let codes = known.map(|(known, KeyColumn { values, codes })| {
                    let of_values = codes_of(known, values);
                    let code = |code: &u32| code.checked_sub(1).map_or(0, |index| of_values[index as usize]);
                    codes.0.iter().map(code).collect()
                });
                let codes: Vec<Vec<u32>> = codes.collect();
                all.rows.numbers(&codes)
            }
            // The partials of this step all have the same columns.
            _ => Vec::new(),
        }
    }

    /// The number of groups.
    pub fn count(&self) -> usize {
        match self {
            Self::Ints(all) => all.keys().len(),
            Self::Columns(all) => all.rows.len(),
        }
    }

    /// Returns the order of groups in the output, and the columns of their keys in that order.
    pub fn done(self, kinds: &[KeyKind]) -> (Vec<u32>, Vec<Column>) {
        match self {
            Self::Ints(all) => {
                let order = all.sorted();
                let (keys, missing) = all.into_keys();
                let ints = order.iter().map(|group| (missing != Some(*group)).then(|| keys[*group as usize]));
                let column = column_of_ints(ints, kinds.first().copied());
                (order, vec![column])
            }
            Self::Columns(all) => {
                let Columns { known, rows } = *all;
                let count = rows.len();
                // The lookup tables are no longer needed, and are dropped one after the other.
                let codes = rows.codes().into_iter();
                let (known, ranked): (Vec<_>, Vec<_>) = known.into_iter().zip(codes).map(sorted).unzip();
                let order = order_of_groups(count, &ranked);
                let columns = known.iter().zip(&ranked).zip(kinds).map(|((known, (codes, _)), kind)| {
                    let indices = order.iter().map(|group| codes[*group as usize].checked_sub(1));
                    match known {
                        Sorted::Ints(ints) => {
                            column_of_ints(indices.map(|index| index.map(|index| ints[index as usize])), Some(*kind))
                        }
                        Sorted::Texts(texts) => {
                            let texts: Vec<&str> = texts.iter().collect();
                            let texts = indices.map(|index| index.map(|index| texts[index as usize]));
                            texts.collect::<StringArray>().into()
                        }
                    }
                });
                let columns = columns.collect();
                (order, columns)
            }
        }
    }
}

/// The values of a key column, without the table to look them up.
enum Sorted {
    Ints(Vec<i64>),
    Texts(Texts),
}

/// The values of a column, its codes, and the rank of each code.
fn sorted((known, codes): (KeyValues, Vec<u32>)) -> (Sorted, (Vec<u32>, Vec<u32>)) {
    match known {
        KeyValues::Ints(ints) => {
            let (ints, _) = ints.into_keys();
            let mut order: Vec<(i64, u32)> = (0..).zip(&ints).map(|(index, int)| (*int, index)).collect();
            order.sort_unstable();
            let ranks = ranks(order.into_iter().map(|(_, index)| index));
            (Sorted::Ints(ints), (codes, ranks))
        }
        KeyValues::Texts(texts) => {
            let ranks = ranks(order_of_texts(&texts.iter().collect::<Vec<_>>()).into_iter());
            (Sorted::Texts(texts), (codes, ranks))
        }
    }
}

fn column_of_ints(ints: impl Iterator<Item = Option<i64>>, kind: Option<KeyKind>) -> Column {
    match kind {
        Some(KeyKind::Bool) => ints.map(|int| int.map(|int| int != 0)).collect::<BooleanArray>().into(),
        _ => ints.collect::<Int64Array>().into(),
    }
}
