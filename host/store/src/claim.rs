//! Claims: one process computes a key while the others wait for it.
//!
//! A claim is a lock on one of a fixed number of files, chosen by the key. A file
//! for each key would have to be made and removed for each task, and file systems
//! are slow at just that (ext4 looks for an inode that was not freed lately). Two keys that share a file wait for each
//! other, which is rare and costs time only: whoever holds one claim never waits
//! for another.

use std::fs::{File, TryLockError};
use std::time::Duration;

use millrace_types::ActionKey;

use crate::{Result, Store, StoreError};

/// Files that claims are spread over.
const STRIPES: u16 = 1024;

/// How often whoever waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The right to compute a key. The lock goes with the process, however it ends:
/// whoever waits takes over.
pub struct Claim {
    file: File,
}

impl Store {
    /// Waits until nobody else computes this key, or until `gives_up` says so. Afterwards
    /// look for the record again: the other may have made it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn claim(&self, key: &ActionKey, gives_up: &dyn Fn() -> bool) -> Result<Option<Claim>> {
        let [low, high, ..] = *key.as_bytes();
        let stripe = u16::from_le_bytes([low, high]) % STRIPES;
        let path = self.root.join("claims").join(format!("{stripe:03x}"));
        let fail = |source| StoreError::new("lock", &path, source);
        let open = || File::options().create(true).truncate(false).write(true).open(&path);
        let file = match open() {
            Ok(file) => file,
            // Somebody may hold the lock that cannot be opened now.
            Err(error) if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file()) => return Err(fail(error)),
            // Something took its place, or its folder was lost.
            Err(_) => {
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
                self.make_folders()?;
                open().map_err(fail)?
            }
        };
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Claim { file })),
                Err(TryLockError::WouldBlock) if gives_up() => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}
