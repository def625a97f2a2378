//! Keys of groups. The values of each column of the key are numbered, then the rows of
//! these numbers: no row has a key of its own in memory.

use std::cmp::Ordering;

use millrace_sdk::keys::{Numbering, Packed};
use millrace_sdk::prelude::*;
use millrace_sdk::texts::Texts;

/// What a column of the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// Integers.
    Int,
    /// Booleans.
    Bool,
    /// Text.
    Text,
}

/// Different values.
#[derive(Debug, Serialize, Deserialize)]
pub enum Values {
    /// Integers, and booleans as 0 and 1.
    Ints(Packed<i64>),
    /// Texts, one behind the other, and where each ends.
    Texts(String, Packed<u32>),
}

/// One column of several keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyColumn {
    /// The values that it has.
    values: Values,
    /// By key: 0 where it is missing, else the place of its value and 1.
    codes: Packed<u32>,
}

/// The keys of the groups of a part, by number.
#[derive(Debug, Serialize, Deserialize)]
pub enum Keys {
    /// One column of integers; which group has the missing key.
    Ints(Packed<i64>, Option<u32>),
    /// Anything else, so many.
    Columns(usize, Vec<KeyColumn>),
}

impl Keys {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(keys, _) => keys.0.len(),
            Self::Columns(count, _) => *count,
        }
    }

    /// For each row the number of its group, and the key of each group.
    pub fn of(part: &Part, by: &[String], kinds: &[KeyKind]) -> Result<(Vec<u32>, Self)> {
        if let ([name], [KeyKind::Int | KeyKind::Bool]) = (by, kinds) {
            // As a whole: it is looked at twice.
            let column = part.i64(name)?;
            let mut numbering = Numbering::of([&column]);
            let numbers = match column.null_count() {
                0 => numbering.numbers(column.values()),
                _ => column.iter().map(|key| number_or_missing(&mut numbering, key)).collect(),
            };
            let (keys, missing) = numbering.into_keys();
            return Ok((numbers, Self::Ints(Packed(keys), missing)));
        }
        let mut known: Vec<Known> = kinds.iter().map(|kind| Known::new(*kind)).collect();
        let mut codes = Vec::with_capacity(by.len());
        for (name, known) in by.iter().zip(&mut known) {
            codes.push(known.codes_of(part, name)?);
        }
        let radices: Vec<u64> = known.iter().map(|known| known.len() as u64 + 1).collect();
        let mut rows = Together::new(&radices, part.rows());
        let (numbers, count) = (rows.numbers(&codes), rows.len());
        let columns = known.into_iter().zip(rows.codes());
        let columns = columns.map(|(known, codes)| KeyColumn { values: known.into_values(), codes: Packed(codes) });
        Ok((numbers, Self::Columns(count, columns.collect())))
    }
}

fn number_or_missing(numbering: &mut Numbering, key: Option<i64>) -> u32 {
    match key {
        Some(key) => numbering.number(key),
        None => numbering.missing(),
    }
}

/// The values that a column of the key is known to have.
#[derive(Debug)]
enum Known {
    Ints(Numbering),
    Texts(Texts),
}

