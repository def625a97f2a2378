//! Two floats that one instruction processes, with a fused multiply-add: in a guest that is one
//! instruction, too (`f64x2.relaxed_madd`, which the host runs in its deterministic form:
//! rounded once, as in IEEE 754). A separate product and sum would be two.

#[cfg(target_arch = "wasm32")]
mod imp {
    use core::arch::wasm32::{
        f64x2, f64x2_abs, f64x2_add, f64x2_div, f64x2_extract_lane, f64x2_le, f64x2_lt, f64x2_mul, f64x2_neg,
        f64x2_pmax, f64x2_pmin, f64x2_relaxed_madd, f64x2_splat, f64x2_sub, i32x4_extract_lane, i32x4_shuffle,
        i64x2_add, i64x2_shl, i64x2_shr, i64x2_splat, i64x2_sub, v128, v128_andnot, v128_bitselect,
    };

    #[derive(Clone, Copy)]
    pub(crate) struct Pair(v128);

    /// For each of eight values the number of edges that are not greater; 0 for NaN.
    #[inline(always)]
    pub(crate) fn edges_up_to(values: &[f64; 8], edges: &[f64]) -> [i32; 8] {
        let [a, b, c, d, e, f, g, h] = *values;
        let values = [f64x2(a, b), f64x2(c, d), f64x2(e, f), f64x2(g, h)];
        let mut counts = [i64x2_splat(0); 4];
        for edge in edges {
            let edge = f64x2_splat(*edge);
            // True is -1.
            counts = std::array::from_fn(|i| i64x2_sub(counts[i], f64x2_le(edge, values[i])));
        }
        let [a, b, c, d] = counts;
        let (low, high) = (i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<0, 2, 4, 6>(c, d));
        let of = |four: v128| {
            let (a, b) = (i32x4_extract_lane::<0>(four), i32x4_extract_lane::<1>(four));
            [a, b, i32x4_extract_lane::<2>(four), i32x4_extract_lane::<3>(four)]
        };
        let ([a, b, c, d], [e, f, g, h]) = (of(low), of(high));
        [a, b, c, d, e, f, g, h]
    }

    impl Pair {
        #[inline(always)]
        pub(crate) fn both(value: f64) -> Self {
            Self(f64x2_splat(value))
        }

        #[inline(always)]
        pub(crate) fn of(values: &[f64; 4]) -> [Self; 2] {
            [Self(f64x2(values[0], values[1])), Self(f64x2(values[2], values[3]))]
        }

        #[inline(always)]
        pub(crate) fn join([a, b]: [Self; 2]) -> [f64; 4] {
            let first = f64x2_extract_lane::<0>;
            let second = f64x2_extract_lane::<1>;
            [first(a.0), second(a.0), first(b.0), second(b.0)]
        }

        /// `self * by + sum`, rounded once.
        #[inline(always)]
        pub(crate) fn fused(self, by: Self, sum: Self) -> Self {
            Self(f64x2_relaxed_madd(self.0, by.0, sum.0))
        }

        #[inline(always)]
        pub(crate) fn first(self) -> f64 {
            f64x2_extract_lane::<0>(self.0)
        }

        #[inline(always)]
        pub(crate) fn plus(self, other: Self) -> Self {
            Self(f64x2_add(self.0, other.0))
        }

        #[inline(always)]
        pub(crate) fn minus(self, other: Self) -> Self {
            Self(f64x2_sub(self.0, other.0))
        }

        #[inline(always)]
        pub(crate) fn times(self, other: Self) -> Self {
            Self(f64x2_mul(self.0, other.0))
        }

        #[inline(always)]
        pub(crate) fn over(self, other: Self) -> Self {
            Self(f64x2_div(self.0, other.0))
        }

        #[inline(always)]
        pub(crate) fn negative_abs(self) -> Self {
            Self(f64x2_neg(f64x2_abs(self.0)))
        }

        /// `least` where that is greater; NaN is retained.
        #[inline(always)]
        pub(crate) fn at_least(self, least: Self) -> Self {
            Self(f64x2_pmax(self.0, least.0))
        }

        /// `most` where that is less; NaN is retained.
        #[inline(always)]
        pub(crate) fn at_most(self, most: Self) -> Self {
            Self(f64x2_pmin(self.0, most.0))
        }

