//! Loops that steps share, with the same bits natively and in a guest: sums run
//! in a fixed order over eight lanes, functions come from `libm`.

/// `e^x`, within 2 units in the last place, for `x` up to 709; 0 below -708. No
/// branch and no call, so that a loop over it vectorises.
///
/// Reduction by Cody and Waite (Software Manual for the Elementary Functions, 1980)
/// to `|r| <= ln 2 / 2`, there the Taylor series to the 13th power, whose first
/// term left out is below 2^-57.
#[inline]
pub fn exp(x: f64) -> f64 {
    // The upper and the lower part of ln 2: `k` times the first is exact.
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // 1.5 * 2^52: added, it leaves an integer in the lower bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let clamped = if x > 709.0 { 709.0 } else { x };
    let clamped = if clamped < -708.0 { -708.0 } else { clamped };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (clamped - k * LN2_HIGH) - k * LN2_LOW;
    let mut p = 1.605_904_383_682_161_3e-10;
    for term in [
        2.087_675_698_786_81e-9,
        2.505_210_838_544_172e-8,
        2.755_731_922_398_589e-7,
        2.755_731_922_398_589e-6,
        2.480_158_730_158_73e-5,
        1.984_126_984_126_984e-4,
        1.388_888_888_888_889e-3,
        8.333_333_333_333_333e-3,
        4.166_666_666_666_666_4e-2,
        1.666_666_666_666_666_6e-1,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + term;
    }
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x < -708.0 { 0.0 } else { p * scale }
}

/// `1 / (1 + e^-x)`, without overflow.
#[inline]
pub fn sigmoid(x: f64) -> f64 {
    let e = exp(-x.abs());
    let upper = 1.0 / (1.0 + e);
    if x >= 0.0 { upper } else { e * upper }
}

/// Each value by its [`sigmoid`].
pub fn sigmoids(values: &mut [f64]) {
    for value in values {
        *value = sigmoid(*value);
    }
}

/// The sum of products, in eight lanes.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    ((l0 + l4) + (l1 + l5)) + ((l2 + l6) + (l3 + l7)) + tail
}

/// The sum, in eight lanes.
pub fn sum(a: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let chunks = a.chunks_exact(8);
    let tail: f64 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..8 {
            lanes[lane] += chunk[lane];
        }
    }
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    ((l0 + l4) + (l1 + l5)) + ((l2 + l6) + (l3 + l7)) + tail
}

/// `y += k * x`.
pub fn add_scaled(y: &mut [f64], k: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
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
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000u32 {
            let x = f64::from(i) * 0.000_7 - 700.0;
            let (ours, theirs) = (exp(x), libm::exp(x));
            let unit = f64::from_bits(theirs.to_bits() + 1) - theirs;
            worst = worst.max((ours - theirs).abs() / unit);
        }
        assert!(worst <= 2.0, "{worst}");
        assert_eq!((exp(0.0), exp(-800.0), exp(-f64::INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn the_hash_spreads_and_depends_on_the_seed() {
        assert_eq!(hash(7, b"x"), hash(7, b"x"));
        assert_ne!(hash(7, b"x"), hash(8, b"x"));
        let below_half = (0..10_000u32).filter(|i| hash(1, &i.to_le_bytes()) < u64::MAX / 2).count();
        assert!((4_800..5_200).contains(&below_half), "{below_half}");
    }
}
