//! Keys of groups and joins, and the encoding of numbers that go from `partial` to `merge`.

use std::marker::PhantomData;
use std::ops::Range;

use arrow_array::Int64Array;
use bytemuck::Pod;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kernels::mix;

/// Numbers integers from 0, in the order of their first occurrence.
///
/// Integers that are close together, as keys of rows usually are, are looked up by their offset
/// in a table; others by their hash.
#[derive(Debug, Default)]
pub struct Numbering {
    least: i64,
    /// The dense table, by offset from `least`: the number plus 1; 0 where there is none.
    dense: Vec<u32>,
    /// The hash table of the other keys: the number plus 1, in the slot of the hash or a later
    /// one; 0 for an empty slot. At most half of the slots are taken.
    sparse: Vec<u32>,
    /// The number of keys in the hash table.
    far: usize,
    keys: Vec<i64>,
    missing: Option<u32>,
    /// The least and the greatest key that were expected.
    bounds: Option<(i64, i64)>,
    /// The number of keys that were expected when the dense table was last reconsidered.
    considered: usize,
}

/// Entries of the dense table for each expected key.
const SPREAD: u64 = 8;

impl Numbering {
    /// Creates an empty numbering for `expected` keys, all between two bounds.
    pub fn new(bounds: Option<(i64, i64)>, expected: usize) -> Self {
        let (least, greatest) = bounds.unwrap_or((0, 0));
        let length = (greatest as u64).wrapping_sub(least as u64).saturating_add(1);
        let is_dense = length <= (expected as u64).saturating_mul(SPREAD).max(1024);
        let dense = if is_dense { vec![0; length as usize] } else { Vec::new() };
        Self { least, dense, bounds, considered: expected, ..Self::default() }
    }

