//! Loops shared by steps, with the same bits natively and in a guest: sums run in a fixed order
//! over lanes, and a product and its sum are rounded once where this is documented, and twice
//! elsewhere.

use crate::pair::{Pair, edges_up_to};
use millrace_expr::math::EXP_TERMS;

/// Replaces each value by `1 / (1 + e^-x)`, within 3 units in the last place; 0 below -708.
#[inline]
pub fn sigmoids(values: &mut [f64]) {
    let (fours, rest) = values.as_chunks_mut::<4>();
    for four in fours {
        *four = Pair::join(Pair::of(four).map(sigmoid));
    }
    // Padded to four: the result for a value must not depend on its index.
    let mut four = [0.0; 4];
    four[..rest.len()].copy_from_slice(rest);
    four = Pair::join(Pair::of(&four).map(sigmoid));
    rest.copy_from_slice(&four[..rest.len()]);
}

#[inline(always)]
fn sigmoid(x: Pair) -> Pair {
    let (one, least) = (Pair::both(1.0), Pair::both(-708.0));
    let t = x.negative_abs();
    let e = exp(t.at_least(least)).zero_where_less(t, least);
    let upper = one.over(e.plus(one));
    upper.or_where_negative(e.times(upper), x)
}

/// `e^t` for `t` from -708 to 0: reduction and series as in [`crate::expr_math::exp`], by
/// Estrin's scheme, so that its terms do not depend on each other.
#[inline(always)]
fn exp(t: Pair) -> Pair {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // 1.5 * 2^52: adding it to a small integer leaves that integer in the lower bits.
    let round = Pair::both(6_755_399_441_055_744.0);
    let shifted = t.fused(Pair::both(std::f64::consts::LOG2_E), round);
    let k = shifted.minus(round);
    let r = k.fused(Pair::both(-LN2_LOW), k.fused(Pair::both(-LN2_HIGH), t));
    let r2 = r.times(r);
    let r4 = r2.times(r2);
    let two = |i: usize| r.fused(Pair::both(EXP_TERMS[2 * i + 1]), Pair::both(EXP_TERMS[2 * i]));
    let four = |i: usize| two(2 * i + 1).fused(r2, two(2 * i));
    let low = four(1).fused(r4, four(0));
    let high = two(6).fused(r4, four(2));
    high.fused(r4.times(r4), low).times(shifted.power_of_two())
}

/// The sum, in eight lanes.
#[inline]
pub fn sum(a: &[f64]) -> f64 {
    sum_of(a, |value| value)
}

/// The sum of `of` over all items, in eight lanes: the same as the sum of a column of its
/// results, which need not be materialized.
#[inline]
pub fn sum_of<T: Copy>(items: &[T], of: impl Fn(T) -> f64) -> f64 {
    let (eights, rest) = items.as_chunks::<8>();
    // Paired by hand: otherwise the compiler shuffles lanes for their sum below.
    let mut lanes = [Pair::both(0.0); 4];
    for eight in eights {
        let [a, b, c, d, e, f, g, h] = eight.map(&of);
        let ([ab, cd], [ef, gh]) = (Pair::of(&[a, b, c, d]), Pair::of(&[e, f, g, h]));
        lanes = [lanes[0].plus(ab), lanes[1].plus(cd), lanes[2].plus(ef), lanes[3].plus(gh)];
    }
    let [ab, cd, ef, gh] = lanes;
    let ([l0, l1, l2, l3], [l4, l5, l6, l7]) = (Pair::join([ab, cd]), Pair::join([ef, gh]));
    let lanes = ((l0 + l4) + (l1 + l5)) + ((l2 + l6) + (l3 + l7));
    lanes + rest.iter().map(|item| of(*item)).sum::<f64>()
}

/// Whether `is_so` holds for any value. All values are checked, many at a time: faster than
/// stopping at the first match when matches are rare.
#[inline]
pub fn any(values: &[f64], is_so: impl Fn(f64) -> bool) -> bool {
    values.iter().fold(false, |found, value| found | is_so(*value))
}

/// For each value the number of sorted edges that are not greater; 0 for NaN.
#[inline]
pub fn bins(values: &[f64], edges: &[f64]) -> Vec<i32> {
    if edges.len() > 32 {
        return values.iter().map(|x| edges.partition_point(|edge| edge <= x) as i32).collect();
    }
    // Few edges: counting them all needs no branch.
    let (eights, rest) = values.as_chunks::<8>();
    let mut bins = Vec::with_capacity(values.len());
    eights.iter().for_each(|eight| bins.extend(edges_up_to(eight, edges)));
    let mut eight = [0.0; 8];
    eight[..rest.len()].copy_from_slice(rest);
    bins.extend(&edges_up_to(&eight, edges)[..rest.len()]);
    bins
}

