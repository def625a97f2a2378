//! Aggregates of groups of rows: counts, sums, extremes.
//!
//! Each row has the number of its group, as [`Numbering`](crate::keys::Numbering) assigns it.
//! Sums are computed in the order of rows. Every loop is a separate function: in one function
//! with others, the guest compiler spills to the stack what does not fit in registers. All are
//! generic, so that they are compiled as the step is, not as the SDK.

use std::ops::AddAssign;

use crate::pair::Pair;

/// Calls `row` for each row, four per iteration of the loop: in a guest each iteration pays for
/// fuel.
#[inline(always)]
fn each<V: Copy>(groups: &[u32], values: &[V], mut row: impl FnMut(usize, V)) {
    let ((groups4, groups_rest), (values4, values_rest)) = (groups.as_chunks::<4>(), values.as_chunks::<4>());
    for (groups, values) in groups4.iter().zip(values4) {
        groups.iter().zip(values).for_each(|(group, value)| row(*group as usize, *value));
    }
    groups_rest.iter().zip(values_rest).for_each(|(group, value)| row(*group as usize, *value));
}

/// Adds one to the count of the group of each row.
///
/// # Panics
/// When a group is beyond the counts, as in all functions here. There must be as many values as
/// rows.
#[inline(never)]
pub fn count<C: AddAssign + From<u8>>(counts: &mut [C], groups: &[u32]) {
    each(groups, groups, |group, _| counts[group] += C::from(1));
}

/// Adds each value to the sum of its group.
#[inline(never)]
pub fn add<V: Copy + Into<f64>>(sums: &mut [f64], groups: &[u32], values: &[V]) {
    each(groups, values, |group, value| sums[group] += value.into());
}

/// Updates the least value of each group; NaN for a group that has none so far. NaN values are
/// ignored.
pub fn least<V: Copy + Into<f64>>(known: &mut [f64], groups: &[u32], values: &[V]) {
    extreme(known, groups, values, f64::INFINITY, |known, value| known.at_most(value));
}

/// Updates the greatest value of each group; NaN for a group that has none so far. NaN values
/// are ignored.
pub fn greatest<V: Copy + Into<f64>>(known: &mut [f64], groups: &[u32], values: &[V]) {
    extreme(known, groups, values, f64::NEG_INFINITY, |known, value| known.at_least(value));
}

/// `of` returns one of two values, the first where the second is NaN; no value is worse than
/// `worst`.
#[inline(never)]
fn extreme<V: Copy + Into<f64>>(
    known: &mut [f64],
    groups: &[u32],
    values: &[V],
    worst: f64,
    of: impl Fn(Pair, Pair) -> Pair,
) {
    // Without a branch in the loop: groups without a value start with the worst one.
    let empty: Vec<bool> = known.iter().map(|known| known.is_nan()).collect();
    known.iter_mut().filter(|known| known.is_nan()).for_each(|known| *known = worst);
    each(groups, values, |group, value| {
        let known = &mut known[group];
        *known = of(Pair::both(*known), Pair::both(value.into())).first();
    });
    let is_open = |(known, empty): (&f64, &bool)| *empty && *known == worst;
    if !known.iter().zip(&empty).any(is_open) {
        return;
    }
    // The worst value may have been an actual value.
    let mut open = empty;
    each(groups, values, |group, value| open[group] &= value.into().is_nan());
    known.iter_mut().zip(open).filter(|(_, open)| *open).for_each(|(known, _)| *known = f64::NAN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sums_are_those_of_the_rows_of_each_group() {
        let groups = [0, 2, 0, 1, 2, 2, 4];
        let values = [1.5, f64::NAN, -2.0, f64::INFINITY, 3.0, 0.25, f64::NAN];
        let mut counts = [0u64; 5];
        count(&mut counts, &groups);
        assert_eq!(counts, [2, 1, 3, 0, 1]);
        let mut sums = [0.0; 5];
        add(&mut sums, &groups, &values);
        assert_eq!((sums[0], sums[1], sums[3]), (-0.5, f64::INFINITY, 0.0));
        assert!(sums[2].is_nan() && sums[4].is_nan());
        add(&mut sums, &[3], &[7i32]);
        assert_eq!(sums[3], 7.0);
    }

    /// Compared with the definition itself, batch by batch, with infinities, zeroes of both
    /// signs and NaNs.
    #[test]
    fn extremes_ignore_nan() {
        let pool = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 2.5];
        let mut state = 7u64;
        let mut next = |below: usize| {
            state = crate::kernels::mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            (state % below as u64) as usize
        };
        for _ in 0..500 {
            let mut both = [[f64::NAN; 4]; 2];
            let mut expected = both;
            for _ in 0..3 {
                let rows = next(6);
                let groups: Vec<u32> = (0..rows).map(|_| next(4) as u32).collect();
                let values: Vec<f64> = (0..rows).map(|_| pool[next(pool.len())]).collect();
                least(&mut both[0], &groups, &values);
                greatest(&mut both[1], &groups, &values);
                for (group, x) in groups.iter().zip(values).filter(|(_, x)| !x.is_nan()) {
                    let [low, high] = [0, 1].map(|i| expected[i][*group as usize]);
                    expected[0][*group as usize] = if x < low || low.is_nan() { x } else { low };
                    expected[1][*group as usize] = if x > high || high.is_nan() { x } else { high };
                }
                assert_eq!(both.map(|all| all.map(f64::to_bits)), expected.map(|all| all.map(f64::to_bits)));
            }
        }
    }
}
