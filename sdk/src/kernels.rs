//! Loops that steps share, with the same bits natively and in a guest: sums run
//! in a fixed order over eight lanes, functions come from `libm`.

/// `1 / (1 + e^-x)`, without overflow.
#[inline]
pub fn sigmoid(x: f64) -> f64 {
    let e = crate::expr_math::exp(-x.abs());
    let upper = 1.0 / (1.0 + e);
    if x >= 0.0 { upper } else { e * upper }
}

/// Each value by its [`sigmoid`].
pub fn sigmoids(values: &mut [f64]) {
    for value in values {
        *value = sigmoid(*value);
    }
}

fn lanes_sum(lanes: [f64; 8]) -> f64 {
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    ((l0 + l4) + (l1 + l5)) + ((l2 + l6) + (l3 + l7))
}

/// The sum of products, in eight lanes.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let len = a.len().min(b.len());
    let ((a8, a_rest), (b8, b_rest)) = (a[..len].as_chunks::<8>(), b[..len].as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a8.iter().zip(b8) {
        lanes = std::array::from_fn(|lane| lanes[lane] + a[lane] * b[lane]);
    }
    lanes_sum(lanes) + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// The sum, in eight lanes.
pub fn sum(a: &[f64]) -> f64 {
    let (a8, rest) = a.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for a in a8 {
        lanes = std::array::from_fn(|lane| lanes[lane] + a[lane]);
    }
    lanes_sum(lanes) + rest.iter().sum::<f64>()
}

/// `y += k * x`.
pub fn add_scaled(y: &mut [f64], k: f64, x: &[f64]) {
    let len = y.len().min(x.len());
    let ((y8, y_rest), (x8, x_rest)) = (y[..len].as_chunks_mut::<8>(), x[..len].as_chunks::<8>());
    for (y, x) in y8.iter_mut().zip(x8) {
        *y = std::array::from_fn(|lane| y[lane] + k * x[lane]);
    }
    for (y, x) in y_rest.iter_mut().zip(x_rest) {
        *y += k * x;
    }
}

/// A hash of bytes with a seed, spread over all 64 bits: FNV-1a, finished as in
/// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(state)
}

/// Sorts integers by their digits, 11 bits at a time: a pass over the data for each,
/// and none for digits in which all agree.
pub fn sort(values: &mut Vec<u64>) {
    const BITS: u32 = 11;
    const DIGITS: usize = 6;
    if values.len() < 4096 {
        return values.sort_unstable();
    }
    let mut counts = vec![[0u32; 1 << BITS]; DIGITS];
    let digit = |value: u64, place: usize| (value >> (place as u32 * BITS)) as usize & ((1 << BITS) - 1);
    for value in values.iter() {
        for (place, counts) in counts.iter_mut().enumerate() {
            counts[digit(*value, place)] += 1;
        }
    }
    let mut sorted = vec![0; values.len()];
    for (place, counts) in counts.iter_mut().enumerate() {
        if counts.iter().any(|count| *count as usize == values.len()) {
            continue;
        }
        let mut start = 0;
        for count in counts.iter_mut() {
            start += std::mem::replace(count, start);
        }
        for value in values.iter() {
            let place = &mut counts[digit(*value, place)];
            sorted[*place as usize] = *value;
            *place += 1;
        }
        std::mem::swap(values, &mut sorted);
    }
}

/// A hash of an integer with a seed: the output of splitmix64 number `key` in the
/// stream that begins at `seed * 2^32`.
pub fn hash_int(seed: u64, key: i64) -> u64 {
    let place = (key as u64).wrapping_add(1).wrapping_add(seed << 32);
    mix(place.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Hashes keys of maps, the same on every machine. Not for keys that an attacker
/// chooses: a guest that is slow harms itself only.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher(u64);

impl std::hash::Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }

    fn write_u8(&mut self, value: u8) {
        // The end of a text.
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

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_sum_to_what_a_loop_sums_to() {
        let a: Vec<f64> = (0..1003).map(|i| f64::from(i) * 0.5).collect();
        assert_eq!(sum(&a), a.iter().sum::<f64>());
        assert_eq!(dot(&a, &a), a.iter().map(|x| x * x).sum::<f64>());
        assert_eq!((sigmoid(0.0), sigmoid(1000.0), sigmoid(-1000.0)), (0.5, 1.0, 0.0));
        assert!(sigmoid(f64::NAN).is_nan());
    }

    #[test]
    fn digits_sort_as_comparisons_do() {
        for mask in [u64::MAX, 0xffff_0000, 0xff << 56, 0] {
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
