//! The key of a source: everything that decides what is read.

use std::path::PathBuf;

use millrace_tables::read::{Format, ReadOptions};
use millrace_types::SourceKey;

use super::files::Digested;

/// Version of a reader: another version may read the same bytes into another table.
fn reader(format: Format) -> u32 {
    match format {
        Format::Csv | Format::Ndjson => 5,
        Format::Parquet | Format::Ipc => 4,
    }
}

/// Everything that decides what is read: the content of the files, in order, and the
/// options, but no names.
pub(super) fn source_key(files: &[PathBuf], digests: &[Digested], options: &ReadOptions) -> SourceKey {
    let ReadOptions { format, columns, filter, missing, types, part_rows, delimiter } = options;
    let types: Vec<(String, String)> = types.iter().map(|(name, ty)| (name.clone(), ty.to_string())).collect();
    let text = serde_json::json!([
        reader(*format),
        *format as u8,
        columns,
        filter,
        missing,
        types,
        part_rows,
        delimiter,
        files.len()
    ]);
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 source");
    hasher.update(text.to_string().as_bytes());
    for (file, (digest, _)) in files.iter().zip(digests) {
        // The name decides how a file is unpacked.
        let packed = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is = |name: &str| u8::from(packed.eq_ignore_ascii_case(name));
        hasher.update(&[is("gz") + 2 * is("zip")]);
        hasher.update(digest.as_bytes());
    }
    hasher.finalize().into()
}
