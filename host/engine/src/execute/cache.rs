//! The action cache: records by action key.

use millrace_store::{Store, StoreError};
use millrace_types::{ActionKey, ActionRecord};

/// Finds and publishes action records.
///
/// A record that is found may be used: every object that it names is present. Publishing is atomic,
/// and a record is published only after its objects. Publishing a key twice is harmless: both
/// records have the same outputs.
pub(crate) trait ActionCache: Send + Sync {
    /// The record of a key, if it can be used.
    fn lookup(&self, key: &ActionKey) -> Option<ActionRecord>;

    /// Publishes a record.
    ///
    /// # Errors
    /// When it cannot be written.
    fn publish(&self, record: &ActionRecord) -> Result<(), StoreError>;
}

impl ActionCache for Store {
    fn lookup(&self, key: &ActionKey) -> Option<ActionRecord> {
        let record = self.record::<ActionRecord>(key)?;
        (record.key == *key && self.has_all(&record.objects())).then_some(record)
    }

    fn publish(&self, record: &ActionRecord) -> Result<(), StoreError> {
        self.put_record(&record.key, record)
    }
}