impl Known {
    fn new(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Text => Self::Texts(Texts::default()),
            KeyKind::Int | KeyKind::Bool => Self::Ints(Numbering::default()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ints(ints) => ints.keys().len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// The code of each row.
    fn codes_of(&mut self, part: &Part, name: &str) -> Result<Vec<u32>> {
        let mut codes = Vec::with_capacity(part.rows());
        for block in part.blocks() {
            match self {
                Self::Texts(texts) => texts.codes(&block.text(name)?, &mut codes),
                Self::Ints(ints) => {
                    let column = block.i64(name)?;
                    ints.expect(column.values());
                    codes.extend(column.iter().map(|key| key.map_or(0, |key| ints.number(key) + 1)));
                }
            }
        }
        Ok(codes)
    }

    /// The codes of values, by their place.
    fn codes(&mut self, values: &Values) -> Vec<u32> {
        match (self, values) {
            (Self::Ints(known), Values::Ints(Packed(ints))) => {
                known.expect(ints);
                ints.iter().map(|int| known.number(*int) + 1).collect()
            }
            (Self::Texts(known), Values::Texts(texts, ends)) => {
                each_text(texts, &ends.0).map(|text| known.number(text) + 1).collect()
            }
            // What this step kept itself it kept of the same columns.
            _ => Vec::new(),
        }
    }

    fn into_values(self) -> Values {
        match self {
            Self::Ints(ints) => Values::Ints(Packed(ints.into_keys().0)),
            Self::Texts(texts) => {
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

    /// By code where it stands among all: what is missing comes first.
    fn ranks(&self) -> Vec<u32> {
        let order = match self {
            Self::Ints(ints) => {
                let mut order: Vec<u32> = (0..ints.keys().len() as u32).collect();
                order.sort_unstable_by_key(|number| ints.keys()[*number as usize]);
                order
            }
            Self::Texts(texts) => order_of_texts(&texts.iter().collect::<Vec<_>>()),
        };
        let mut ranks = vec![0; order.len() + 1];
        (1..).zip(order).for_each(|(rank, number)| ranks[number as usize + 1] = rank);
        ranks
    }
}

/// The places of texts in their order. Mostly the first bytes in which any of them differ decide,
/// and they are looked at where they are sorted.
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
    let mut order: Vec<(u64, u32)> = (0..).zip(texts).map(|(place, text)| (head(text), place)).collect();
    let text = |place: u32| &texts[place as usize].as_bytes()[from..];
    order.sort_unstable_by(|(a, a_place), (b, b_place)| a.cmp(b).then_with(|| text(*a_place).cmp(text(*b_place))));
    order.into_iter().map(|(_, place)| place).collect()
}

fn each_text<'t>(texts: &'t str, ends: &'t [u32]) -> impl Iterator<Item = &'t str> {
    let mut start = 0;
    ends.iter().map(move |end| {
        let end = *end as usize;
        texts.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()
    })
}

/// Rows of codes, numbered in the order in which they come.
#[derive(Debug, Default)]
struct Together {
    /// Of the only column: by code its number and 1, and by number its code.
    only: (Vec<u32>, Vec<u32>),
    /// Of several: for each but the first the pairs of what is before it, by its number, and its code.
    pairs: Vec<Pairs>,
}

#[derive(Debug)]
struct Pairs {
    /// More than each code.
    radix: u64,
    known: Numbering,
}

impl Together {
    /// For columns whose codes are less than these, and so many rows at a time.
    fn new(radices: &[u64], rows: usize) -> Self {
        let mut places = radices.first().copied().unwrap_or(1);
        let pairs = radices.iter().skip(1).map(|radix| {
            let greatest = places.saturating_mul(*radix) - 1;
            places = (rows as u64).min(greatest);
            // What is too far for a table is found by its hash.
            let bounds = Some((0, i64::try_from(greatest).unwrap_or(i64::MAX)));
            Pairs { radix: *radix, known: Numbering::new(bounds, rows) }
        });
        Self { pairs: pairs.collect(), ..Self::default() }
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.pairs.last().map_or(self.only.1.len(), |pairs| pairs.known.keys().len())
    }

    /// The number of each row.
    fn numbers(&mut self, columns: &[Vec<u32>]) -> Vec<u32> {
        let [first, rest @ ..] = columns else { return Vec::new() };
        if rest.is_empty() {
            return self.of_one(first);
        }
        let mut before: Vec<u32> = first.clone();
        for (Pairs { radix, known }, codes) in self.pairs.iter_mut().zip(rest) {
            // A number and a code of 32 bits each.
            let key = |(before, code): (&u32, &u32)| (u64::from(*before) * *radix + u64::from(*code)) as i64;
            let keys: Vec<i64> = before.iter().zip(codes).map(key).collect();
            before = known.numbers(&keys);
        }
        before
    }

    fn of_one(&mut self, codes: &[u32]) -> Vec<u32> {
        let (numbers, known) = &mut self.only;
        let places = codes.iter().max().map_or(0, |code| *code as usize + 1);
        if numbers.len() < places {
            numbers.resize(places, 0);
        }
        let number = |code: &u32| {
            let place = &mut numbers[*code as usize];
            if *place == 0 {
                known.push(*code);
                *place = known.len() as u32;
            }
            *place - 1
        };
        codes.iter().map(number).collect()
    }

    /// The code of each column, by number.
    fn codes(self) -> Vec<Vec<u32>> {
        let (mut numbers, mut columns) = (self.only.1, Vec::with_capacity(self.pairs.len() + 1));
        if let Some(last) = self.pairs.last() {
            numbers = (0..last.known.keys().len() as u32).collect();
        }
        for Pairs { radix, known } in self.pairs.iter().rev() {
            let key = |number: &u32| known.keys()[*number as usize] as u64;
            columns.push(numbers.iter().map(|number| (key(number) % radix) as u32).collect());
            numbers.iter_mut().for_each(|number| *number = (key(number) / radix) as u32);
        }
        columns.push(numbers);
        columns.reverse();
        columns
    }
}

/// The groups of the parts so far.
#[derive(Debug)]
pub enum Merging {
    /// One column of integers.
    Ints(Numbering),
    /// Anything else.
    Columns(Box<Columns>),
}

/// Columns of keys, and the keys.
#[derive(Debug)]
pub struct Columns {
    known: Vec<Known>,
    rows: Together,
}

impl Merging {
    /// Of none, for columns of these kinds.
    pub fn new(kinds: &[KeyKind]) -> Self {
        match kinds {
            [KeyKind::Int | KeyKind::Bool] => Self::Ints(Numbering::default()),
            kinds => {
                let known = kinds.iter().map(|kind| Known::new(*kind)).collect();
                let rows = Together::new(&vec![1 << 32; kinds.len()], 0);
                Self::Columns(Box::new(Columns { known, rows }))
            }
        }
    }

    /// The numbers that the groups of one more part have among all.
    pub fn numbers(&mut self, keys: &Keys) -> Vec<u32> {
        match (self, keys) {
            (Self::Ints(all), Keys::Ints(Packed(keys), missing)) => {
                all.expect(keys);
                let key = |(place, key): (u32, &i64)| (*missing != Some(place)).then_some(*key);
                match missing {
                    None => all.numbers(keys),
                    Some(_) => (0..).zip(keys).map(|of| number_or_missing(all, key(of))).collect(),
                }
            }
            (Self::Columns(all), Keys::Columns(_, columns)) => {
                let known = all.known.iter_mut().zip(columns);
                let codes = known.map(|(known, KeyColumn { values, codes })| {
                    let of_values = known.codes(values);
                    let code = |code: &u32| code.checked_sub(1).map_or(0, |place| of_values[place as usize]);
                    codes.0.iter().map(code).collect()
                });
                let codes: Vec<Vec<u32>> = codes.collect();
                all.rows.numbers(&codes)
            }
            // What this step kept itself it kept of the same columns.
            _ => Vec::new(),
        }
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(all) => all.keys().len(),
            Self::Columns(all) => all.rows.len(),
        }
    }

    /// The order in which groups come out, and the columns of their keys in it.
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
                let (count, codes) = (rows.len(), rows.codes());
                let ranks: Vec<Vec<u32>> = known.iter().map(Known::ranks).collect();
                let compare = |a: &u32, b: &u32| {
                    let column = |(codes, ranks): (&Vec<u32>, &Vec<u32>)| {
                        let rank = |group: u32| ranks[codes[group as usize] as usize];
                        rank(*a).cmp(&rank(*b))
                    };
                    codes.iter().zip(&ranks).map(column).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
                };
                let mut order: Vec<u32> = (0..count as u32).collect();
                order.sort_unstable_by(compare);
                let columns = known.iter().zip(&codes).zip(kinds).map(|((known, codes), kind)| {
                    let places = order.iter().map(|group| codes[*group as usize].checked_sub(1));
                    match known {
                        Known::Ints(ints) => {
                            let ints = places.map(|place| place.map(|place| ints.keys()[place as usize]));
                            column_of_ints(ints, Some(*kind))
                        }
                        Known::Texts(texts) => {
                            let texts: Vec<&str> = texts.iter().collect();
                            let texts = places.map(|place| place.map(|place| texts[place as usize]));
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

fn column_of_ints(ints: impl Iterator<Item = Option<i64>>, kind: Option<KeyKind>) -> Column {
    match kind {
        Some(KeyKind::Bool) => ints.map(|int| int.map(|int| int != 0)).collect::<BooleanArray>().into(),
        _ => ints.collect::<Int64Array>().into(),
    }
}
