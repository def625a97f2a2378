//! Objects: the immutable files of the store, named by their content.

use serde::{Deserialize, Serialize};

use crate::digest::{BlobDigest, PackDigest};

/// A pack or a blob, with its size, so that a truncated file is noticed by a stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectRef {
    /// A pack and its size in bytes.
    Pack(PackDigest, u64),
    /// A blob and its size in bytes.
    Blob(BlobDigest, u64),
}

impl ObjectRef {
    /// The digest, which is its name: 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        match self {
            Self::Pack(digest, _) => digest.hex(),
            Self::Blob(digest, _) => digest.hex(),
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Pack(_, size) | Self::Blob(_, size) => *size,
        }
    }
}
