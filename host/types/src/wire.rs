//! How records lie in files: a magic word, the kind, its version, a checksum of name and
//! value, and the postcard encoding of the value.
//!
//! A file that is cut, torn, of another kind or of another version is no
//! record: readers take it as absent, never as an error of the run.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Of this layout; then kind and version, and the checksum.
const MAGIC: [u8; 4] = *b"MLR2";
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
    /// Which compiled code is that of a component.
    Code,
    /// What was read of a source, column by column: it grows.
    Columns,
    /// Where a pipeline's tables are kept.
    Tables,
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
            Self::Plugin => [8, 3],
            Self::Run => [9, 1],
            Self::Trace => [10, 3],
            Self::Code => [11, 1],
            Self::Columns => [12, 2],
            Self::Tables => [13, 1],
        }
    }
}

/// Says that a record is whole, and that it is the one of this kind and name: one that lies
/// in the place of another is as good as none.
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

/// The bytes of a record of about so many: large ones that grow piece by piece cost more
/// for memory that is touched on the way than for what they say.
pub fn encode_sized<T: Serialize>(kind: Kind, name: &[u8], value: &T, about: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + about.max(256));
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

/// The value, if `bytes` is a whole and unharmed record of this kind, version and name.
pub fn decode<T: DeserializeOwned>(kind: Kind, name: &[u8], bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(body(kind, name, bytes)?).ok()
}

/// The encoded value, under the same conditions.
pub fn body<'b>(kind: Kind, name: &[u8], bytes: &'b [u8]) -> Option<&'b [u8]> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let intact = header[..4] == MAGIC && header[4..6] == kind.code() && header[6..] == checksum(kind, name, body);
    intact.then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    #[test]
    fn a_record_that_was_harmed_anywhere_is_absent() {
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
}
