//! The encoding of records: a magic word, the kind, its version, a checksum of name and
//! value, and the postcard encoding of the value.
//!
//! A file that is truncated, corrupt, of another kind or of another version counts as absent: the
//! run recomputes its value. [`check`] returns which of these it is.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Identifies this layout; kind and version follow, then the checksum.
const MAGIC: [u8; 4] = *b"MLR2";
const HEADER: usize = 4 + 1 + 1 + 16;

/// What a file of the store contains, with the version of its encoding. A change of a type that is
/// stored needs a new version here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An [`crate::ActionRecord`].
    Action,
    /// A [`crate::Table`].
    Table,
    /// The stored chunk of a gathered column.
    Gathered,
    /// The table that a source was read into.
    Source,
    /// The stat memo of sources.
    Memo,
    /// A manifest.
    Manifest,
    /// A step plan.
    Plan,
    /// A built plugin.
    Plugin,
    /// The history of a run.
    Run,
    /// Everything that a run read, and its results.
    Trace,
    /// The compiled code that belongs to a component.
    Code,
    /// The columns of a source that have been read so far.
    Columns,
    /// The files that contain a pipeline's tables.
    Tables,
    /// A task that another process can run.
    Task,
    /// The event log of a run.
    Events,
}

impl Kind {
    /// Its number in a file.
    pub fn number(self) -> u8 {
        self.code()[0]
    }

    /// The version of its encoding that this program reads and writes.
    pub fn version(self) -> u8 {
        self.code()[1]
    }

    /// The kind with this number.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Action,
        Self::Table,
        Self::Gathered,
        Self::Source,
        Self::Memo,
        Self::Manifest,
        Self::Plan,
        Self::Plugin,
        Self::Run,
        Self::Trace,
        Self::Code,
        Self::Columns,
        Self::Tables,
        Self::Task,
        Self::Events,
    ];

    /// Whether records of this kind mean the same on every machine, so that they may be
    /// exchanged with a remote store.
    pub fn is_shared(self) -> bool {
        match self {
            Self::Action | Self::Gathered | Self::Source | Self::Columns | Self::Manifest | Self::Plan | Self::Task => {
                true
            }
            Self::Table
            | Self::Memo
            | Self::Plugin
            | Self::Run
            | Self::Trace
            | Self::Code
            | Self::Tables
            | Self::Events => false,
        }
    }

    /// Its name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Table => "table",
            Self::Gathered => "gathered column",
            Self::Source => "source",
            Self::Memo => "memo",
            Self::Manifest => "manifest",
            Self::Plan => "plan",
            Self::Plugin => "plugin",
            Self::Run => "run",
            Self::Trace => "trace",
            Self::Code => "compiled code",
            Self::Columns => "source columns",
            Self::Tables => "table files",
            Self::Task => "task",
            Self::Events => "events",
        }
    }

    fn code(self) -> [u8; 2] {
        match self {
            Self::Action => [1, 2],
            Self::Table => [2, 1],
            Self::Gathered => [3, 1],
            Self::Source => [4, 1],
            Self::Memo => [5, 2],
            Self::Manifest => [6, 1],
            Self::Plan => [7, 1],
            Self::Plugin => [8, 3],
            Self::Run => [9, 2],
            Self::Trace => [10, 4],
            Self::Code => [11, 1],
            Self::Columns => [12, 2],
            Self::Tables => [13, 1],
            Self::Task => [14, 1],
            Self::Events => [15, 1],
        }
    }
}

/// Covers the value, the kind and the name: a record that is stored under the name of
/// another does not match.
fn checksum(kind: Kind, name: &[u8], body: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 record");
    hasher.update(&kind.code()).update(&(name.len() as u64).to_le_bytes()).update(name).update(body);
    let mut checksum = [0; 16];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    checksum
}

/// The bytes of a record.
pub fn encode<T: Serialize>(kind: Kind, name: &[u8], value: &T) -> Vec<u8> {
    encode_sized(kind, name, value, 0)
}

/// The bytes of a record, with room reserved for `size_hint` bytes: growing a large buffer
/// step by step costs more page faults than the encoding itself.
pub fn encode_sized<T: Serialize>(kind: Kind, name: &[u8], value: &T, size_hint: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + size_hint.max(256));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&kind.code());
    bytes.extend_from_slice(&[0; 16]);
    // Writing to a vector cannot fail, and our types have no failing serializer.
    let mut bytes = postcard::to_extend(value, bytes).unwrap_or_default();
    if let Some((header, body)) = bytes.split_at_mut_checked(HEADER) {
        header[6..].copy_from_slice(&checksum(kind, name, body));
    }
    bytes
}