    /// Creates an empty numbering for the keys of these columns.
    pub fn of<'a>(columns: impl IntoIterator<Item = &'a Int64Array>) -> Self {
        let (mut least, mut greatest, mut rows) = (i64::MAX, i64::MIN, 0);
        for column in columns {
            rows += column.len();
            for key in column.values() {
                least = least.min(*key);
                greatest = greatest.max(*key);
            }
        }
        Self::new((rows > 0).then_some((least, greatest)), rows)
    }

    /// Extends the dense table to these keys, if they are close enough to all others. The total
    /// time of all calls is at most that of numbering the keys.
    #[inline]
    pub fn expect(&mut self, keys: &[i64]) {
        let Some((least, greatest)) = keys.iter().min().zip(keys.iter().max()) else { return };
        let (before, count) = (self.bounds.unwrap_or((*least, *greatest)), self.keys.len() + keys.len());
        let (least, greatest) = (before.0.min(*least), before.1.max(*greatest));
        self.bounds = Some((least, greatest));
        let is_in_table = |key: i64| self.offset(key) < self.dense.len();
        if (is_in_table(least) && is_in_table(greatest)) || count < 2 * self.considered {
            return;
        }
        self.considered = count;
        // On the side that grows, room is left for the same range again.
        let apart = greatest.saturating_sub(least);
        let (below, above) = (least.saturating_sub(apart), greatest.saturating_add(apart));
        let wide = (if least < before.0 { below } else { least }, if greatest > before.1 { above } else { greatest });
        let table = [wide, (least, greatest)].into_iter().map(|bounds| Self::new(Some(bounds), count));
        let Some(table) = table.into_iter().find(|table| !table.dense.is_empty()) else { return };
        (self.least, self.dense) = (table.least, table.dense);
        for number in 0..self.keys.len() as u32 {
            let offset = self.offset(self.keys[number as usize]);
            if let Some(entry) = self.dense.get_mut(offset)
                && self.missing != Some(number)
            {
                *entry = number + 1;
            }
        }
        self.hash_others(0);
    }

    /// Rebuilds the hash table with the keys that are not in the dense table, with at least
    /// `slots` slots.
    #[inline]
    fn hash_others(&mut self, slots: usize) {
        let is_other = |(number, key): (u32, &i64)| {
            (self.missing != Some(number) && self.offset(*key) >= self.dense.len()).then_some(number)
        };
        let others: Vec<u32> = (0..).zip(&self.keys).filter_map(is_other).collect();
        self.far = others.len();
        self.sparse = match slots.max(4 * self.far) {
            0 => Vec::new(),
            slots => vec![0; slots.next_power_of_two()],
        };
        for number in others {
            if let Err(slot) = self.probe(self.keys[number as usize]) {
                self.sparse[slot] = number + 1;
            }
        }
    }

    /// Returns the number of a key that is not in the dense table, or the free slot for it in
    /// the hash table, which must have slots.
    #[inline]
    fn probe(&self, key: i64) -> Result<u32, usize> {
        let mask = self.sparse.len() - 1;
        let mut slot = mix(key as u64) as usize & mask;
        loop {
            let Some(number) = self.sparse[slot].checked_sub(1) else { return Err(slot) };
            if self.keys[number as usize] == key {
                return Ok(number);
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Returns the number of the missing key, which is one of the numbers.
    #[inline]
    pub fn missing(&mut self) -> u32 {
        let next = self.keys.len() as u32;
        *self.missing.get_or_insert_with(|| {
            self.keys.push(0);
            next
        })
    }

    #[inline]
    fn offset(&self, key: i64) -> usize {
        (key as u64).wrapping_sub(self.least as u64).try_into().unwrap_or(usize::MAX)
    }

    /// Returns the number of a key; a new key is added.
    #[inline]
    pub fn number(&mut self, key: i64) -> u32 {
        let next = self.keys.len() as u32;
        let offset = self.offset(key);
        if let Some(known) = self.dense.get_mut(offset) {
            if *known == 0 {
                *known = next + 1;
                self.keys.push(key);
            }
            return *known - 1;
        }
        if self.sparse.len() <= 2 * self.far {
            self.hash_others(64);
        }
        self.probe(key).unwrap_or_else(|slot| {
            self.sparse[slot] = next + 1;
            self.far += 1;
            self.keys.push(key);
            next
        })
    }

    /// Returns the numbers of keys; new keys are added.
    // A separate function, since in a long one the loop would lose its registers; generic, so
    // that it is compiled as the step is.
    #[inline(never)]
    pub fn numbers<K: Copy + Into<i64>>(&mut self, keys: &[K]) -> Vec<u32> {
        let mut found = vec![0; keys.len()];
        let least = self.least as u64;
        let mut one = |key: K| {
            let key = key.into();
            let offset = usize::try_from((key as u64).wrapping_sub(least)).unwrap_or(usize::MAX);
            match self.dense.get(offset) {
                Some(known) if *known > 0 => known - 1,
                _ => self.number(key),
            }
        };
        // Four per iteration: each iteration pays for fuel.
        let ((keys4, keys_rest), (found4, found_rest)) = (keys.as_chunks::<4>(), found.as_chunks_mut::<4>());
        for (keys, found) in keys4.iter().zip(found4) {
            *found = keys.map(&mut one);
        }
        keys_rest.iter().zip(found_rest).for_each(|(key, found)| *found = one(*key));
        found
    }

    /// Returns all numbers in the order of their keys; the missing key comes first.
    pub fn sorted(&self) -> Vec<u32> {
        let of_keys = |number: &u32| self.missing != Some(*number);
        let mut order: Vec<u32> = self.missing.into_iter().collect();
        if !self.dense.is_empty() && self.far == 0 {
            order.extend(self.dense.iter().filter_map(|entry| entry.checked_sub(1)));
        } else {
            order.extend((0..self.keys.len() as u32).filter(of_keys));
            let from = usize::from(self.missing.is_some());
            order[from..].sort_unstable_by_key(|number| self.keys[*number as usize]);
        }
        order
    }

    /// Returns the number of a key, if it is known.
    #[inline]
    pub fn find(&self, key: i64) -> Option<u32> {
        match self.dense.get(self.offset(key)) {
            Some(known) => known.checked_sub(1),
            None if self.far == 0 => None,
            None => self.probe(key).ok(),
        }
    }

    /// The keys, by number; the entry of the missing key is arbitrary.
    pub fn keys(&self) -> &[i64] {
        &self.keys
    }

    /// Returns the keys, and the number of the missing key, if there is one.
    pub fn into_keys(self) -> (Vec<i64>, Option<u32>) {
        (self.keys, self.missing)
    }
}

/// Numbers that are serialized as raw bytes, not one by one.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed<T>(pub Vec<T>);

impl<T> Default for Packed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Pod> Serialize for Packed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytemuck::cast_slice(&self.0))
    }
}

