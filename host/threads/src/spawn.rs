//! A scoped thread that may not be available.

use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Starts a thread for `work`; `None` where the system has no more threads.
pub fn spawn_helper<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).ok()
}

/// The result of a helper; `None` if it was never started, or panicked.
pub fn join<T>(helper: Option<ScopedJoinHandle<'_, T>>) -> Option<T> {
    helper?.join().ok()
}