/// Why bytes are not the record that a reader expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They do not begin with the magic word.
    #[error("it is not a record of this store layout")]
    NotARecord,
    /// A record of another kind.
    #[error("it is a record of another kind ({}) than {}", found.map_or("unknown", Kind::as_str), wanted.as_str())]
    Kind {
        /// Its kind, if this program knows it.
        found: Option<Kind>,
        /// The kind that was expected.
        wanted: Kind,
    },
    /// A record of another version.
    #[error("it is a {} record of version {found}, and this program reads version {}", kind.as_str(), kind.version())]
    Version {
        /// Its kind.
        kind: Kind,
        /// Its version.
        found: u8,
    },
    /// The checksum of name and value does not match.
    #[error("it is corrupt, or stored under another name")]
    Corrupt,
    /// The checksum matches and the value cannot be decoded.
    #[error("its value cannot be decoded")]
    Value,
}

/// The encoded value of a record of this kind, version and name.
///
/// # Errors
/// [`Refusal`] says what is wrong with it.
pub fn check<'b>(kind: Kind, name: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], Refusal> {
    let (header, body) = bytes.split_at_checked(HEADER).ok_or(Refusal::NotARecord)?;
    if header[..4] != MAGIC {
        return Err(Refusal::NotARecord);
    }
    if header[4] != kind.number() {
        return Err(Refusal::Kind { found: Kind::of(header[4]), wanted: kind });
    }
    if header[5] != kind.version() {
        return Err(Refusal::Version { kind, found: header[5] });
    }
    if header[6..] != checksum(kind, name, body) { Err(Refusal::Corrupt) } else { Ok(body) }
}

/// The value of a record, or why it cannot be read.
///
/// # Errors
/// [`Refusal`] says what is wrong with it.
pub fn read<T: DeserializeOwned>(kind: Kind, name: &[u8], bytes: &[u8]) -> Result<T, Refusal> {
    postcard::from_bytes(check(kind, name, bytes)?).map_err(|_| Refusal::Value)
}

/// The value, if `bytes` is an intact record of this kind, version and name.
pub fn decode<T: DeserializeOwned>(kind: Kind, name: &[u8], bytes: &[u8]) -> Option<T> {
    read(kind, name, bytes).ok()
}

/// The encoded value, under the same conditions.
pub fn body<'b>(kind: Kind, name: &[u8], bytes: &'b [u8]) -> Option<&'b [u8]> {
    check(kind, name, bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn a_record_with_any_corrupt_byte_is_absent() {
        let bytes = encode(Kind::Table, b"name", &Table::default());
        assert_eq!(decode::<Table>(Kind::Table, b"name", &bytes), Some(Table::default()));
        assert_eq!(decode::<Table>(Kind::Action, b"name", &bytes), None);
        assert_eq!(decode::<Table>(Kind::Table, b"nome", &bytes), None);
        for i in 0..bytes.len() {
            assert_eq!(decode::<Table>(Kind::Table, b"name", &bytes[..i]), None, "cut at {i}");
            let mut flipped = bytes.clone();
            flipped[i] ^= 1;
            assert_eq!(decode::<Table>(Kind::Table, b"name", &flipped), None, "flipped at {i}");
        }
    }

    #[test]
    fn a_refusal_states_what_is_wrong_with_the_record() {
        let mut bytes = encode(Kind::Table, b"name", &Table::default());
        let why = |kind, bytes: &[u8]| check(kind, b"name", bytes).unwrap_err().to_string();
        assert_eq!(why(Kind::Action, &bytes), "it is a record of another kind (table) than action");
        bytes[5] += 1;
        assert_eq!(why(Kind::Table, &bytes), "it is a table record of version 2, and this program reads version 1");
        bytes[5] -= 1;
        bytes[20] ^= 1;
        assert_eq!(why(Kind::Table, &bytes), "it is corrupt, or stored under another name");
        assert_eq!(why(Kind::Table, b"PK"), "it is not a record of this store layout");
    }

    #[test]
    fn every_kind_has_its_own_number() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.number()), Some(kind));
        }
    }
}