/// Adds to each of `y` the products of its row with the weights, in this order:
/// `y[i] += w[0] * x[0][i] + w[1] * x[1][i] + …`, each product and its sum rounded once.
///
/// # Panics
/// When a column is shorter than `y`, or there are not as many weights as columns.
#[inline]
pub fn add_products(y: &mut [f64], weights: &[f64], columns: &[&[f64]]) {
    assert_eq!(weights.len(), columns.len(), "a weight for each column");
    let (fours, rest) = columns.as_chunks::<4>();
    let (weights4, weights_rest) = weights.as_chunks::<4>();
    fours.iter().zip(weights4).for_each(|(columns, weights)| add_some(y, *weights, *columns));
    rest.iter().zip(weights_rest).for_each(|(column, weight)| add_some(y, [*weight], [*column]));
}

/// Reads one word of every 64 bytes, so that the computation that follows finds the columns in the
/// cache: here many reads wait at the same time, between sums they would wait one after the other.
#[inline]
pub fn fetch(columns: &[&[f64]]) {
    let mut all = 0;
    for column in columns {
        let (lines, _) = column.as_chunks::<8>();
        all = lines.iter().fold(all, |all, line| all ^ line[0].to_bits());
    }
    std::hint::black_box(all);
}

/// Processes several columns together: `y` is read and written once for all of them.
#[inline]
fn add_some<const N: usize>(y: &mut [f64], weights: [f64; N], columns: [&[f64]; N]) {
    let columns = columns.map(|column| column[..y.len()].as_chunks::<4>());
    let (y4, y_rest) = y.as_chunks_mut::<4>();
    let pairs = weights.map(Pair::both);
    for (i, y) in y4.iter_mut().enumerate() {
        let [mut low, mut high] = Pair::of(y);
        for ((x, _), weight) in columns.iter().zip(pairs) {
            let [x_low, x_high] = Pair::of(&x[i]);
            low = x_low.fused(weight, low);
            high = x_high.fused(weight, high);
        }
        *y = Pair::join([low, high]);
    }
    for (i, y) in y_rest.iter_mut().enumerate() {
        for ((_, x), weight) in columns.iter().zip(pairs) {
            *y = Pair::both(x[i]).fused(weight, Pair::both(*y)).first();
        }
    }
}

/// Adds to each of `sums` the dot product of its column and `b`, in four lanes, each product
/// and its sum rounded once.
///
/// # Panics
/// When a column is shorter than `b`, or there are not as many sums as columns.
#[inline]
pub fn add_dots(sums: &mut [f64], columns: &[&[f64]], b: &[f64]) {
    assert_eq!(sums.len(), columns.len(), "a sum for each column");
    let (fours, rest) = columns.as_chunks::<4>();
    let (sums4, sums_rest) = sums.as_chunks_mut::<4>();
    for (sums, columns) in sums4.iter_mut().zip(fours) {
        let dots = some_dots(*columns, b);
        sums.iter_mut().zip(dots).for_each(|(sum, dot)| *sum += dot);
    }
    for (sum, column) in sums_rest.iter_mut().zip(rest) {
        *sum += some_dots([*column], b)[0];
    }
}

#[inline]
fn some_dots<const N: usize>(columns: [&[f64]; N], b: &[f64]) -> [f64; N] {
    let columns = columns.map(|column| column[..b.len()].as_chunks::<4>());
    let (b4, b_rest) = b.as_chunks::<4>();
    let mut lanes = [[Pair::both(0.0); 2]; N];
    for (i, b) in b4.iter().enumerate() {
        let [b_low, b_high] = Pair::of(b);
        for ((x, _), lanes) in columns.iter().zip(&mut lanes) {
            let [x_low, x_high] = Pair::of(&x[i]);
            *lanes = [x_low.fused(b_low, lanes[0]), x_high.fused(b_high, lanes[1])];
        }
    }
    std::array::from_fn(|n| {
        let [l0, l1, l2, l3] = Pair::join(lanes[n]);
        let rest = columns[n].1.iter().zip(b_rest);
        let fused = |sum, (x, b): (&f64, &f64)| Pair::both(*x).fused(Pair::both(*b), Pair::both(sum)).first();
        ((l0 + l2) + (l1 + l3)) + rest.fold(0.0, fused)
    })
}

