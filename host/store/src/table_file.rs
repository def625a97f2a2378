//! The name of a file that holds many tables.

use millrace_types::TableFileDigest;
use serde::{Deserialize, Serialize};

/// A file of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFile {
    /// Of its bytes.
    pub(crate) contents: TableFileDigest,
    /// In bytes.
    pub(crate) size: u64,
}
