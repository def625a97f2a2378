//! The words of Millrace as types.
//!
//! Pure: nothing here touches a file, a clock or a thread, and nothing here
//! knows how Arrow lays out a buffer or how wasmtime runs a guest.

pub mod action_key;
pub mod action_record;
pub mod bounds;
pub mod digest;
pub mod json;
pub mod limits;
pub mod name;
pub mod schema;
pub mod table;
pub mod wire;

pub use action_key::{ColumnParts, Content, InputParts, ItemParts, KeyParts, Phase};
pub use action_record::{ActionRecord, Cost, Level, LogLine, OutputRecord, PartRecord, RowsRecord};
pub use digest::{ActionKey, BlobDigest, ColumnDigest, ComponentDigest, Hex, PackDigest, SourceDigest, TableDigest};
pub use json::CanonicalJson;
pub use limits::{ByteSize, Fuel, Limits};
pub use name::{ColumnName, PortName, StepName};
pub use schema::{DataType, Field, Schema, TimeUnit};
pub use table::{Artifact, BlobRef, Chunk, Gather, Part, Selection, StoredChunk, Table, Unread};
