//! Records: small files by kind and name. One that cannot be read is absent.

use std::path::PathBuf;

use bytes::Bytes;
use millrace_types::wire::{self, Kind};
use millrace_types::{Hex, bounds};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Result, Store, object};

fn folder(kind: Kind) -> &'static str {
    match kind {
        Kind::Action => "actions",
        // Only in files of many.
        Kind::Table | Kind::Tables => "tables",
        Kind::Gathered => "gathered",
        Kind::Source | Kind::Columns => "sources",
        Kind::Memo => "memo",
        Kind::Manifest => "manifests",
        Kind::Plan => "plans",
        Kind::Plugin => "plugins",
        Kind::Run => "runs",
        Kind::Trace => "traces",
        // By component and engine: `millrace-wasm` writes it beside the code.
        Kind::Code => "compiled",
    }
}

impl Store {
    fn record_path(&self, kind: Kind, name: &[u8; 32]) -> PathBuf {
        self.sharded(folder(kind), Hex::of(name).as_str())
    }

    /// A record; `None` when there is none, or none that is whole and of this
    /// version.
    pub fn record<T: DeserializeOwned>(&self, kind: Kind, name: &[u8; 32]) -> Option<T> {
        if let Some(index) = &self.index
            && let Some((place, bytes)) = index.find(kind, name)
            && let Some(value) = wire::decode(kind, name, bytes)
        {
            index.used(place);
            return Some(value);
        }
        let path = self.record_path(kind, name);
        let bytes = crate::read_file(&path, bounds::RECORD_BYTES).ok()?;
        let Some(value) = wire::decode(kind, name, &bytes) else {
            // Whoever only looks whether there is one must not find one that is of no use.
            let _ = std::fs::remove_file(&path);
            return None;
        };
        if let Some(index) = &self.index {
            index.fresh(kind, name, bytes);
        }
        Some(value)
    }

    /// The encoded value of a record that is not in any index, mapped, for those who may not
    /// need all of it; `None` as by [`Self::record`].
    pub fn record_body(&self, kind: Kind, name: &[u8; 32]) -> Option<Bytes> {
        let bytes = object::map_all(&self.record_path(kind, name), bounds::RECORD_BYTES).ok()?;
        Some(bytes.slice_ref(wire::body(kind, name, &bytes)?))
    }

    /// Whether the last run of the pipeline whose index this has used the record.
    pub fn is_indexed(&self, kind: Kind, name: &[u8; 32]) -> bool {
        self.index.as_ref().is_some_and(|index| index.find(kind, name).is_some())
    }

    /// Whether there is a file for the record, harmed or not.
    pub fn has_record(&self, kind: Kind, name: &[u8; 32]) -> bool {
        self.record_path(kind, name).exists()
    }

    /// Keeps a record. Whatever it names must be there already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_record<T: Serialize>(&self, kind: Kind, name: &[u8; 32], value: &T) -> Result<()> {
        self.put_sized_record(kind, name, value, 0)
    }

    /// Keeps a record of about so many bytes.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_sized_record<T: Serialize>(&self, kind: Kind, name: &[u8; 32], value: &T, about: usize) -> Result<()> {
        let bytes = wire::encode_sized(kind, name, value, about);
        if let Some(index) = &self.index
            && kind == Kind::Plan
        {
            // What a step says of a use is asked anew in microseconds: not worth a
            // file of its own for each.
            index.fresh(kind, name, bytes);
            return Ok(());
        }
        self.write_file(&self.record_path(kind, name), &bytes)?;
        if let Some(index) = &self.index {
            index.fresh(kind, name, bytes);
        }
        Ok(())
    }
}
