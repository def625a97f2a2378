//! How records lie in files: a magic word, the kind, its version, a checksum,
//! and the postcard encoding of the value.
//!
//! A file that is cut, torn, of another kind or of another version is no
//! record: readers take it as absent, never as an error of the run.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// `MLRC` and the length of the checksum that follows kind and version.
const MAGIC: [u8; 4] = *b"MLRC";
const HEADER: usize = 4 + 1 + 1 + 16;

/// What a file of the store holds, with the version of its encoding. A change
/// of a type that is stored needs a new version here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An [`crate::ActionRecord`].
    Action,
    /// A [`crate::Table`].
    Table,
    /// The place of a gathered column.
    Gathered,
    /// What a source was read into.
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
    /// What a run looked at, and what came of it.
    Trace,
}

impl Kind {
    /// The number that stands for it in a file.
    pub fn number(self) -> u8 {
        self.code()[0]
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
            Self::Plugin => [8, 2],
            Self::Run => [9, 1],
            Self::Trace => [10, 1],
        }
    }
}

/// The bytes of a record.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Vec<u8> {
    // Writing to a vector cannot fail, and our types have no failing serializer.
    let body = postcard::to_allocvec(value).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&kind.code());
    bytes.extend_from_slice(&blake3::hash(&body).as_bytes()[..16]);
    bytes.extend_from_slice(&body);
    bytes
}

/// The value, if `bytes` is a whole and unharmed record of this kind and version.
pub fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(body(kind, bytes)?).ok()
}

/// The encoded value, under the same conditions.
pub fn body(kind: Kind, bytes: &[u8]) -> Option<&[u8]> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let intact =
        header[..4] == MAGIC && header[4..6] == kind.code() && header[6..] == blake3::hash(body).as_bytes()[..16];
    intact.then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn a_record_that_was_harmed_anywhere_is_absent() {
        let bytes = encode(Kind::Table, &Table::default());
        assert_eq!(decode::<Table>(Kind::Table, &bytes), Some(Table::default()));
        assert_eq!(decode::<Table>(Kind::Action, &bytes), None);
        for i in 0..bytes.len() {
            assert_eq!(decode::<Table>(Kind::Table, &bytes[..i]), None, "cut at {i}");
            let mut flipped = bytes.clone();
            flipped[i] ^= 1;
            assert_eq!(decode::<Table>(Kind::Table, &flipped), None, "flipped at {i}");
        }
    }
}
