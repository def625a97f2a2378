//! Numbered texts: the dictionary of a column, the same on every machine.

use arrow_array::{Array, StringArray};

use crate::kernels::mix;

/// Numbers texts from 0, in the order of their first occurrence. Designed for categories, which are
/// short and repeat often: up to eight bytes are compared as one number.
#[derive(Debug, Default)]
pub struct Texts {
    /// The hash table: the number of a text plus 1, in the slot of its hash or a later one; 0
    /// for an empty slot. At most half of the slots are taken.
    slots: Vec<u32>,
    /// By number: the first eight bytes, and the length.
    heads: Vec<(u64, usize)>,
    /// By number: the end offset in `bytes`.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// Stands for the number of a text that is not known.
pub const NONE: u32 = u32::MAX;

/// The bytes of all rows, including null ones.
#[inline]
fn rows(column: &StringArray) -> impl Iterator<Item = &[u8]> {
    let bytes = column.value_data();
    column.value_offsets().windows(2).map(|ends| &bytes[ends[0] as usize..ends[1] as usize])
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The first eight bytes as a little-endian word, padded with zeros.
#[inline]
fn head(text: &[u8]) -> u64 {
    let half = |bytes: &[u8]| bytes.first_chunk().map_or(0, |half| u64::from(u32::from_le_bytes(*half)));
    match text.len() {
        0 => 0,
        // The middle or the last byte may be the first one again, at the same index.
        n @ 1..=3 => {
            let byte = |index: usize| u64::from(text[index]) << (8 * index);
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
            // The last eight bytes, some of which were hashed already.
            let rest = if rest.len() < 8 { &text[text.len() - 8..] } else { rest };
            hash = mix(hash ^ word(rest));
        }
    }
    hash
}

impl Texts {
    /// The number of texts.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there are no texts.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Iterates over all texts, by number.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        // Only valid UTF-8 was stored.
        (0..self.len()).map(|number| std::str::from_utf8(self.bytes_of(number)).unwrap_or_default())
    }

    #[inline]
    fn bytes_of(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }

    /// Returns the number of a text, or the free slot for it.
    #[inline]
    fn probe(&self, head: u64, text: &[u8]) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash(head, text) as usize & mask;
        loop {
            let Some(number) = self.slots[slot].checked_sub(1) else { return Err(slot) };
            let is_it = self.heads[number as usize] == (head, text.len());
            if is_it && (text.len() <= 8 || self.bytes_of(number as usize) == text) {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Returns the number of a text, if it is known.
    #[inline]
    pub fn find(&self, text: &str) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        self.probe(head(text.as_bytes()), text.as_bytes()).ok()
    }

    /// Returns the number of a text; a new text is added.
    #[inline]
    pub fn number(&mut self, text: &str) -> u32 {
        self.number_of(text.as_bytes())
    }

    /// Numbers the texts of a column, until there are more than `max`.
    #[inline]
    pub fn number_all(&mut self, column: &StringArray, max: usize) {
        for (row, text) in rows(column).enumerate() {
            if column.is_valid(row) {
                self.number_of(text);
            }
            if self.len() > max {
                return;
            }
        }
    }

    /// Numbers the texts of a column, and appends to `codes` for each row the number plus 1, or
    /// 0 where the row is null.
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
        if self.slots.len() <= 2 * self.len() {
            self.grow();
        }
        let head = head(text);
        self.probe(head, text).unwrap_or_else(|slot| {
            let number = self.len() as u32;
            self.slots[slot] = number + 1;
            self.heads.push((head, text.len()));
            self.bytes.extend_from_slice(text);
            self.ends.push(self.bytes.len());
            number
        })
    }

    /// Returns the number of each row of a column; [`NONE`] where the text is not known or the
    /// row is null.
    #[inline]
    pub fn find_all(&self, column: &StringArray) -> Vec<u32> {
        if self.is_empty() {
            return vec![NONE; column.len()];
        }
        let find = |text: &[u8]| self.probe(head(text), text).unwrap_or(NONE);
        let mut found: Vec<u32> = rows(column).map(find).collect();
        if let Some(nulls) = column.nulls() {
            found.iter_mut().zip(nulls).filter(|(_, is)| !is).for_each(|(number, _)| *number = NONE);
        }
        found
    }

    #[inline]
    fn grow(&mut self) {
        self.slots = vec![0; (self.slots.len() * 4).max(64)];
        for number in 0..self.len() {
            if let Err(slot) = self.probe(self.heads[number].0, self.bytes_of(number)) {
                self.slots[slot] = number as u32 + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Texts of all lengths, equal except for one byte, with trailing zeros, and many of them.
    #[test]
    fn each_text_retains_its_first_number() {
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
    fn a_code_is_the_number_plus_one_or_zero_for_null() {
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
