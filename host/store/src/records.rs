//! Records: small files by kind and name. One that cannot be read counts as absent.

use bytes::Bytes;
use millrace_types::wire::{self, Kind};
use millrace_types::{Digest, Record, RecordName, Reference, bounds};

use crate::error::Result;
use crate::files::{map_all, read_file};
use crate::store::Store;

impl Store {
    /// A record; `None` when there is none, or none that is intact and of this version.
    pub fn record<R: Record>(&self, name: &R::Name) -> Option<R> {
        let (kind, name) = (R::KIND, name.record_name());
        if let Some(index) = &self.index
            && let Some((entry, bytes)) = index.find(kind, &name)
            && let Some(value) = wire::decode(kind, name.as_bytes(), bytes)
        {
            index.mark_used(entry);
            self.share_hit(&name, &value, || bytes.to_vec());
            return Some(value);
        }
        let path = self.folder.record_path(kind, &name);
        let Ok(bytes) = read_file(&path, bounds::RECORD_BYTES) else { return self.remote_record::<R>(&name) };
        let Some(value) = wire::decode(kind, name.as_bytes(), &bytes) else {
            // A reader that only checks for the file must not find one that is of no use.
            let _ = std::fs::remove_file(&path);
            return self.remote_record::<R>(&name);
        };
        self.share_hit(&name, &value, || bytes.clone());
        if let Some(index) = &self.index {
            index.add(kind, &name, bytes);
        }
        Some(value)
    }

    /// Uploads a record that was found locally: a run without the remote store may have stored it.
    fn share_hit<R: Record>(&self, name: &RecordName, value: &R, bytes: impl FnOnce() -> Vec<u8>) {
        if self.remote.as_ref().is_some_and(|remote| R::KIND.is_shared() && remote.is_first(R::KIND, name)) {
            self.share(name, value, bytes);
        }
    }

    /// Uploads a record to the remote store, in the background.
    fn share<R: Record>(&self, name: &RecordName, value: &R, bytes: impl FnOnce() -> Vec<u8>) {
        let Some(remote) = self.remote.as_ref().filter(|_| R::KIND.is_shared()) else { return };
        remote.is_first(R::KIND, name);
        let shared = value.portable().map(|value| wire::encode(R::KIND, name.as_bytes(), &value));
        let objects = value.references().into_iter().filter_map(|reference| match reference {
            Reference::Object(object) => Some(object),
            Reference::Record(..) => None,
        });
        remote.publish(R::KIND, *name, shared.unwrap_or_else(bytes), objects.collect());
    }

    /// A record of the remote store, which is stored locally. What it refers to is fetched when
    /// it is read; a record is only used where that is present.
    fn remote_record<R: Record>(&self, name: &RecordName) -> Option<R> {
        let remote = self.remote.as_ref().filter(|_| R::KIND.is_shared())?;
        let bytes = remote.record(R::KIND, name)?;
        remote.is_first(R::KIND, name);
        let value = wire::decode(R::KIND, name.as_bytes(), &bytes)?;
        let _ = self.folder.write_file(&self.folder.record_path(R::KIND, name), &bytes);
        if let Some(index) = &self.index {
            index.add(R::KIND, name, bytes.to_vec());
        }
        Some(value)
    }

    /// The encoded value of a record that is in no index, mapped, for a reader that may not
    /// need all of it; `None` as by [`Self::record`].
    pub fn record_body<R: Record>(&self, name: &R::Name) -> Option<Bytes> {
        let name = name.record_name();
        let bytes = map_all(&self.folder.record_path(R::KIND, &name), bounds::RECORD_BYTES).ok()?;
        Some(bytes.slice_ref(wire::body(R::KIND, name.as_bytes(), &bytes)?))
    }

    /// Whether the index has the record: the last run of its pipeline used it.
    pub fn is_indexed<R: Record>(&self, name: &R::Name) -> bool {
        self.index.as_ref().is_some_and(|index| index.find(R::KIND, &name.record_name()).is_some())
    }

    /// Whether there is a file for the record, intact or not.
    pub fn has_record(&self, kind: Kind, name: &RecordName) -> bool {
        self.folder.record_path(kind, name).exists()
    }

    /// Stores a record. Everything it refers to must be stored already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_record<R: Record>(&self, name: &R::Name, value: &R) -> Result<()> {
        self.put_sized_record(name, value, 0)
    }

    /// Stores a record of about `size_hint` bytes.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn put_sized_record<R: Record>(&self, name: &R::Name, value: &R, size_hint: usize) -> Result<()> {
        let (kind, name) = (R::KIND, name.record_name());
        let bytes = wire::encode_sized(kind, name.as_bytes(), value, size_hint);
        // Asking a step for its plan again takes microseconds: not worth a file for each.
        if self.index.is_none() || kind != Kind::Plan {
            self.folder.write_file(&self.folder.record_path(kind, &name), &bytes)?;
        }
        self.share(&name, value, || bytes.clone());
        if let Some(index) = &self.index {
            index.add(kind, &name, bytes);
        }
        Ok(())
    }
}