impl<'de, T: Pod> Deserialize<'de> for Packed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<T>(PhantomData<T>);
        impl<T: Pod> Visitor<'_> for Bytes<T> {
            type Value = Packed<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the bytes of numbers")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Packed<T>, E> {
                if !bytes.len().is_multiple_of(size_of::<T>()) {
                    return Err(E::custom("the bytes end within a number"));
                }
                // A copy, so that the numbers are aligned, into memory that was not zeroed first.
                Ok(Packed(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()))
            }
        }
        deserializer.deserialize_bytes(Bytes(PhantomData)).map_err(D::Error::custom)
    }
}

/// [`Packed`] numbers, read in place: nothing is copied, and they need not be aligned.
#[derive(Debug, Clone, Copy)]
pub struct PackedRef<'k, T>(&'k [u8], PhantomData<T>);

impl<'k, T: Pod> PackedRef<'k, T> {
    /// The number of numbers.
    pub fn len(&self) -> usize {
        self.0.len() / size_of::<T>()
    }

    /// Whether there are no numbers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number at an index.
    ///
    /// # Panics
    /// When the index is out of range.
    #[inline]
    pub fn get(&self, index: usize) -> T {
        bytemuck::pod_read_unaligned(&self.0[index * size_of::<T>()..(index + 1) * size_of::<T>()])
    }

    /// Returns the numbers in a range of indices.
    ///
    /// # Panics
    /// When the range is out of bounds.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self(&self.0[range.start * size_of::<T>()..range.end * size_of::<T>()], PhantomData)
    }

    /// Iterates over all numbers.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + use<'k, T> {
        self.0.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }

    /// Returns the length of the prefix for which `holds` is true; it must be false for all
    /// later numbers.
    #[inline]
    pub fn partition_point(&self, holds: impl Fn(T) -> bool) -> usize {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from.midpoint(to);
            if holds(self.get(middle)) { from = middle + 1 } else { to = middle }
        }
        from
    }
}

