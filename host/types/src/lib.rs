//! The terms of Millrace as types: contracts between crates, and what is stored.
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
pub mod object;
pub mod outcome;
pub mod record;
pub mod schema;
pub mod step;
pub mod table;
pub mod task;
pub mod uses;
pub mod wire;

pub use action_key::{ColumnParts, Content, InputParts, ItemParts, KeyParts, Phase};
pub use action_record::{ActionRecord, Cost, Level, LogLine, OutputRecord, PartRecord, RowsRecord};
pub use digest::{
    ActionKey, BlobDigest, ColumnDigest, ComponentDigest, ContentDigest, Digest, Hex, IndexName, ManifestName,
    MemoName, PackDigest, PlanName, PluginName, RecordName, SourceDigest, SourceKey, TableDigest, TableFileDigest,
    TraceName,
};
pub use json::CanonicalJson;
pub use limits::{ByteSize, DeclaredLimits, Fuel, Limits};
pub use name::{ColumnName, NameError, PortName, StepName};
pub use object::ObjectRef;
pub use outcome::{Failure, Produced, TaskOutcome};
pub use record::{Record, Reference};
pub use schema::{DataType, Field, Schema, TimeUnit};
pub use step::{Manifest, Mode, OutputField, OutputPlan, PlanInput, Port, PortKind, Problem, StepPlan};
pub use table::{Artifact, BlobRef, Chunk, Gather, Part, Selection, StoredChunk, Table, Unread};
pub use task::{Grants, InputItem, TablePart, TaskInput, TaskSpec};
pub use uses::{FolderRef, Uses, UsesError, Version};
