//! Where tasks get their columns from: the store, and what follows from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_store::Store;
use millrace_tables::pack::{self, Pack};
use millrace_tables::{Column, rows};
use millrace_types::wire::Kind;
use millrace_types::{BlobRef, Chunk, ColumnName, Field, Gather, PackDigest, Selection, StoredChunk};
use millrace_wasm::{Data, DataError};

/// Packs that are mapped at a time; more are mapped again when needed.
const MAPPED: usize = 1024;

/// The store as tasks see it.
pub(crate) struct StoreData {
    store: Store,
    mapped: Mutex<HashMap<PackDigest, Bytes>>,
}

fn error(error: impl std::fmt::Display) -> DataError {
    DataError(error.to_string())
}

impl StoreData {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, mapped: Mutex::new(HashMap::new()) }
    }

    fn mapped(&self) -> std::sync::MutexGuard<'_, HashMap<PackDigest, Bytes>> {
        self.mapped.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn stored(&self, chunk: &StoredChunk) -> Result<Column, DataError> {
        let known = self.mapped().get(&chunk.pack).cloned();
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let bytes = self.store.pack(&chunk.pack, chunk.pack_bytes).map_err(error)?;
                let mut mapped = self.mapped();
                if mapped.len() >= MAPPED {
                    mapped.clear();
                }
                mapped.insert(chunk.pack, bytes.clone());
                bytes
            }
        };
        pack::column(&bytes, chunk).map_err(error)
    }

    /// Makes the bytes of a gathered column, or finds those made before, which
    /// are kept under its digest. What a mask keeps is read in one pass from front to
    /// back: that is cheaper than to write it, let alone to hash it.
    fn gathered(&self, gather: &Gather) -> Result<Column, DataError> {
        let name = gather.digest.as_bytes();
        let is_kept = gather.kind == Selection::Take;
        if is_kept
            && let Some(kept) = self.store.record::<StoredChunk>(Kind::Gathered, name)
            && kept.rows == gather.rows
            && kept.data_type == gather.data_type
            && let Ok(column) = self.stored(&kept)
        {
            return Ok(column);
        }
        let selection = self.stored(&gather.selection)?;
        let sources = gather.sources.iter().map(|source| self.column(source)).collect::<Result<Vec<_>, _>>()?;
        let column = rows::gather(gather.kind, &selection, &sources).map_err(error)?;
        if !is_kept {
            return Ok(column);
        }
        let field = Field { name: ColumnName::new("gathered"), data_type: gather.data_type.clone(), nullable: true };
        let pack = Pack::new(&[field], vec![column.clone()]).map_err(error)?;
        self.put_pack(&pack)?;
        if let Some(chunk) = pack.chunks().first() {
            self.store.put_record(Kind::Gathered, name, &**chunk).map_err(error)?;
        }
        Ok(column)
    }

    pub(crate) fn shared(store: &Store) -> Arc<Self> {
        Arc::new(Self::new(store.clone()))
    }
}

impl Data for StoreData {
    fn column(&self, chunk: &Chunk) -> Result<Column, DataError> {
        match chunk {
            Chunk::Stored(chunk) => self.stored(chunk),
            Chunk::Gather(gather) => self.gathered(gather),
        }
    }

    fn blob(&self, blob: &BlobRef) -> Result<Bytes, DataError> {
        self.store.blob(blob).map_err(error)
    }

    fn put_pack(&self, pack: &Pack) -> Result<(), DataError> {
        let size = pack.chunks().first().map_or(0, |chunk| chunk.pack_bytes);
        if self.store.has(&millrace_types::action_record::ObjectRef::Pack(pack.digest(), size)) {
            return Ok(());
        }
        let mut file = self.store.new_file().map_err(error)?;
        pack.write(file.file()).map_err(error)?;
        self.store.put_pack(&pack.digest(), file).map_err(error)
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<BlobRef, DataError> {
        self.store.put_blob(bytes).map_err(error)
    }
}
