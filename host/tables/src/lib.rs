//! Columns and tables as bytes.
//!
//! A [`ColumnBytes`] is what crosses between guests, packs and kernels: Arrow buffers,
//! normalised so that equal columns have equal bytes. What a guest hands over is
//! [`check::Unchecked`] until it is checked. This crate knows file formats and kernels, and
//! the contract by which chunks are read and kept ([`chunks`]); it knows nothing of the
//! store, guests or pipelines.

pub mod check;
pub mod chunks;
mod column;
pub mod export;
pub mod pack;
pub mod read;
pub mod rows;

pub use chunks::{ChunkError, ChunkSource, ChunkStore, MemoryChunks, PackFile, PackSink, keep_pack, put_pack};
pub use column::{Block, ColumnBytes, ColumnError, ColumnRef, arrow_type, schema_to_arrow, type_from_arrow};
