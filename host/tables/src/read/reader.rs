//! The trait of formats, with one implementation for each.

use std::path::{Path, PathBuf};

use millrace_threads::Threads;
use millrace_types::Schema;

use super::error::ReadError;
use super::options::ReadOptions;
use super::part_id::PartId;
use super::sink::Sink;

/// What can be said of the schema of a source before all of it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// The files declare it.
    Certain(Schema),
    /// It is one of these, the most likely first: the names are certain, the types are
    /// guesses from the first records, then wider ones, then text.
    Candidates(Vec<Schema>),
    /// Probably this one; even the names may differ.
    Guess(Schema),
    /// Nothing is known, or something is wrong, which reading will report.
    Unknown,
}

impl Peek {
    /// The schema, if it is certain.
    pub fn certain(&self) -> Option<&Schema> {
        match self {
            Self::Certain(schema) => Some(schema),
            Self::Candidates(_) | Self::Guess(_) | Self::Unknown => None,
        }
    }

    /// The schemas of which the source will have one; empty if any other is possible.
    pub fn possible(&self) -> &[Schema] {
        match self {
            Self::Certain(schema) => std::slice::from_ref(schema),
            Self::Candidates(schemas) => schemas,
            Self::Guess(_) | Self::Unknown => &[],
        }
    }

    /// The most likely schema.
    pub fn likely(&self) -> Option<&Schema> {
        match self {
            Self::Certain(schema) | Self::Guess(schema) => Some(schema),
            Self::Candidates(schemas) => schemas.first(),
            Self::Unknown => None,
        }
    }
}

/// A reader of one format.
pub(super) trait Reader: Sync {
    /// What the first file says of the schema. Errors are left to the reading.
    fn peek(&self, path: &Path, options: &ReadOptions) -> Peek;

    /// Reads files, in this order, as one table.
    ///
    /// # Errors
    /// When a file cannot be read, or does not fit the options or the other files.
    fn read(
        &self,
        files: &[PathBuf],
        options: &ReadOptions,
        threads: &Threads,
        sink: &dyn Sink,
    ) -> Result<Schema, ReadError>;

    /// Reads one part again, and parts that cannot be told from it before they are decoded.
    /// A format that is always read whole reads nothing.
    ///
    /// # Errors
    /// As [`Reader::read`].
    fn read_part(&self, path: &Path, options: &ReadOptions, id: PartId, sink: &dyn Sink) -> Result<(), ReadError> {
        let _ = (path, options, id, sink);
        Ok(())
    }
}
