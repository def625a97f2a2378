//! Keys of one or more columns. The values of each column are numbered, then the rows of these
//! numbers, so that no row needs a materialized key.

use crate::keys::Numbering;
use crate::texts::{NONE, Texts};
use crate::{Part, Result};

/// The values of a key column, as codes: 0 for a missing value, else the number of the value
/// among the known values, plus 1.
#[derive(Debug)]
pub enum KeyValues {
    /// Integers, and booleans as 0 and 1.
    Ints(Numbering),
    /// Texts.
    Texts(Texts),
}

impl KeyValues {
    /// Creates an empty set of values for a column of texts, or of integers or booleans.
    pub fn new(is_text: bool) -> Self {
        if is_text { Self::Texts(Texts::default()) } else { Self::Ints(Numbering::default()) }
    }

    /// The number of known values.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(ints) => ints.keys().len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Whether no value is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the code of each row of a column; new values are added.
    ///
    /// # Errors
    /// When the column has another type.
    #[inline]
    pub fn codes(&mut self, part: &Part, name: &str) -> Result<Vec<u32>> {
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

    /// Returns the code of each row of a column; 0 also where the value is not known.
    ///
    /// # Errors
    /// When the column has another type.
    #[inline]
    pub fn find(&self, part: &Part, name: &str) -> Result<Vec<u32>> {
        let mut codes = Vec::with_capacity(part.rows());
        for block in part.blocks() {
            match self {
                // Wrapping: this adds 1, and turns `NONE` into 0.
                Self::Texts(texts) => {
                    codes.extend(texts.find_all(&block.text(name)?).iter().map(|number| number.wrapping_sub(NONE)));
                }
                Self::Ints(ints) => {
                    let code = |key: Option<i64>| key.and_then(|key| ints.find(key)).map_or(0, |number| number + 1);
                    codes.extend(block.i64(name)?.iter().map(code));
                }
            }
        }
        Ok(codes)
    }
}

/// Rows of codes, numbered from 0 in the order of their first occurrence.
#[derive(Debug, Default)]
pub struct KeyRows {
    /// For a single column: by code the number plus 1, and by number the code.
    only: (Vec<u32>, Vec<u32>),
    /// For several columns: for each but the first, the pairs of the number of the columns
    /// before it and its own code.
    pairs: Vec<Pairs>,
}

#[derive(Debug)]
struct Pairs {
    /// Greater than every code.
    radix: u64,
    known: Numbering,
}

impl Pairs {
    /// The key of a number and a code, 32 bits each.
    #[inline]
    fn key(&self, before: u32, code: u32) -> i64 {
        (u64::from(before) * self.radix + u64::from(code)) as i64
    }
}

impl KeyRows {
    /// Creates an empty numbering for columns whose codes are less than `radices`, for `rows`
    /// rows at a time.
    pub fn new(radices: &[u64], rows: usize) -> Self {
        let mut count = radices.first().copied().unwrap_or(1);
        let pairs = radices.iter().skip(1).map(|radix| {
            let greatest = count.saturating_mul(*radix).saturating_sub(1);
            count = (rows as u64).min(greatest.saturating_add(1));
            // A range too wide for a table is looked up by hash.
            let bounds = Some((0, i64::try_from(greatest).unwrap_or(i64::MAX)));
            Pairs { radix: *radix, known: Numbering::new(bounds, rows) }
        });
        Self { pairs: pairs.collect(), ..Self::default() }
    }

    /// The number of rows that have been numbered.
    #[inline]
    pub fn len(&self) -> usize {
        self.pairs.last().map_or(self.only.1.len(), |pairs| pairs.known.keys().len())
    }

    /// Whether no row has been numbered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of each row from the codes of its columns, of which there must be as
    /// many as were expected; new rows are added.
    #[inline]
    pub fn numbers(&mut self, columns: &[Vec<u32>]) -> Vec<u32> {
        let [first, rest @ ..] = columns else { return Vec::new() };
        if rest.is_empty() {
            return self.of_one(first);
        }
        let mut before: Vec<u32> = first.clone();
        for (pairs, codes) in self.pairs.iter_mut().zip(rest) {
            let keys: Vec<i64> = before.iter().zip(codes).map(|(before, code)| pairs.key(*before, *code)).collect();
            before = pairs.known.numbers(&keys);
        }
        before
    }

    #[inline]
    fn of_one(&mut self, codes: &[u32]) -> Vec<u32> {
        let (numbers, known) = &mut self.only;
        let length = codes.iter().max().map_or(0, |code| *code as usize + 1);
        if numbers.len() < length {
            numbers.resize(length, 0);
        }
        let number = |code: &u32| {
            let entry = &mut numbers[*code as usize];
            if *entry == 0 {
                known.push(*code);
                *entry = known.len() as u32;
            }
            *entry - 1
        };
        codes.iter().map(number).collect()
    }

    /// Returns the number of each row from the codes of its columns; `None` where no such row
    /// was numbered.
    ///
    /// # Panics
    /// When columns differ in length.
    #[inline]
    pub fn find(&self, columns: &[Vec<u32>]) -> Vec<Option<u32>> {
        let rows = columns.first().map_or(0, Vec::len);
        let find = |row: usize| {
            let (first, rest) = columns.split_first()?;
            if rest.is_empty() {
                return self.only.0.get(first[row] as usize)?.checked_sub(1);
            }
            let mut pairs = self.pairs.iter().zip(rest);
            pairs.try_fold(first[row], |before, (pairs, codes)| pairs.known.find(pairs.key(before, codes[row])))
        };
        (0..rows).map(find).collect()
    }

    /// Returns the codes of each column, by number.
    #[inline]
    pub fn codes(self) -> Vec<Vec<u32>> {
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
