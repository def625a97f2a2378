//! Functions of numbers from `libm`: the same bits natively, in a guest, and in
//! an expression. Those of `std` are the system's and differ.

pub use libm::{exp, expm1, fmod, log as ln, log1p, log2, log10, pow, sqrt};