impl<'de, T: Pod> Deserialize<'de> for PackedRef<'de, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        match bytes.len().is_multiple_of(size_of::<T>()) {
            true => Ok(Self(bytes, PhantomData)),
            false => Err(D::Error::custom("the bytes end within a number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_in_order_whether_close_or_far() {
        for keys in [vec![5, 7, 5, 6], vec![i64::MIN, i64::MAX, i64::MIN, 0], vec![-3]] {
            let column = Int64Array::from(keys.clone());
            let mut numbering = Numbering::of([&column]);
            let numbers: Vec<u32> = keys.iter().map(|key| numbering.number(*key)).collect();
            let mut first: Vec<i64> = Vec::new();
            for (key, number) in keys.iter().zip(numbers) {
                if !first.contains(key) {
                    first.push(*key);
                }
                assert_eq!(first[number as usize], *key);
                assert_eq!(numbering.find(*key), Some(number));
            }
            assert_eq!(numbering.keys(), first);
            let mut at_once = Numbering::of([&column]);
            let numbers = at_once.numbers(keys.as_slice());
            assert!(numbers.iter().zip(&keys).all(|(number, key)| first[*number as usize] == *key));
            let sorted: Vec<i64> = at_once.sorted().iter().map(|number| first[*number as usize]).collect();
            let mut expected = first.clone();
            expected.sort_unstable();
            assert_eq!(sorted, expected);
            assert_eq!(numbering.find(1000), None);
            assert_eq!(numbering.find(i64::MIN + 1), None);
        }
        // The keys that are expected later do not change numbers.
        let mut numbering = Numbering::default();
        let batches = [vec![7, 9], vec![3, 2000], vec![i64::MIN, i64::MAX, 9], vec![-5, 8]];
        let numbers: Vec<u32> = batches
            .iter()
            .flat_map(|batch| {
                numbering.expect(batch);
                let missing = numbering.missing();
                batch.iter().map(|key| numbering.number(*key)).chain([missing]).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(numbers, [1, 2, 0, 3, 4, 0, 5, 6, 2, 0, 7, 8, 0]);
        assert_eq!([7, 2000, i64::MIN, -5, 8].map(|key| numbering.find(key)), [1, 4, 5, 7, 8].map(Some));
        assert_eq!(numbering.find(0), None, "the entry of the missing key is not a key");
        assert_eq!(numbering.sorted(), [0, 5, 7, 3, 1, 8, 2, 4, 6]);
        // Keys outside the expected range are found, too.
        let mut numbering = Numbering::new(Some((0, 3)), 4);
        assert_eq!((numbering.number(2), numbering.number(-9), numbering.number(2)), (0, 1, 0));
        assert_eq!(numbering.find(-9), Some(1));
    }

    /// Keys close together or far apart, in any order, with keys expected at any time.
    #[test]
    fn numbers_are_those_of_a_map() {
        use std::collections::BTreeMap;
        let mut state = 1u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut numbering = Numbering::default();
            let mut known: BTreeMap<Option<i64>, u32> = BTreeMap::new();
            for _ in 0..random(12) {
                let (kind, from, rows) = (random(6), random(4000) as i64 - 2000, random(300));
                let key = |i: u64, random: u64| match kind {
                    0 => from + i as i64,
                    1 => from - i as i64,
                    2 => from + (random % 50) as i64,
                    3 => (random as i64).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64),
                    4 => i64::MAX - (random % 5) as i64,
                    _ => i64::MIN + (random % 5) as i64,
                };
                let batch: Vec<i64> = (0..rows).map(|i| key(i, random(1 << 30))).collect();
                if random(4) > 0 {
                    numbering.expect(&batch);
                }
                let next = |known: &mut BTreeMap<Option<i64>, u32>, key: Option<i64>| {
                    let next = known.len() as u32;
                    *known.entry(key).or_insert(next)
                };
                if random(3) == 0 {
                    let expected: Vec<u32> = batch.iter().map(|key| next(&mut known, Some(*key))).collect();
                    assert_eq!(numbering.numbers(&batch), expected);
                } else {
                    batch.iter().for_each(|key| assert_eq!(numbering.number(*key), next(&mut known, Some(*key))));
                }
                if random(8) == 0 {
                    assert_eq!(numbering.missing(), next(&mut known, None));
                }
            }
            for (key, number) in known.iter().filter_map(|(key, number)| Some(((*key)?, *number))) {
                assert_eq!(numbering.find(key), Some(number));
                let beside = key.wrapping_add(1);
                assert_eq!(numbering.find(beside), known.get(&Some(beside)).copied());
            }
            assert!(numbering.sorted().iter().eq(known.values()));
        }
    }

    /// Blocks that each continue where the last one ended, or have any keys: the work grows in
    /// proportion to the keys.
    #[test]
    fn the_table_is_not_rebuilt_for_every_block() {
        for step in [1, 1000, 0x0123_4567_89ab_cdef] {
            let mut numbering = Numbering::default();
            let mut considered = 0;
            for block in 0..1000i64 {
                let keys: Vec<i64> = (0..100).map(|i| (block * 100 + i).wrapping_mul(step)).collect();
                let before = numbering.considered;
                numbering.expect(&keys);
                considered += usize::from(numbering.considered != before);
                numbering.numbers(&keys);
            }
            assert!(numbering.keys().len() == 100_000 && considered < 20, "{considered}");
            // Keys that are close together are in the dense table.
            assert_eq!(numbering.far == 0, step == 1);
        }
    }

    #[test]
    fn packed_numbers_round_trip() {
        let packed = Packed(vec![1.5, f64::NAN, -0.0]);
        let bytes = postcard::to_allocvec(&(7u8, &packed)).unwrap();
        let (seven, back): (u8, Packed<f64>) = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(seven, 7);
        assert_eq!(
            back.0.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            packed.0.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        );
        assert!(postcard::from_bytes::<Packed<f64>>(&[3, 1, 2, 3]).is_err());
        assert!(postcard::from_bytes::<PackedRef<f64>>(&[3, 1, 2, 3]).is_err());
    }

    #[test]
    fn packed_numbers_can_be_read_in_place() {
        let numbers: Vec<u64> = (0..50).map(|i| i / 3 * 7).collect();
        // At any alignment.
        for before in 0..9usize {
            let bytes = postcard::to_allocvec(&(vec![1u8; before], Packed(numbers.clone()))).unwrap();
            let (_, found): (Vec<u8>, PackedRef<u64>) = postcard::from_bytes(&bytes).unwrap();
            assert_eq!((found.len(), found.is_empty(), found.get(49)), (50, false, 112));
            assert!(found.iter().eq(numbers.iter().copied()));
            assert!(found.slice(3..7).iter().eq([7, 7, 7, 14]));
            for bound in 0..120 {
                let holds = |number: u64| number <= bound;
                assert_eq!(found.partition_point(holds), numbers.partition_point(|number| holds(*number)));
            }
        }
        let none = postcard::to_allocvec(&Packed::<u64>::default()).unwrap();
        let none: PackedRef<u64> = postcard::from_bytes(&none).unwrap();
        assert_eq!((none.len(), none.partition_point(|_| true)), (0, 0));
    }
}
