//! Tables as the store holds them: references to column chunks, without data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, ColumnDigest, PackDigest, SourceKey, TableDigest};
use crate::name::ColumnName;
use crate::object::ObjectRef;
use crate::schema::{DataType, Field, Schema};

/// A run of bytes in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// From the start of the file.
    pub offset: u64,
    /// In bytes, without padding.
    pub size: u64,
}

/// One column of one part, stored in a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredChunk {
    /// Of its type, length and buffers.
    pub digest: ColumnDigest,
    /// Its type.
    pub data_type: DataType,
    /// Values in it, nulls included.
    pub rows: u64,
    /// Nulls in it.
    pub null_count: u64,
    /// The pack that contains it.
    pub pack: PackDigest,
    /// Size of the complete pack, so that a truncated one is noticed by a stat.
    pub pack_bytes: u64,
    /// A bit for each value; absent when there are no nulls.
    pub validity: Option<Extent>,
    /// `rows + 1` 32-bit integers, for types of variable size.
    pub offsets: Option<Extent>,
    /// The values.
    pub values: Extent,
}

impl StoredChunk {
    /// The pack that contains it, as an object of the store.
    pub fn object(&self) -> ObjectRef {
        ObjectRef::Pack(self.pack, self.pack_bytes)
    }

    /// Bytes of its buffers.
    pub fn bytes(&self) -> u64 {
        self.values.size + self.validity.map_or(0, |e| e.size) + self.offsets.map_or(0, |e| e.size)
    }
}

/// How a selection picks rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// A boolean for each source row.
    Mask,
    /// A `uint32` source row for each row, null for a row of nulls.
    Take,
}

/// A column of selected rows of other columns: identified by its selection and sources,
/// materialized when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// Of the selection and the sources.
    pub digest: ColumnDigest,
    /// The type of the sources.
    pub data_type: DataType,
    /// Rows selected.
    pub rows: u64,
    /// The kind of the selection.
    pub kind: Selection,
    /// The mask or the indices.
    pub selection: Arc<StoredChunk>,
    /// The columns it selects from, concatenated.
    pub sources: Vec<Chunk>,
}

/// A column of a part of a source that no step reads: not decoded, and identified by its source,
/// part and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// The digest of the source, the name and the part; it differs from that of the same column
    /// decoded.
    pub digest: ColumnDigest,
    /// Its type.
    pub data_type: DataType,
    /// Values in it, nulls included.
    pub rows: u64,
    /// The key of its source, under which the record of the source is stored.
    pub source: SourceKey,
    /// The index of its part among those of the source.
    pub part: u64,
    /// The name of the column in the source.
    pub name: ColumnName,
}

/// One column of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chunk {
    /// Its bytes are in the store.
    Stored(Arc<StoredChunk>),
    /// Its bytes follow from others.
    Gather(Arc<Gather>),
    /// Its bytes are encoded in the file of a source.
    Unread(Arc<Unread>),
}

impl Chunk {
    /// The digest that identifies its content.
    pub fn digest(&self) -> ColumnDigest {
        match self {
            Self::Stored(chunk) => chunk.digest,
            Self::Gather(gather) => gather.digest,
            Self::Unread(unread) => unread.digest,
        }
    }

    /// Values in it.
    pub fn rows(&self) -> u64 {
        match self {
            Self::Stored(chunk) => chunk.rows,
            Self::Gather(gather) => gather.rows,
            Self::Unread(unread) => unread.rows,
        }
    }

    /// The chunk that `selection` picks from `sources`.
    ///
    /// A take with a single source and one with the same rows in two chunks are different columns
    /// here, although their bytes are equal: a derived chunk is identified by its derivation.
    pub fn gather(
        kind: Selection,
        selection: &Arc<StoredChunk>,
        rows: u64,
        sources: Vec<Self>,
        data_type: DataType,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 gathered column");
        hasher.update(&[match kind {
            Selection::Mask => 0,
            Selection::Take => 1,
        }]);
        hasher.update(selection.digest.as_bytes());
        hasher.update(&(sources.len() as u64).to_le_bytes());
        for source in &sources {
            hasher.update(source.digest().as_bytes());
        }
        let digest = ColumnDigest::from(hasher.finalize());
        Self::Gather(Arc::new(Gather { digest, data_type, rows, kind, selection: selection.clone(), sources }))
    }

    /// The chunk of a column that stays in the file of a source.
    pub fn unread(source: SourceKey, part: u64, field: &Field, rows: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 column in a file");
        hasher.update(source.as_bytes());
        hasher.update(&part.to_le_bytes());
        hasher.update(field.name.as_str().as_bytes());
        let (digest, data_type, name) = (hasher.finalize().into(), field.data_type.clone(), field.name.clone());
        Self::Unread(Arc::new(Unread { digest, data_type, rows, source, part, name }))
    }

    /// Calls `visit` for every unread chunk that this one derives from.
    pub fn visit_unread(&self, visit: &mut impl FnMut(&Unread)) {
        match self {
            Self::Stored(_) => {}
            Self::Gather(gather) => gather.sources.iter().for_each(|source| source.visit_unread(visit)),
            Self::Unread(unread) => visit(unread),
        }
    }

    /// Calls `visit` for every stored chunk that this one derives from.
    pub fn visit_stored(&self, visit: &mut impl FnMut(&StoredChunk)) {
        match self {
            Self::Stored(chunk) => visit(chunk),
            Self::Gather(gather) => {
                visit(&gather.selection);
                for source in &gather.sources {
                    source.visit_stored(visit);
                }
            }
            Self::Unread(_) => {}
        }
    }
}

/// A run of rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Rows in each column.
    pub rows: u64,
    /// One for each field of the schema.
    pub columns: Vec<Chunk>,
}

/// A table artifact: a schema over a list of parts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Table {
    /// The columns.
    pub schema: Schema,
    /// The runs of rows, in order.
    pub parts: Vec<Arc<Part>>,
}

fn hash_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

impl Table {
    /// The number of its rows.
    pub fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// The digest of the schema, and of the rows and columns of each part; not of the positions of
    /// bytes.
    pub fn digest(&self) -> TableDigest {
        let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 table");
        hasher.update(&(self.schema.fields.len() as u64).to_le_bytes());
        for Field { name, data_type, nullable } in &self.schema.fields {
            hash_text(&mut hasher, name.as_str());
            hash_text(&mut hasher, &data_type.to_string());
            hasher.update(&[u8::from(*nullable)]);
        }
        hasher.update(&(self.parts.len() as u64).to_le_bytes());
        for part in &self.parts {
            hasher.update(&part.rows.to_le_bytes());
            for column in &part.columns {
                hasher.update(column.digest().as_bytes());
            }
        }
        hasher.finalize().into()
    }
}

/// A blob in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Of its bytes.
    pub digest: BlobDigest,
    /// In bytes.
    pub size: u64,
}

impl BlobRef {
    /// The blob as an object of the store.
    pub fn object(&self) -> ObjectRef {
        ObjectRef::Blob(self.digest, self.size)
    }
}

/// What a port carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artifact {
    /// Columns.
    Table(Arc<Table>),
    /// Bytes.
    Blob(BlobRef),
}

impl Artifact {
    /// The digest as text, whichever kind it is.
    pub fn digest_text(&self) -> String {
        match self {
            Self::Table(table) => table.digest().to_string(),
            Self::Blob(blob) => blob.digest.to_string(),
        }
    }
}
