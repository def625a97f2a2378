//! The formats of source files, and which of them a file name tells.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// The format of a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Format {
    /// Text with separators and a header line.
    Csv,
    /// A JSON object on each line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Ipc,
}

impl Format {
    /// The format that the ending of a file name tells, without that of a compression.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zip")).unwrap_or(&name);
        let (_, extension) = name.rsplit_once('.')?;
        Self::named(extension)
    }

    /// Whether a file declares its columns and stores each apart, so that a column can be read
    /// without the others.
    pub fn is_columnar(self) -> bool {
        matches!(self, Self::Parquet | Self::Ipc)
    }

    /// The format that a pipeline names.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "csv" | "tsv" | "txt" => Self::Csv,
            "ndjson" | "jsonl" | "json" => Self::Ndjson,
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "ipc" | "feather" => Self::Ipc,
            _ => return None,
        })
    }
}
