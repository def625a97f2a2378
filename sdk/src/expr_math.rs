//! Numeric functions that give the same bits natively, in a guest and in an expression. Those
//! of `std` come from the system and differ.

pub use libm::{expm1, fmod, log2, log10, pow, sqrt};
pub use millrace_expr::math::{exp, ln, ln_normal, log1p};
