//! Numeric functions without branches or calls, so that a loop over them vectorises. They give
//! the same bits natively and in a guest, since they consist of additions, multiplications and
//! divisions in a fixed order.

/// The coefficients of `r^0`, `r^1`, … in the Taylor series of `e^r`.
pub const EXP_TERMS: [f64; 14] = [
    1.0,
    1.0,
    0.5,
    1.666_666_666_666_666_6e-1,
    4.166_666_666_666_666_4e-2,
    8.333_333_333_333_333e-3,
    1.388_888_888_888_889e-3,
    1.984_126_984_126_984e-4,
    2.480_158_730_158_73e-5,
    2.755_731_922_398_589e-6,
    2.755_731_922_398_589e-7,
    2.505_210_838_544_172e-8,
    2.087_675_698_786_81e-9,
    1.605_904_383_682_161_3e-10,
];

/// `e^x`, within 2 units in the last place, for `x` up to 709; 0 below -708. It has no branch
/// and no call, so that a loop over it vectorises.
///
/// Reduction by Cody and Waite (Software Manual for the Elementary Functions, 1980) to
/// `|r| <= ln 2 / 2`, then the Taylor series to the 13th power, whose first omitted term is
/// below 2^-57, by Estrin's scheme, so that its terms do not depend on each other.
#[inline]
pub fn exp(x: f64) -> f64 {
    // The upper and the lower part of ln 2: `k` times the first is exact.
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let clamped = if x > 709.0 { 709.0 } else { x };
    let clamped = if clamped < -708.0 { -708.0 } else { clamped };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (clamped - k * LN2_HIGH) - k * LN2_LOW;
    let two = |i: usize| EXP_TERMS[2 * i] + r * EXP_TERMS[2 * i + 1];
    let r2 = r * r;
    let four = |i: usize| two(2 * i) + r2 * two(2 * i + 1);
    let r4 = r2 * r2;
    let p = (four(0) + r4 * four(1)) + r4 * r4 * (four(2) + r4 * two(6));
    let scale = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x < -708.0 { 0.0 } else { p * scale }
}

/// The nearest integer; halves are rounded away from zero.
#[inline]
pub fn round(x: f64) -> f64 {
    // The float below one half: with it 0.49999999999999994 stays below 1, and 0.5 reaches it.
    (x + 0.499_999_999_999_999_94f64.copysign(x)).trunc()
}

/// 1.5 * 2^52: adding it to a small integer leaves that integer in the lower bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// `ln u + correction` for a finite `u > 0` that is not subnormal.
///
/// As in fdlibm's `e_log.c` and `s_log1p.c` (Sun Microsystems, 1993): `u = 2^k m` with `m`
/// between `sqrt 1/2` and `sqrt 2`, and then a polynomial in `s = (m - 1) / (m + 1)`, whose
/// error is below 2^-58.45.
#[inline]
fn log_with(u: f64, correction: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const SQRT_HALF: u64 = 0x3fe6_a09e_0000_0000;
    const ONE: u64 = 0x3ff0_0000_0000_0000;
    let bits = u.to_bits().wrapping_add(ONE - SQRT_HALF);
    let exponent = (bits >> 52).wrapping_sub(1023);
    let k = f64::from_bits(exponent.wrapping_add(ROUND.to_bits())) - ROUND;
    let f = f64::from_bits((bits & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF)) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * (3.999_999_999_940_942e-1 + w * (2.222_219_843_214_978_4e-1 + w * 1.531_383_769_920_937_3e-1));
    let odd = z
        * (6.666_666_666_666_735e-1
            + w * (2.857_142_874_366_239e-1 + w * (1.818_357_216_161_805e-1 + w * 1.479_819_860_511_658_6e-1)));
    let half = 0.5 * f * f;
    let low = k * LN2_LOW + correction;
    s * (half + (even + odd)) + low - half + f + k * LN2_HIGH
}

/// Whether [`ln_normal`] gives the logarithm of `x`.
#[inline]
pub fn is_normal(x: f64) -> bool {
    (f64::MIN_POSITIVE..f64::INFINITY).contains(&x)
}

/// As [`ln`], for a finite number above zero that is not subnormal: faster, with the same bits.
#[inline]
pub fn ln_normal(x: f64) -> f64 {
    log_with(x, 0.0)
}

/// The natural logarithm, within 1 unit in the last place.
#[inline]
pub fn ln(x: f64) -> f64 {
    // Subnormals are scaled up.
    let is_small = x < f64::MIN_POSITIVE;
    let scaled = if is_small { x * 18_014_398_509_481_984.0 } else { x };
    let log = log_with(scaled, 0.0) - if is_small { 54.0 * std::f64::consts::LN_2 } else { 0.0 };
    let log = if x < f64::INFINITY { log } else { x };
    let log = if x == 0.0 { f64::NEG_INFINITY } else { log };
    if x < 0.0 { f64::NAN } else { log }
}

/// Whether [`log1p_plain`] gives the [`log1p`] of `x`.
#[inline]
fn is_plain(x: f64) -> bool {
    (x > -1.0) & (x < 9_007_199_254_740_992.0)
}

/// As [`log1p`], for a number between -1 and 2^53: faster, with the same bits.
#[inline]
fn log1p_plain(x: f64) -> f64 {
    let u = 1.0 + x;
    // The rounding error of the sum: both differences are exact below 2^53.
    let lost = x - (u - 1.0);
    let log = log_with(u, lost / u);
    // The sign of zero, which the sum above loses.
    if x == 0.0 { x } else { log }
}

