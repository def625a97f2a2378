//! Panics of readers of other crates, as errors of the file that caused them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::error::ReadError;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside `guarded`: a panic hook need not print a panic that
/// becomes an error.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs a reader, and turns a panic of it into an error: some readers panic at corrupt files.
pub(crate) fn guarded<T>(path: Option<&Path>, work: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(ReadError::content(
            path.unwrap_or(Path::new("")),
            None,
            format!("the file is corrupt: the reader panicked: {text}"),
        ))
    })
}
