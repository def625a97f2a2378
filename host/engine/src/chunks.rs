//! The chunks of a store: stored columns are mapped, derived ones are materialized when they are
//! read.

use std::sync::Arc;

use bytes::Bytes;
use millrace_store::Store;
use millrace_tables::pack;
use millrace_tables::{ChunkError, ChunkSource, ColumnBytes, PackFile, PackSink, put_pack, rows};
use millrace_types::{
    BlobRef, Chunk, ColumnDigest, ColumnName, Field, Gather, PackDigest, Selection, StoredChunk, Table, Unread,
};

use crate::integrity::Verifier;
use crate::packs::{StorePacks, io_error};
use crate::shards::SizedCache;
use crate::source::unread::{Materialized, UnreadColumns};
use crate::source::{SourceError, SourceStore, unread};

/// Bytes of packs that are mapped at a time; others are mapped again when needed.
const MAPPED: usize = 96 << 20;

/// Bytes of derived columns that are cached for the steps that read them next.
const DERIVED: usize = 64 << 20;

/// The chunks of a store.
pub(crate) struct StoreChunks {
    store: Store,
    packs: StorePacks,
    mapped: SizedCache<PackDigest, Bytes>,
    derived: SizedCache<ColumnDigest, ColumnBytes>,
    verifier: Verifier,
    unread: UnreadColumns,
}

fn invalid(error: impl std::fmt::Display) -> ChunkError {
    ChunkError::Invalid(error.to_string())
}

/// The error of an object that is missing or truncated.
fn lost(error: impl std::fmt::Display) -> ChunkError {
    ChunkError::Lost(error.to_string())
}

impl StoreChunks {
    pub(crate) fn new(store: Store) -> Self {
        let verifier = Verifier::new(store.clone());
        Self {
            packs: StorePacks::new(store.clone(), verifier.written()),
            store,
            mapped: SizedCache::new(MAPPED),
            derived: SizedCache::new(DERIVED),
            verifier,
            unread: UnreadColumns::default(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn stored(&self, chunk: &StoredChunk) -> Result<ColumnBytes, ChunkError> {
        let known = self.mapped.get(&chunk.pack);
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let bytes = self.store.pack(&chunk.pack, chunk.pack_bytes).map_err(lost)?;
                self.mapped.put(chunk.pack, bytes.clone(), bytes.len());
                bytes
            }
        };
        let column = pack::column(&bytes, chunk).map_err(invalid)?;
        self.verifier.column(chunk, &column);
        Ok(column)
    }

    /// The store of packs and blobs.
    pub(crate) fn packs(&self) -> &StorePacks {
        &self.packs
    }

    /// Waits until everything that was read is checked against its digest.
    ///
    /// # Errors
    /// When something is corrupt: no result derived from it may be stored.
    pub(crate) fn wait_checked(&self) -> Result<(), ChunkError> {
        self.verifier.wait_checked()
    }

    /// The bytes of a gathered column: materialized now, or stored under its digest before. A
    /// masked column is not stored: gathering it again in one pass is cheaper than writing it, let
    /// alone hashing it.
    fn gathered(&self, gather: &Gather) -> Result<ColumnBytes, ChunkError> {
        if let Some(column) = self.derived.get(&gather.digest) {
            return Ok(column);
        }
        let is_stored = gather.kind == Selection::Take;
        if is_stored
            && let Some(stored) = self.store.record::<StoredChunk>(&gather.digest)
            && stored.rows == gather.rows
            && stored.data_type == gather.data_type
            && let Ok(column) = self.stored(&stored)
        {
            return Ok(column);
        }
        let selection = self.stored(&gather.selection)?;
        let mut sources = gather.sources.iter().map(|source| self.column(source)).collect::<Result<Vec<_>, _>>()?;
        if sources.is_empty() {
            // A table without parts: every row of it is null.
            sources.push(ColumnBytes::empty(&gather.data_type).map_err(invalid)?);
        }
        let column = rows::gather(gather.kind, &selection, &sources).map_err(invalid)?;
        if !is_stored {
            self.derived.put(gather.digest, column.clone(), column.bytes() as usize);
            return Ok(column);
        }
        let field = Field { name: ColumnName::new("gathered"), data_type: gather.data_type.clone(), nullable: true };
        // It is stored under the digest of its sources, so they must be intact.
        self.wait_checked()?;
        let chunks = put_pack(&self.packs, &[field], std::slice::from_ref(&column))?;
        if let Some(chunk) = chunks.first() {
            self.store.put_record(&gather.digest, &**chunk).map_err(|error| io_error(&error))?;
        }
        Ok(column)
    }

    /// Announces that all columns of a table will be read, so that unread columns of one
    /// source are decoded together.
    pub(crate) fn prefetch(&self, table: &Table) {
        self.unread.prefetch(table);
    }

    /// Decodes and stores all unread columns of a table.
    ///
    /// # Errors
    /// When a source file has changed.
    pub(crate) fn decode(&self, table: &Table) -> Result<(), ChunkError> {
        unread::decode(&self.source_store(), table).map_err(source_error)
    }

    fn source_store(&self) -> SourceStore<'_> {
        SourceStore { store: &self.store, packs: &self.packs }
    }

    /// A column that no step reads, for a reader such as `host show`.
    fn unread(&self, unread: &Unread) -> Result<ColumnBytes, ChunkError> {
        if let Some(column) = self.derived.get(&unread.digest) {
            return Ok(column);
        }
        match self.unread.materialize(&self.source_store(), unread).map_err(source_error)? {
            Materialized::Stored(chunk) => self.stored(&chunk),
            Materialized::Read(columns) => {
                let found = columns.iter().find(|(digest, _)| *digest == unread.digest);
                let column = found.map(|(_, column)| column.clone());
                for (digest, column) in columns {
                    let size = column.bytes() as usize;
                    self.derived.put(digest, column, size);
                }
                column.ok_or_else(|| ChunkError::Source(format!("the column `{}` is not in its file", unread.name)))
            }
        }
    }

    /// The chunks of a store, to share among threads.
    pub(crate) fn shared(store: &Store) -> Arc<Self> {
        Arc::new(Self::new(store.clone()))
    }
}

fn source_error(error: SourceError) -> ChunkError {
    ChunkError::Source(error.to_string())
}

impl ChunkSource for StoreChunks {
    fn column(&self, chunk: &Chunk) -> Result<ColumnBytes, ChunkError> {
        match chunk {
            Chunk::Stored(chunk) => self.stored(chunk),
            Chunk::Gather(gather) => self.gathered(gather),
            Chunk::Unread(unread) => self.unread(unread),
        }
    }

    fn blob(&self, blob: &BlobRef) -> Result<Bytes, ChunkError> {
        let bytes = self.store.blob(blob).map_err(lost)?;
        self.verifier.blob(blob, &bytes)?;
        Ok(bytes)
    }
}

impl PackSink for StoreChunks {
    fn new_pack(&self) -> Result<Box<dyn PackFile>, ChunkError> {
        self.packs.new_pack()
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, ChunkError> {
        self.packs.put_blob(bytes)
    }
}
