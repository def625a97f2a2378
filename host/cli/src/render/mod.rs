//! What people and machines see: renderers of one stream of events.

pub mod diagnostic;
pub mod json;
pub mod layout;
pub mod metrics;
pub mod plain;
pub mod steps;
pub mod terminal;
pub mod words;

use std::io::Write;

/// Writes a line to standard output; a reader that went away ends the program
/// quietly, as it ends `cat`.
pub fn out(line: &str) {
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{line}").is_err() {
        std::process::exit(i32::from(crate::exit::UNREAD));
    }
}

/// Writes a line to standard error.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