/// A hash of bytes with a seed, spread over all 64 bits: FNV-1a, finished as in
/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
#[inline]
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(state)
}

/// Bits per digit of the radix sort.
const DIGIT: u32 = 11;
/// Digits that are sorted together: they distinguish nearly all integers that differ.
const DIGITS: usize = 3;

/// Radix sort of integers, 11 bits at a time: one pass over the data for each of the first
/// three digits in which they differ. Integers that these do not distinguish, which are usually
/// few, are sorted in place; if they are many, all digits are used.
#[inline]
pub fn sort(values: &mut Vec<u64>) {
    if values.len() < 4096 {
        return values.sort_unstable();
    }
    let (any, all) = values.iter().fold((0, u64::MAX), |(any, all), value| (any | value, all & value));
    let together = DIGIT * DIGITS as u32;
    let from = (u64::BITS - (any ^ all).leading_zeros()).saturating_sub(together);
    let mut spare = vec![0; values.len()];
    sort_by_digits::<DIGITS>(values, &mut spare, from);
    if from > 0 && !put_in_order(values) {
        sort_by_digits::<DIGITS>(values, &mut spare, 0);
        sort_by_digits::<DIGITS>(values, &mut spare, together);
    }
}

/// Sorts by `DIGITS` digits, starting at bit `from`; integers with equal digits keep their order.
// Generic, as is the next function, so that it is compiled as the step is.
#[inline(never)]
fn sort_by_digits<const DIGITS: usize>(values: &mut Vec<u64>, spare: &mut Vec<u64>, from: u32) {
    let digit = |value: u64, index: usize| (value >> (from + index as u32 * DIGIT)) as usize & ((1 << DIGIT) - 1);
    let mut counts = Box::new([[0u32; 1 << DIGIT]; DIGITS]);
    for value in values.iter() {
        (0..DIGITS).for_each(|index| counts[index][digit(*value, index)] += 1);
    }
    for (index, counts) in counts.iter_mut().enumerate() {
        if counts.iter().any(|count| *count as usize == values.len()) {
            continue;
        }
        let mut start = 0;
        for count in counts.iter_mut() {
            start += std::mem::replace(count, start);
        }
        let mut put = |value: u64| {
            let next = &mut counts[digit(value, index)];
            spare[*next as usize] = value;
            *next += 1;
        };
        let (fours, rest) = values.as_chunks::<4>();
        fours.iter().for_each(|four| four.iter().for_each(|value| put(*value)));
        rest.iter().for_each(|value| put(*value));
        std::mem::swap(values, spare);
    }
}

/// Sorts nearly sorted values. Gives up and returns false when they are not nearly sorted.
#[inline(never)]
fn put_in_order<T: Copy + PartialOrd>(values: &mut [T]) -> bool {
    let mut moves = values.len();
    let Some(mut greatest) = values.first().copied() else { return true };
    for index in 1..values.len() {
        let value = values[index];
        if value >= greatest {
            greatest = value;
            continue;
        }
        let to = values[..index].iter().rposition(|before| *before <= value).map_or(0, |before| before + 1);
        values[to..=index].rotate_right(1);
        moves = moves.saturating_sub(index - to);
        if moves == 0 {
            return false;
        }
    }
    true
}

/// A hash of an integer with a seed: output number `key` of splitmix64, in the stream that
/// starts at `seed * 2^32`.
#[inline]
pub fn hash_int(seed: u64, key: i64) -> u64 {
    let index = (key as u64).wrapping_add(1).wrapping_add(seed << 32);
    mix(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Hashes keys of maps, the same on every machine. Not for keys chosen by an attacker: a slow
/// guest harms only itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl std::hash::Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        // The remaining bytes, fewer than eight, and their number.
        self.write_u64(rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte)));
    }

    fn write_u8(&mut self, value: u8) {
        // The terminator of a text.
        self.0 = self.0.wrapping_add(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value as u64);
    }
}

/// A map with a fast hash.
pub type KeyMap<K, V> = std::collections::HashMap<K, V, std::hash::BuildHasherDefault<KeyHasher>>;

pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_agree_with_a_binary_search() {
        let values: Vec<f64> = (0..203).map(|i| f64::from(i * 37 % 101) / 7.0 - 3.0).collect();
        for rows in [0, 1, 7, 8, 9, 203] {
            for count in [0, 1, 9, 32, 33, 70] {
                let edges: Vec<f64> = (0..count).map(|i| f64::from(i / 2) / 3.0 - 2.0).collect();
                let mut values = values[..rows].to_vec();
                values.iter_mut().step_by(5).for_each(|value| *value = f64::NAN);
                let searched: Vec<i32> =
                    values.iter().map(|x| edges.partition_point(|edge| edge <= x) as i32).collect();
                assert_eq!(bins(&values, &edges), searched, "{rows} rows, {count} edges");
            }
        }
    }

    #[test]
    fn a_nan_is_found_at_any_index() {
        for index in 0..40 {
            let mut values = [f64::INFINITY; 40];
            assert!(!any(&values, f64::is_nan));
            values[index] = -f64::NAN;
            assert!(any(&values, f64::is_nan));
        }
    }

    #[test]
    fn lanes_give_the_sum_of_a_plain_loop() {
        let a: Vec<f64> = (0..1003).map(|i| f64::from(i) * 0.5).collect();
        assert_eq!(sum(&a), a.iter().sum::<f64>());
    }

    #[test]
    fn sigmoids_are_within_three_units_in_the_last_place() {
        let mut known = [0.0, 1000.0, -1000.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0];
        sigmoids(&mut known);
        assert_eq!(known[..5], [0.5, 1.0, 0.0, 1.0, 0.0]);
        assert!(known[5].is_nan() && known[6] == 0.5);
        let all: Vec<f64> = (0..200_000).map(|i| f64::from(i - 100_000) * 0.007_031).collect();
        let mut found = all.clone();
        sigmoids(&mut found);
        for (x, found) in all.iter().zip(&found) {
            // For each sign, the form that does not lose digits.
            let expected = if *x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
            let ulp = f64::from_bits(expected.to_bits() + 1) - expected;
            assert!((found - expected).abs() <= 3.0 * ulp, "{x}: {found} {expected}");
        }
        // The same alone as among other values.
        for (x, found) in all.iter().zip(&found).step_by(997) {
            let mut alone = [*x];
            sigmoids(&mut alone);
            assert_eq!(alone[0].to_bits(), found.to_bits());
        }
    }

    #[test]
    fn products_do_not_depend_on_how_columns_are_grouped() {
        let column = |seed: u64| -> Vec<f64> { (0..103).map(|i| hash_int(seed, i) as f64 / 1e19 - 0.7).collect() };
        let columns: Vec<Vec<f64>> = (0..11).map(column).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let weights: Vec<f64> = (0..11).map(|i| f64::from(i) * 0.3 - 1.0).collect();
        for (rows, many) in [(103, 11), (103, 4), (100, 9), (3, 5), (0, 11), (103, 0)] {
            let start: Vec<f64> = column(77)[..rows].to_vec();
            let mut y = start.clone();
            add_products(&mut y, &weights[..many], &columns[..many]);
            for row in 0..rows {
                let all = (0..many).fold(start[row], |sum, i| columns[i][row].mul_add(weights[i], sum));
                assert_eq!(y[row].to_bits(), all.to_bits());
            }
            let mut sums = vec![1.0; many];
            add_dots(&mut sums, &columns[..many], &start);
            for (i, sum) in sums.iter().enumerate() {
                let mut alone = [1.0];
                add_dots(&mut alone, &columns[i..=i], &start);
                assert_eq!(sum.to_bits(), alone[0].to_bits());
                let plain: f64 = 1.0 + start.iter().zip(columns[i]).map(|(a, b)| a * b).sum::<f64>();
                assert!((sum - plain).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn radix_sort_agrees_with_comparison_sort() {
        // With the last masks, values differ only in low digits, after one or many higher bits
        // that differ.
        for mask in [u64::MAX, 0xffff_0000, 0xff << 56, 0, 1 << 63 | 0xffff, 0x7ff << 50 | 0x3ff] {
            let mut values: Vec<u64> = (0..10_000u64).map(|i| hash(3, &i.to_le_bytes()) & mask).collect();
            let mut expected = values.clone();
            expected.sort_unstable();
            sort(&mut values);
            assert_eq!(values, expected);
        }
    }

    #[test]
    fn the_hash_spreads_and_depends_on_the_seed() {
        assert_eq!(hash(7, b"x"), hash(7, b"x"));
        assert_ne!(hash(7, b"x"), hash(8, b"x"));
        let below_half = (0..10_000u32).filter(|i| hash(1, &i.to_le_bytes()) < u64::MAX / 2).count();
        assert!((4_800..5_200).contains(&below_half), "{below_half}");
    }
}
