//! How a source is read.

use std::collections::BTreeMap;

use millrace_types::DataType;
use serde::{Deserialize, Serialize};

use super::format::Format;

/// How to read a source. These options and the bytes of the files decide the table; the names
/// of the files do not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadOptions {
    /// The format of all files.
    pub format: Format,
    /// The columns, in this order; all columns if `None`.
    pub columns: Option<Vec<String>>,
    /// An expression that is true for the rows to keep.
    pub filter: Option<String>,
    /// Field values that count as missing, in text files.
    pub missing: Vec<String>,
    /// Types given by the user, which are not inferred.
    pub types: BTreeMap<String, DataType>,
    /// Rows of a part, in text files and where a row group or batch is larger.
    pub part_rows: usize,
    /// The byte between the fields of a CSV file.
    pub delimiter: u8,
}

/// Rows of a part where the file does not decide: a column of 8-byte values has 1 MiB, which
/// fits a core's cache.
pub const PART_ROWS: usize = 131_072;
