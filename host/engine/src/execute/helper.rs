//! Threads that help with something. Where the system has no more of them, whoever asked for
//! help does it alone.

use std::thread::{Builder, Scope, ScopedJoinHandle};

/// A thread that does something, if there is one.
pub(super) fn helper<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).ok()
}

/// What came of it; none if there was no thread, or it was lost.
pub(super) fn joined<T>(helper: Option<ScopedJoinHandle<'_, T>>) -> Option<T> {
    helper?.join().ok()
}
