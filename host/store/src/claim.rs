//! Claims: one process computes a key while the others wait for it.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use millrace_types::ActionKey;

use crate::{Result, Store, StoreError};

/// The right to compute a key. The lock goes with the process, however it ends:
/// whoever waits takes over.
pub struct Claim {
    path: PathBuf,
    file: File,
}

impl Store {
    /// Waits until nobody else computes this key. Afterwards look for the
    /// record again: the other may have made it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn claim(&self, key: &ActionKey) -> Result<Claim> {
        let path = self.root.join("claims").join(key.hex());
        let fail = |source| StoreError::new("lock", &path, source);
        loop {
            let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => file.lock().map_err(fail)?,
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
            // The one before us removes the name; then our lock is on a file that
            // nobody else will find.
            if same_file(&file, &path) {
                return Ok(Claim { path, file });
            }
        }
    }
}

#[cfg(unix)]
fn same_file(file: &File, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(named)) => ours.ino() == named.ino() && ours.dev() == named.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_file(_: &File, path: &std::path::Path) -> bool {
    path.exists()
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}
