//! Texts by number: the dictionary of a column, the same on every machine.

use arrow_array::{Array, StringArray};

use crate::kernels::mix;

/// Numbers texts from 0, in the order in which they come. Made for categories, which are
/// short and come again and again: up to eight bytes are compared as one number.
#[derive(Debug, Default)]
pub struct Texts {
    /// The number of a text and 1, where its hash says or in a place behind; 0 where there
    /// is none. At most half of them are taken.
    places: Vec<u32>,
    /// By number: the first eight bytes, and how many there are.
    heads: Vec<(u64, usize)>,
    /// Where each ends in `bytes`.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// In the place of a number.
pub const NONE: u32 = u32::MAX;

/// The bytes of all rows, null ones too.
#[inline]
fn rows(column: &StringArray) -> impl Iterator<Item = &[u8]> {
    let bytes = column.value_data();
    column.value_offsets().windows(2).map(|ends| &bytes[ends[0] as usize..ends[1] as usize])
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The first eight bytes, without those that are not there.
#[inline]
fn head(text: &[u8]) -> u64 {
    let half = |bytes: &[u8]| bytes.first_chunk().map_or(0, |half| u64::from(u32::from_le_bytes(*half)));
    match text.len() {
        0 => 0,
        // Middle and last may be the first once more, in its place.
        n @ 1..=3 => {
            let byte = |place: usize| u64::from(text[place]) << (8 * place);
            byte(0) | byte(n / 2) | byte(n - 1)
        }
        n @ 4..=7 => half(text) | half(&text[n - 4..]) << (8 * (n - 4)),
        _ => word(text),
    }
}

#[inline]
fn hash(head: u64, text: &[u8]) -> u64 {
    let mut hash = mix(head ^ (text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if text.len() > 8 {
        for rest in text[8..].chunks(8) {
            // The last eight, of which some were looked at before.
            let rest = if rest.len() < 8 { &text[text.len() - 8..] } else { rest };
            hash = mix(hash ^ word(rest));
        }
    }
    hash
}

impl Texts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        // What went in was text.
        (0..self.len()).map(|number| std::str::from_utf8(self.bytes_of(number)).unwrap_or_default())
    }

    #[inline]
    fn bytes_of(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }

    /// The number of a text, or the place for it.
    #[inline]
    fn look(&self, head: u64, text: &[u8]) -> Result<u32, usize> {
        let mask = self.places.len() - 1;
        let mut place = hash(head, text) as usize & mask;
        loop {
            let Some(number) = self.places[place].checked_sub(1) else { return Err(place) };
            let is_it = self.heads[number as usize] == (head, text.len());
            if is_it && (text.len() <= 8 || self.bytes_of(number as usize) == text) {
                return Ok(number);
            }
            place = (place + 1) & mask;
        }
    }

    /// The number of a text, if it has one.
    #[inline]
    pub fn find(&self, text: &str) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        self.look(head(text.as_bytes()), text.as_bytes()).ok()
    }

    /// The number of a text, which may be new.
    #[inline]
    pub fn number(&mut self, text: &str) -> u32 {
        self.number_of(text.as_bytes())
    }

    /// Numbers the texts of a column, until there are more than `most`.
    #[inline]
    pub fn number_all(&mut self, column: &StringArray, most: usize) {
        for (row, text) in rows(column).enumerate() {
            if column.is_valid(row) {
                self.number_of(text);
            }
            if self.len() > most {
                return;
            }
        }
    }

    /// Numbers the texts of a column, and adds to `codes` for each row the number and 1, or 0
    /// where there is none.
    #[inline]
    pub fn codes(&mut self, column: &StringArray, codes: &mut Vec<u32>) {
        match column.nulls() {
            None => codes.extend(rows(column).map(|text| self.number_of(text) + 1)),
            Some(nulls) => {
                codes.extend(rows(column).zip(nulls).map(|(text, is)| if is { self.number_of(text) + 1 } else { 0 }))
            }
        }
    }

    #[inline]
    fn number_of(&mut self, text: &[u8]) -> u32 {
        if self.places.len() <= 2 * self.len() {
            self.grow();
        }
        let head = head(text);
        self.look(head, text).unwrap_or_else(|place| {
            let number = self.len() as u32;
            self.places[place] = number + 1;
            self.heads.push((head, text.len()));
            self.bytes.extend_from_slice(text);
            self.ends.push(self.bytes.len());
            number
        })
    }

    /// The number of each row of a column; [`NONE`] where a text has none, or there is no text.
    #[inline]
    pub fn find_all(&self, column: &StringArray) -> Vec<u32> {
        if self.is_empty() {
            return vec![NONE; column.len()];
        }
        let find = |text: &[u8]| self.look(head(text), text).unwrap_or(NONE);
        let mut found: Vec<u32> = rows(column).map(find).collect();
        if let Some(nulls) = column.nulls() {
            found.iter_mut().zip(nulls).filter(|(_, is)| !is).for_each(|(number, _)| *number = NONE);
        }
        found
    }

    #[inline]
    fn grow(&mut self) {
        self.places = vec![0; (self.places.len() * 4).max(64)];
        for number in 0..self.len() {
            if let Err(place) = self.look(self.heads[number].0, self.bytes_of(number)) {
                self.places[place] = number as u32 + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Of all lengths, equal but for one byte, with zeros at the end, and many.
    #[test]
    fn each_text_has_the_number_of_its_first_time() {
        let mut all: Vec<String> = (0..40).flat_map(|n| ["x".repeat(n), "\0".repeat(n)]).collect();
        for n in 1..30 {
            for at in 0..n {
                let mut text = vec![b'a'; n];
                text[at] = b'b';
                all.push(String::from_utf8(text).unwrap());
            }
        }
        all.extend((0..5000).map(|i| format!("category {i}")));
        all.extend(["ä", "ä\0", "äö", "日本", ""].map(str::to_owned));
        let mut texts = Texts::default();
        assert_eq!(texts.find(""), None);
        let mut known: HashMap<&str, u32> = HashMap::new();
        for text in all.iter().chain(&all) {
            let next = known.len() as u32;
            assert_eq!(texts.number(text), *known.entry(text).or_insert(next), "{text:?}");
        }
        assert_eq!(texts.len(), known.len());
        assert!(texts.iter().enumerate().all(|(number, text)| known[text] == number as u32));
        assert!(known.iter().all(|(text, number)| texts.find(text) == Some(*number)));
        assert_eq!((texts.find("category 5000"), texts.find(&"x".repeat(40))), (None, None));
    }

    #[test]
    fn rows_have_the_numbers_of_their_texts() {
        let mut texts = Texts::default();
        let column = StringArray::from(vec![Some("b"), None, Some("a"), Some("c"), Some("")]);
        assert_eq!(texts.find_all(&column), [NONE; 5]);
        texts.number_all(&StringArray::from(vec![Some("a"), None, Some("a"), Some("b"), Some("z")]), 1);
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(texts.find_all(&column), [1, NONE, 0, NONE, NONE]);
        texts.number("");
        assert_eq!(texts.find_all(&column.slice(1, 4)), [NONE, 0, NONE, 2]);
    }

    #[test]
    fn a_code_says_which_text_or_that_there_is_none() {
        let (mut texts, mut codes) = (Texts::default(), vec![7]);
        texts.codes(&StringArray::from(vec![Some("b"), None, Some("a"), Some("b"), Some("")]), &mut codes);
        texts.codes(&StringArray::from(vec!["x", "a", ""]).slice(1, 2), &mut codes);
        assert_eq!(codes, [7, 1, 0, 2, 1, 3, 2, 3]);
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["b", "a", ""]);
    }

    #[test]
    fn the_head_is_the_first_eight_bytes() {
        let text = b"abcdefghij";
        for n in 0..=text.len() {
            let expected = text[..n].iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            assert_eq!(head(&text[..n]), expected, "{n}");
        }
    }
}
