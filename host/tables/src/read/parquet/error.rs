//! Errors of Parquet files, in words for users.

use std::io::Read;
use std::path::Path;

use crate::read::error::ReadError;
use millrace_platform::open_regular;

pub(super) fn broken(path: &Path, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::content(path, None, format!("not usable as Parquet: {}", plain(&error.to_string())))
}

/// The message of the reader, without the names of its components.
fn plain(error: &str) -> String {
    let mut text = error;
    while let Some(rest) = ["Parquet argument error: ", "Parquet error: ", "External: ", "EOF: ", "Arrow: "]
        .iter()
        .find_map(|part| text.strip_prefix(part))
    {
        text = rest;
    }
    match text.strip_prefix("Disabled feature at compile time: ") {
        Some(codec) => format!("it is packed with {codec}; what can be unpacked is snappy, gzip and zstd"),
        None => text.to_owned(),
    }
}

/// An error in a row group, with the column where that is known.
pub(super) fn broken_in(path: &Path, group: usize, column: Option<&str>, error: &dyn std::fmt::Display) -> ReadError {
    let column = column.map_or_else(String::new, |name| format!(", column `{name}`"));
    let error = plain(&error.to_string());
    ReadError::content(path, None, format!("not usable as Parquet: row group {group}{column}: {error}"))
}

/// A row group that has other rows than the file declares.
pub(super) fn wrong_row_count(path: &Path) -> ReadError {
    broken(path, &"a row group has not as many rows as its file says")
}

/// Whether a file begins as Parquet does.
pub(super) fn begins(path: &Path) -> bool {
    let mut begin = [0; 4];
    let is_read = open_regular(path).is_ok_and(|mut file| file.read_exact(&mut begin).is_ok());
    is_read && matches!(&begin, b"PAR1" | b"PARE")
}