/// `ln(1 + x)`, within 1 unit in the last place also where `x` is small.
#[inline]
pub fn log1p(x: f64) -> f64 {
    let u = 1.0 + x;
    let lost = if u >= 2.0 { 1.0 - (u - x) } else { x - (u - 1.0) };
    let log = log_with(u, lost / u);
    let log = if x < f64::INFINITY { log } else { x };
    let log = if x == -1.0 { f64::NEG_INFINITY } else { log };
    // The sign of zero, which the sum above loses.
    let log = if x == 0.0 { x } else { log };
    if x < -1.0 { f64::NAN } else { log }
}

/// The number of values that are computed together: all by the slow path if one of them needs it.
const TOGETHER: usize = 256;

/// Applies a function to each value: `plain`, which costs less, where `is_plain` allows it for
/// a whole group, else `any`.
#[inline]
fn of_each(
    values: &[f64],
    is_plain: impl Fn(f64) -> bool,
    plain: impl Fn(f64) -> f64,
    any: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let mut made = Vec::with_capacity(values.len());
    for some in values.chunks(TOGETHER) {
        if some.iter().fold(true, |all, x| all & is_plain(*x)) {
            made.extend(some.iter().map(|x| plain(*x)));
        } else {
            made.extend(some.iter().map(|x| any(*x)));
        }
    }
    made
}

/// [`ln`] of each value.
pub fn ln_of_each(values: &[f64]) -> Vec<f64> {
    of_each(values, is_normal, ln_normal, ln)
}

/// [`log1p`] of each value.
pub fn log1p_of_each(values: &[f64]) -> Vec<f64> {
    of_each(values, is_plain, log1p_plain, log1p)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error in units in the last place of the true value.
    fn off(ours: f64, theirs: f64) -> f64 {
        let unit = f64::from_bits(theirs.abs().to_bits() + 1) - theirs.abs();
        (ours - theirs).abs() / unit
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000u32 {
            let x = f64::from(i) * 0.000_7 - 700.0;
            let (ours, theirs) = (exp(x), libm::exp(x));
            worst = worst.max(off(ours, theirs));
        }
        assert!(worst <= 2.0, "{worst}");
        assert_eq!((exp(0.0), exp(-800.0), exp(-f64::INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn logarithms_are_within_two_units_of_libm() {
        let (mut worst, mut worst1p) = (0.0f64, 0.0f64);
        let mut x = 1e-300;
        while x < 1e300 {
            worst = worst.max(off(ln(x), libm::log(x)));
            worst1p = worst1p.max(off(log1p(x), libm::log1p(x)));
            if x < 0.999 {
                worst1p = worst1p.max(off(log1p(-x), libm::log1p(-x)));
            }
            x *= 1.000_7;
        }
        for i in 1..2_000_000 {
            let x = f64::from(i) * 1e-6 + 3e-7;
            worst = worst.max(off(ln(x), libm::log(x)));
            worst1p = worst1p.max(off(log1p(x), libm::log1p(x)));
        }
        assert!(worst <= 2.0 && worst1p <= 2.0, "{worst} {worst1p}");
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        let half = 0.5f64;
        let below = f64::from_bits(half.to_bits() - 1);
        let mut values = vec![0.0, half, below, 1.5, 2.5, 1e300, f64::MAX, f64::INFINITY, 5e-324];
        values.extend((48..54).flat_map(|bits| (-6..6).map(move |by| (1u64 << bits) as f64 + f64::from(by) * 0.5)));
        values.extend((0..100_000).map(|i| f64::from(i) * 0.0371));
        for x in values.iter().flat_map(|x| [*x, -x]) {
            assert_eq!(round(x).to_bits(), x.round().to_bits(), "{x}");
        }
        assert!(round(f64::NAN).is_nan());
    }

    /// The logarithm of a value does not depend on its neighbours.
    #[test]
    fn logarithms_of_many_are_those_of_each() {
        let special = [0.0, -0.0, -1.0, -3.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -5e-324, 1e-310];
        let mut values: Vec<f64> = (0..3 * TOGETHER + 7).map(|i| (i as f64 - 40.0) * 1.37e-2).collect();
        values.extend((0..2 * TOGETHER).map(|i| 1.5f64.powi(i as i32) * 3.1e-3));
        // Where sums with 1 start to lose all of the 1.
        values.extend((0..40 * TOGETHER).map(|i| (2f64.powf(48.0 + (i % 1283) as f64 / 100.0)).floor()));
        for index in [0, TOGETHER - 1, TOGETHER, 2 * TOGETHER + 5, values.len() - 1] {
            for x in special {
                values[index] = x;
                for (many, one) in [(ln_of_each(&values), ln as fn(f64) -> f64), (log1p_of_each(&values), log1p)] {
                    let bits = |x: f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
                    let wrong = many.iter().zip(&values).find(|(log, x)| bits(**log) != bits(one(**x)));
                    assert_eq!(wrong, None, "{x} at {index}");
                }
            }
        }
    }

    #[test]
    fn logarithms_have_the_usual_limits() {
        assert_eq!((ln(1.0), ln(0.0), ln(f64::INFINITY)), (0.0, f64::NEG_INFINITY, f64::INFINITY));
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan() && log1p(f64::NAN).is_nan() && log1p(-2.0).is_nan());
        assert_eq!((log1p(0.0), log1p(-1.0), log1p(f64::INFINITY)), (0.0, f64::NEG_INFINITY, f64::INFINITY));
        assert_eq!((log1p(-0.0).to_bits(), log1p(1e-300)), ((-0.0f64).to_bits(), 1e-300));
        assert!((ln(5e-324) - -744.440_071_921_381_2).abs() < 1e-12);
    }
}
