//! Text formats: blocks of whole records, types from values.

pub(super) mod blocks;
pub(super) mod infer;
pub(super) mod split;
pub(super) mod typed;
