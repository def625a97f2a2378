//! Records: values that the store holds under a name.
//!
//! A record lists the objects and records it refers to, so that garbage collection can mark the
//! live ones without knowing what a record means.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::action_record::ActionRecord;
use crate::digest::{ActionKey, ColumnDigest, Digest, ManifestName, PlanName, RecordName, TableDigest};
use crate::object::ObjectRef;
use crate::step::{Manifest, StepPlan};
use crate::table::{StoredChunk, Table};
use crate::wire::Kind;

/// Something in the store that a record refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A pack or a blob.
    Object(ObjectRef),
    /// Another record.
    Record(Kind, RecordName),
}

/// A value that the store holds under a name.
pub trait Record: Serialize + DeserializeOwned {
    /// Its kind, which decides the folder and the version of the encoding.
    const KIND: Kind;
    /// The type of its name.
    type Name: Digest;

    /// Everything in the store that it refers to. A record that refers to a missing object or
    /// record is of no use.
    fn references(&self) -> Vec<Reference>;

    /// The record as other machines may use it, if that differs: without what is only valid on this
    /// one, such as paths.
    fn portable(&self) -> Option<Self> {
        None
    }
}

impl Record for ActionRecord {
    const KIND: Kind = Kind::Action;
    type Name = ActionKey;

    fn references(&self) -> Vec<Reference> {
        self.objects().into_iter().map(Reference::Object).collect()
    }
}

impl Record for Table {
    const KIND: Kind = Kind::Table;
    type Name = TableDigest;

    fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        for chunk in self.parts.iter().flat_map(|part| &part.columns) {
            chunk.visit_stored(&mut |chunk| found.push(Reference::Object(chunk.object())));
            chunk.visit_unread(&mut |unread| found.push(Reference::Record(Kind::Columns, unread.source.record_name())));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The bytes of a gathered column, under the digest of the selection and its sources.
impl Record for StoredChunk {
    const KIND: Kind = Kind::Gathered;
    type Name = ColumnDigest;

    fn references(&self) -> Vec<Reference> {
        vec![Reference::Object(self.object())]
    }
}

impl Record for Manifest {
    const KIND: Kind = Kind::Manifest;
    type Name = ManifestName;

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}

impl Record for StepPlan {
    const KIND: Kind = Kind::Plan;
    type Name = PlanName;

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}
