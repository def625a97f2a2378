//! Whether a file is the same as before.

use std::fs::Metadata;

/// What a file has besides size and time of modification, and no program can set.
///
/// Systems other than Unix have none of it here: there, a file with the same size and time of
/// modification counts as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// The number of its inode.
    pub inode: u64,
    /// The number of its device.
    pub device: u64,
    /// When its inode last changed, in nanoseconds since 1970.
    pub changed_ns: i128,
}

impl Identity {
    /// The identity of a file.
    pub fn new(meta: &Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let changed_ns = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
            Self { inode: meta.ino(), device: meta.dev(), changed_ns }
        }
        #[cfg(not(unix))]
        {
            let _ = meta;
            Self::default()
        }
    }
}
