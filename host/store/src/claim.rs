//! Claims: one process computes a key while the others wait for it.
//!
//! A claim is a lock on one byte of one file, at an offset that follows from the key: no file is
//! created or removed for a task, which is slow in many file systems. Where the system has no such
//! locks, it is a lock on one of a fixed number of files. Keys that share a file wait for each
//! other, which costs time only: a thread that holds a claim never waits for another.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use millrace_types::ActionKey;

pub(crate) use self::system::Claims;
use crate::error::{Result, StoreError};
use crate::folder::Folder;
use millrace_platform::never_wait;

/// How often a waiting thread tries again.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The right to compute a key. The system releases the lock when the process ends, however
/// it ends, and a waiting process takes over.
pub struct Claim {
    lock: system::Lock,
}

impl Claims {
    /// Waits until no other process computes this key; `None` if `gives_up` returns true
    /// first. Afterwards the caller looks for the record again: the other process may have
    /// written it. Within one process the caller claims each key once.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn claim(&self, folder: &Folder, key: &ActionKey, gives_up: &dyn Fn() -> bool) -> Result<Option<Claim>> {
        let lock = system::Lock::of(self, folder, key)?;
        loop {
            match lock.try_lock() {
                Ok(true) => return Ok(Some(Claim { lock })),
                Ok(false) if gives_up() => return Ok(None),
                Ok(false) => std::thread::sleep(POLL_INTERVAL),
                Err(source) => return Err(StoreError::new("lock", &folder.root().join("claims"), source)),
            }
        }
    }
}

/// Opens a file to lock.
fn open_claims(folder: &Folder, path: &Path) -> Result<File> {
    let open = || {
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        // For a pipe without a reader, whose open would block.
        never_wait(&mut options);
        let file = options.open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    };
    let fail = |source| StoreError::new("lock", path, source);
    match open() {
        Ok(file) => Ok(file),
        // Another process may hold the lock in a file that cannot be opened now.
        Err(error) if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) => Err(fail(error)),
        // Something else has its name, or its folder is missing.
        Err(_) => {
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
            folder.make_folders()?;
            open().map_err(fail)
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.lock.unlock();
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::sync::{Arc, OnceLock};

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use super::{ActionKey, File, Folder, Result, io, open_claims};

    /// The file with a byte for each key, once it is open.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Claims(Arc<OnceLock<File>>);

    /// The byte of a key in the file that a store has open.
    pub(super) struct Lock {
        file: Arc<OnceLock<File>>,
        byte: i64,
    }

    impl Lock {
        pub(super) fn of(claims: &Claims, folder: &Folder, key: &ActionKey) -> Result<Self> {
            let Claims(file) = claims;
            if file.get().is_none() {
                // Another thread may be first.
                let _ = file.set(open_claims(folder, &folder.root().join("claims").join("keys"))?);
            }
            let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
            // At most half of the largest offset: a lock covers the byte after it, too.
            let byte = i64::from_le_bytes([a, b, c, d, e, f, g, h & 0x3f]);
            Ok(Self { file: file.clone(), byte })
        }

        fn set(&self, lock_type: libc::c_int) -> nix::Result<()> {
            let lock = libc::flock {
                l_type: lock_type as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: self.byte,
                l_len: 1,
                l_pid: 0,
            };
            let file = self.file.get().ok_or(Errno::EBADF)?;
            fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(|_| ())
        }

        pub(super) fn try_lock(&self) -> io::Result<bool> {
            match self.set(libc::F_WRLCK) {
                Ok(()) => Ok(true),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        pub(super) fn unlock(&self) {
            let _ = self.set(libc::F_UNLCK);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::TryLockError;

    use super::{ActionKey, File, Folder, Result, io, open_claims};

    /// Each claim opens its own file.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Claims;

    /// The number of files that claims are spread over.
    const STRIPES: u16 = 1024;

    /// The file of a key.
    pub(super) struct Lock(File);

    impl Lock {
        pub(super) fn of(_: &Claims, folder: &Folder, key: &ActionKey) -> Result<Self> {
            let [low, high, ..] = *key.as_bytes();
            let stripe = u16::from_le_bytes([low, high]) % STRIPES;
            open_claims(folder, &folder.root().join("claims").join(format!("{stripe:03x}"))).map(Self)
        }

        pub(super) fn try_lock(&self) -> io::Result<bool> {
            match self.0.try_lock() {
                Ok(()) => Ok(true),
                Err(TryLockError::WouldBlock) => Ok(false),
                Err(TryLockError::Error(error)) => Err(error),
            }
        }

        pub(super) fn unlock(&self) {
            let _ = self.0.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn a_key_is_claimed_once_and_other_keys_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        // Two open stores behave as two processes do.
        let [first, second] = [(); 2].map(|()| Store::open(folder.path()).unwrap());
        let key = |byte| ActionKey::from_bytes([byte; 32]);
        let give_up = || true;
        let held = first.claim(&key(1), &give_up).unwrap().unwrap();
        let beside = first.claim(&key(255), &give_up).unwrap().unwrap();
        assert!(second.claim(&key(1), &give_up).unwrap().is_none());
        assert!(second.claim(&key(255), &give_up).unwrap().is_none());
        assert!(second.claim(&key(2), &give_up).unwrap().is_some());
        drop(beside);
        assert!(second.claim(&key(1), &give_up).unwrap().is_none());
        drop(held);
        let taken_over = second.claim(&key(1), &give_up).unwrap();
        assert!(taken_over.is_some());
        assert!(first.claim(&key(1), &give_up).unwrap().is_none());
        drop(second);
        drop(taken_over);
        assert!(first.claim(&key(1), &give_up).unwrap().is_some());
    }

    #[test]
    fn a_waiting_process_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [(); 2].map(|()| Store::open(folder.path()).unwrap());
        let key = ActionKey::from_bytes([7; 32]);
        let held = first.claim(&key, &|| true).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| second.claim(&key, &|| false).unwrap().is_some());
            std::thread::sleep(POLL_INTERVAL * 3);
            assert!(!waits.is_finished());
            drop(held);
            assert!(waits.join().unwrap());
        });
    }
}
