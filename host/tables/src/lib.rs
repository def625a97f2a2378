//! Columns and tables as bytes.
//!
//! A [`ColumnBytes`] is what crosses between guests, packs and kernels: Arrow
//! buffers, normalised so that equal columns have equal bytes. What a guest
//! hands over is [`check::Unchecked`] until it was checked. This crate knows
//! file formats and kernels; it does not know the store, guests or pipelines.

pub mod check;
mod column;
pub mod export;
pub mod pack;
pub mod read;
pub mod rows;
mod threads;

pub use column::{Block, ColumnBytes, ColumnError, ColumnRef, arrow_type, schema_to_arrow, type_from_arrow};
pub use threads::Threads;
