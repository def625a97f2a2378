//! BLAKE3-256 digests, one type for each thing that is named by one.
//!
//! The kinds do not convert into each other: a function that takes a digest of one kind for another
//! states it in its name. This is the only module that handles the 32 bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A digest of some kind.
pub trait Digest: Copy + Eq + std::hash::Hash + Send + Sync + 'static {
    /// Its bytes.
    fn bytes(&self) -> &[u8; 32];

    /// The name of a record that is stored under this digest.
    fn record_name(&self) -> RecordName {
        RecordName(*self.bytes())
    }

    /// A number below `count`, the same for equal digests; for tables split into shards.
    fn shard(&self, count: usize) -> usize {
        usize::from(self.bytes()[0]) % count.max(1)
    }
}

/// Text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest (`b3:` and 64 hexadecimal digits)")]
pub struct DigestError {
    /// The text, truncated to 80 characters.
    pub text: String,
}

fn parse(text: &str) -> Result<[u8; 32], DigestError> {
    text.strip_prefix("b3:")
        .and_then(|hex| blake3::Hash::from_hex(hex).ok())
        .map(|hash| *hash.as_bytes())
        .ok_or_else(|| DigestError { text: text.chars().take(80).collect() })
}

/// 64 hexadecimal digits.
#[derive(Clone, Copy)]
pub struct Hex([u8; 64]);

impl Hex {
    /// The digits of 32 bytes.
    pub fn of(bytes: &[u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        Self(digits)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        // Every byte is one of the digits above.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

macro_rules! digest {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The digest of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// 64 hexadecimal digits, as in file names.
            pub fn hex(&self) -> String {
                Hex::of(&self.0).as_str().to_owned()
            }

            /// The first 12 digits, for display.
            pub fn short(&self) -> String {
                let mut hex = self.hex();
                hex.truncate(12);
                hex
            }
        }

        impl Digest for $name {
            fn bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("b3:")?;
                f.write_str(Hex::of(&self.0).as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(deserializer).map(Self)
                }
            }
        }
    )*};
}

digest! {
    /// Of the exact bytes of a component.
    ComponentDigest;
    /// Of the bytes of a blob.
    BlobDigest;
    /// Of one column of one part: type, length and buffers; of a gathered column: the selection and
    /// its sources.
    ColumnDigest;
    /// Of the columns in a pack, which is its name in the store.
    PackDigest;
    /// Of a table: its schema, and the rows and column digests of its parts.
    TableDigest;
    /// Of the bytes of a source file.
    SourceDigest;
    /// Of all that can influence what a task produces.
    ActionKey;
    /// Of a source: the bytes of its files and the options they are read with.
    SourceKey;
    /// Of bytes that have no digest type of their own: a pipeline file, a list of overrides.
    ContentDigest;
    /// Of a file that holds many tables.
    TableFileDigest;
    /// Of the path of a file whose stamp is remembered.
    MemoName;
    /// Of a component and the step world, for its manifest.
    ManifestName;
    /// Of a component, the step world, params and input schemas, for the plan.
    PlanName;
    /// Of the folder of a plugin's source package.
    PluginName;
    /// Of the path of a pipeline file, for the trace of its last run.
    TraceName;
    /// Of the path of a pipeline file, for the index of its records.
    IndexName;
    /// The name of a record, whatever its kind.
    RecordName;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = BlobDigest::from(blake3::hash(b"x"));
        assert_eq!(digest.to_string().parse::<BlobDigest>(), Ok(digest));
        assert_eq!(digest.to_string().len(), 67);
    }

    #[test]
    fn text_that_is_not_a_digest_is_refused() {
        for text in ["", "b3:", "b3:zz", "sha256:00", &"b3:0".repeat(40)] {
            assert!(text.parse::<BlobDigest>().is_err(), "{text}");
        }
    }
}
