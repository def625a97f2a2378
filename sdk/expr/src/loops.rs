//! Loops over the values of a block that vectorise. They know nothing of expressions or nulls:
//! rows without a value are computed, too, and the results are not used.

use arrow_buffer::BooleanBuffer;

/// The results of `f` for all pairs; `None` if `f` flags any of them.
#[inline]
fn unless_flagged(a: &[i64], b: &[i64], f: impl Fn(i64, i64) -> (i64, u64)) -> Option<Vec<i64>> {
    let mut flags = 0;
    let made = a.iter().zip(b).map(|(a, b)| {
        let (made, flag) = f(*a, *b);
        flags |= flag;
        made
    });
    let made: Vec<i64> = made.collect();
    (flags == 0).then_some(made)
}

/// The sums, if all fit.
pub(crate) fn sums(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    unless_flagged(a, b, |a, b| {
        let sum = a.wrapping_add(b);
        // The sum overflows if it has the sign of neither.
        (sum, ((a ^ sum) & (b ^ sum)) as u64 >> 63)
    })
}

/// The differences, if all fit.
pub(crate) fn differences(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    unless_flagged(a, b, |a, b| {
        let difference = a.wrapping_sub(b);
        (difference, ((a ^ b) & (a ^ difference)) as u64 >> 63)
    })
}

/// The products, if all factors fit in 32 bits: then each product fits.
pub(crate) fn products(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    const LEAST: i64 = -(1 << 31);
    let beyond = |factor: i64| factor.wrapping_sub(LEAST) as u64 >> 32;
    unless_flagged(a, b, |a, b| (a.wrapping_mul(b), beyond(a) | beyond(b)))
}

/// Overwrites the values whose bit is set with those of `side`.
pub(crate) fn overwrite<T: Copy>(values: &mut [T], side: &[T], mask: &BooleanBuffer) {
    for ((values, side), word) in values.chunks_mut(64).zip(side.chunks(64)).zip(mask.bit_chunks().iter_padded()) {
        match word {
            0 => {}
            u64::MAX => values.copy_from_slice(side),
            _ => {
                for (bit, (value, side)) in values.iter_mut().zip(side).enumerate() {
                    *value = if word >> bit & 1 == 1 { *side } else { *value };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers near the limits as well as any others.
    fn number() -> impl Strategy<Value = i64> {
        let near = |bound: i64| (-3i64..=3).prop_map(move |by| bound.wrapping_add(by));
        let bounds = [0, i64::MAX, 1 << 31, -(1 << 31), 1 << 32, 1 << 62, -(1 << 62)];
        (0..bounds.len() + 1, any::<i64>(), near(0)).prop_map(move |(index, any, by)| match bounds.get(index) {
            Some(bound) => bound.wrapping_add(by),
            None => any,
        })
    }

    proptest! {
        #[test]
        fn all_results_fit_or_there_are_none(pairs in prop::collection::vec((number(), number()), 0..5)) {
            let (a, b): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
            let each = |f: fn(i64, i64) -> Option<i64>| pairs.iter().map(|(a, b)| f(*a, *b)).collect::<Option<Vec<_>>>();
            prop_assert_eq!(sums(&a, &b), each(i64::checked_add));
            prop_assert_eq!(differences(&a, &b), each(i64::checked_sub));
            let fits = |factor: &i64| i32::try_from(*factor).is_ok();
            let all_fit = a.iter().chain(&b).all(fits);
            prop_assert_eq!(products(&a, &b), each(i64::checked_mul).filter(|_| all_fit));
        }

        #[test]
        fn masked_values_are_overwritten(
            bits in prop::collection::vec(prop::bool::weighted(0.5), 0..200),
            from in 0usize..70,
            fill in prop::option::of(any::<bool>()),
        ) {
            let bits: Vec<bool> = bits.into_iter().map(|bit| fill.unwrap_or(bit)).collect();
            let from = from.min(bits.len());
            let mask = BooleanBuffer::from(bits.as_slice()).slice(from, bits.len() - from);
            let mut values: Vec<usize> = (0..mask.len()).collect();
            let side: Vec<usize> = (1000..1000 + mask.len()).collect();
            overwrite(&mut values, &side, &mask);
            let expected = |row: usize| row + 1000 * usize::from(mask.value(row));
            prop_assert_eq!(values, (0..mask.len()).map(expected).collect::<Vec<_>>());
        }
    }
}
