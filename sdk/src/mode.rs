//! The modes of a step.

/// How the host may divide the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each part on its own.
    Map,
    /// `partial` for each part, then one `merge`.
    Fold,
    /// All parts in order.
    Whole,
    /// All parts at once, in guests that exchange numbers.
    Rounds,
}
