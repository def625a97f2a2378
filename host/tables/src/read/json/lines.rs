//! The lines of a block: their text, their numbers, and what is wrong with them.

use std::path::Path;

use serde_json::Value;

use super::lexer::Lexer;
use crate::read::error::ReadError;
use crate::read::text::split::Block;

/// The bytes of a block, without the byte order mark that some programs write at the beginning
/// of a file.
pub(super) fn unmarked(block: &Block) -> &[u8] {
    let lines = block.bytes.as_slice();
    if block.number == 0 { lines.strip_prefix(b"\xef\xbb\xbf").unwrap_or(lines) } else { lines }
}

/// The lines of a block; if one is not UTF-8, the lines before it, and the error.
pub(super) fn utf8<'b>(path: &Path, block: &'b Block) -> (&'b [u8], Option<ReadError>) {
    let lines = unmarked(block);
    match std::str::from_utf8(lines) {
        Ok(_) => (lines, None),
        Err(error) => {
            let good = memchr::memrchr(b'\n', &lines[..error.valid_up_to()]).map_or(0, |end| end + 1);
            let (number, _) = line_at(block, lines, good);
            let message = "it is not UTF-8; convert the file, for instance with iconv";
            (&lines[..good], Some(ReadError::content(path, Some(number), message)))
        }
    }
}

/// The line at an offset: its number and its content. The end of a line belongs to the line.
pub(super) fn line_at<'b>(block: &Block, lines: &'b [u8], at: usize) -> (u64, &'b [u8]) {
    let at = at.min(lines.len());
    let before = &lines[..at];
    let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let end = memchr::memchr(b'\n', &lines[at..]).map_or(lines.len(), |end| at + end);
    (block.line + memchr::memchr_iter(b'\n', before).count() as u64, &lines[start..end])
}

#[cold]
pub(super) fn not_json(path: &Path, block: &Block, lines: &[u8], at: usize) -> ReadError {
    let (number, line) = line_at(block, lines, at);
    let message = match serde_json::from_slice::<Value>(line) {
        Ok(_) => "it is not an object".to_owned(),
        Err(error) => {
            let message = error.to_string();
            let what = message.split(" at line").next().unwrap_or_default();
            format!("not JSON at column {}: {what}", error.column())
        }
    };
    ReadError::content(path, Some(number), message)
}

/// A value as it is written: parsing it would lose digits.
pub(super) fn written(line: &[u8], name: &str) -> Option<String> {
    let mut lexer = Lexer::new(line);
    lexer.object().ok()?;
    let mut written = None;
    while let Ok(Some(member)) = lexer.member() {
        if *member.name == *name.as_bytes() {
            written = Some(String::from_utf8_lossy(member.written).chars().take(60).collect());
        }
    }
    written
}
