//! Claims: one process computes a key while the others wait for it.
//!
//! A claim is a lock on one byte of one file, far beyond its end, at a place that the key
//! says: there is nothing to make and nothing to remove for each task, and file systems
//! are slow at just that. Where the system has no such locks, it is a lock on one of a
//! fixed number of files: keys that share one wait for each other, which costs time only,
//! as whoever holds one claim never waits for another.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use millrace_types::ActionKey;

pub(crate) use self::system::Claims;
use crate::{Result, Store, StoreError};

/// How often whoever waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The right to compute a key. The lock goes with the process, however it ends:
/// whoever waits takes over.
pub struct Claim {
    lock: system::Lock,
}

impl Store {
    /// Waits until nobody else computes this key, or until `gives_up` says so. Afterwards
    /// look for the record again: the other may have made it. Processes keep out of each
    /// other's way; within one it is for the caller to ask once for each key.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn claim(&self, key: &ActionKey, gives_up: &dyn Fn() -> bool) -> Result<Option<Claim>> {
        let lock = system::Lock::of(self, key)?;
        loop {
            match lock.try_lock() {
                Ok(true) => return Ok(Some(Claim { lock })),
                Ok(false) if gives_up() => return Ok(None),
                Ok(false) => std::thread::sleep(LOOK_AGAIN),
                Err(source) => return Err(StoreError::new("lock", &self.root.join("claims"), source)),
            }
        }
    }

    /// A file to lock.
    fn open_claims(&self, path: &Path) -> Result<File> {
        let open = || {
            let mut options = File::options();
            options.create(true).truncate(false).write(true);
            // Of a pipe that nobody reads.
            crate::never_wait(&mut options);
            let file = options.open(path)?;
            if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
        };
        let fail = |source| StoreError::new("lock", path, source);
        match open() {
            Ok(file) => Ok(file),
            // Somebody may hold the lock that cannot be opened now.
            Err(error) if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) => Err(fail(error)),
            // Something took its place, or its folder was lost.
            Err(_) => {
                let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
                self.make_folders()?;
                open().map_err(fail)
            }
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

    use super::{ActionKey, File, Result, Store, io};

    /// The file with a byte for each key, when it was opened.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Claims(Arc<OnceLock<File>>);

    /// The byte of a key in the file that a store has open.
    pub(super) struct Lock {
        file: Arc<OnceLock<File>>,
        byte: i64,
    }

    impl Lock {
        pub(super) fn of(store: &Store, key: &ActionKey) -> Result<Self> {
            let Claims(file) = &store.claims;
            if file.get().is_none() {
                // Another thread may be first.
                let _ = file.set(store.open_claims(&store.root.join("claims").join("keys"))?);
            }
            let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
            // Up to half of what a position can be: behind a byte there is another.
            let byte = i64::from_le_bytes([a, b, c, d, e, f, g, h & 0x3f]);
            Ok(Self { file: file.clone(), byte })
        }

        fn ask(&self, what: libc::c_int) -> nix::Result<()> {
            let lock = libc::flock {
                l_type: what as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: self.byte,
                l_len: 1,
                l_pid: 0,
            };
            let file = self.file.get().ok_or(Errno::EBADF)?;
            fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(|_| ())
        }

        pub(super) fn try_lock(&self) -> io::Result<bool> {
            match self.ask(libc::F_WRLCK) {
                Ok(()) => Ok(true),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        pub(super) fn unlock(&self) {
            let _ = self.ask(libc::F_UNLCK);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::TryLockError;

    use super::{ActionKey, File, Result, Store, io};

    /// Each claim opens its own file.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Claims;

    /// Files that claims are spread over.
    const STRIPES: u16 = 1024;

    /// The file of a key.
    pub(super) struct Lock(File);

    impl Lock {
        pub(super) fn of(store: &Store, key: &ActionKey) -> Result<Self> {
            let Claims = store.claims;
            let [low, high, ..] = *key.as_bytes();
            let stripe = u16::from_le_bytes([low, high]) % STRIPES;
            store.open_claims(&store.root.join("claims").join(format!("{stripe:03x}"))).map(Self)
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

    #[test]
    fn a_key_is_claimed_once_and_other_keys_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        // Two stores that were opened are as good as two processes.
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
    fn whoever_waits_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = [(); 2].map(|()| Store::open(folder.path()).unwrap());
        let key = ActionKey::from_bytes([7; 32]);
        let held = first.claim(&key, &|| true).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| second.claim(&key, &|| false).unwrap().is_some());
            std::thread::sleep(LOOK_AGAIN * 3);
            assert!(!waits.is_finished());
            drop(held);
            assert!(waits.join().unwrap());
        });
    }
}