        /// Zero where `value < bound`.
        #[inline(always)]
        pub(crate) fn zero_where_less(self, value: Self, bound: Self) -> Self {
            Self(v128_andnot(self.0, f64x2_lt(value.0, bound.0)))
        }

        /// `other` where the sign bit of `value` is set.
        #[inline(always)]
        pub(crate) fn or_where_negative(self, other: Self, value: Self) -> Self {
            Self(v128_bitselect(other.0, self.0, i64x2_shr(value.0, 63)))
        }

        /// 2 to the power of the integer in the lowest bits.
        #[inline(always)]
        pub(crate) fn power_of_two(self) -> Self {
            Self(i64x2_shl(i64x2_add(self.0, i64x2_splat(1023)), 52))
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imp {
    #[derive(Clone, Copy)]
    pub(crate) struct Pair([f64; 2]);

    /// For each of eight values the number of edges that are not greater; 0 for NaN.
    #[inline(always)]
    pub(crate) fn edges_up_to(values: &[f64; 8], edges: &[f64]) -> [i32; 8] {
        let mut counts = [0i64; 8];
        for edge in edges {
            counts = std::array::from_fn(|lane| counts[lane] + i64::from(*edge <= values[lane]));
        }
        counts.map(|count| count as i32)
    }

    impl Pair {
        #[inline(always)]
        pub(crate) fn both(value: f64) -> Self {
            Self([value; 2])
        }

        #[inline(always)]
        pub(crate) fn of(&[a, b, c, d]: &[f64; 4]) -> [Self; 2] {
            [Self([a, b]), Self([c, d])]
        }

        #[inline(always)]
        pub(crate) fn join([Self([a, b]), Self([c, d])]: [Self; 2]) -> [f64; 4] {
            [a, b, c, d]
        }

        /// `self * by + sum`, rounded once.
        #[inline(always)]
        pub(crate) fn fused(self, by: Self, sum: Self) -> Self {
            Self(std::array::from_fn(|lane| self.0[lane].mul_add(by.0[lane], sum.0[lane])))
        }

        #[inline(always)]
        pub(crate) fn first(self) -> f64 {
            self.0[0]
        }

        #[inline(always)]
        fn with(self, other: Self, each: impl Fn(f64, f64) -> f64) -> Self {
            Self(std::array::from_fn(|lane| each(self.0[lane], other.0[lane])))
        }

        #[inline(always)]
        pub(crate) fn plus(self, other: Self) -> Self {
            self.with(other, |a, b| a + b)
        }

        #[inline(always)]
        pub(crate) fn minus(self, other: Self) -> Self {
            self.with(other, |a, b| a - b)
        }

        #[inline(always)]
        pub(crate) fn times(self, other: Self) -> Self {
            self.with(other, |a, b| a * b)
        }

        #[inline(always)]
        pub(crate) fn over(self, other: Self) -> Self {
            self.with(other, |a, b| a / b)
        }

        #[inline(always)]
        pub(crate) fn negative_abs(self) -> Self {
            Self(self.0.map(|value| -value.abs()))
        }

        /// `least` where that is greater; NaN is retained.
        #[inline(always)]
        pub(crate) fn at_least(self, least: Self) -> Self {
            self.with(least, |a, b| if a < b { b } else { a })
        }

        /// `most` where that is less; NaN is retained.
        #[inline(always)]
        pub(crate) fn at_most(self, most: Self) -> Self {
            self.with(most, |a, b| if b < a { b } else { a })
        }

        /// Zero where `value < bound`.
        #[inline(always)]
        pub(crate) fn zero_where_less(self, value: Self, bound: Self) -> Self {
            let is_less = value.with(bound, |a, b| f64::from(u8::from(a < b)));
            self.with(is_less, |a, is_less| if is_less == 1.0 { 0.0 } else { a })
        }

        /// `other` where the sign bit of `value` is set.
        #[inline(always)]
        pub(crate) fn or_where_negative(self, other: Self, value: Self) -> Self {
            let chosen = |lane: usize| if value.0[lane].is_sign_negative() { other.0[lane] } else { self.0[lane] };
            Self(std::array::from_fn(chosen))
        }

        /// 2 to the power of the integer in the lowest bits.
        #[inline(always)]
        pub(crate) fn power_of_two(self) -> Self {
            Self(self.0.map(|value| f64::from_bits(value.to_bits().wrapping_add(1023) << 52)))
        }
    }
}

pub(crate) use imp::{Pair, edges_up_to};
