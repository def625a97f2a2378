//! Text formats: division into blocks of complete records, and types inferred from values.

pub(super) mod blocks;
pub(super) mod infer;
pub(super) mod split;
pub(super) mod typed;
