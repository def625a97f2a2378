//! Regular files: opened without blocking, read completely, or mapped.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use millrace_platform::open_regular;

use crate::error::{Result, StoreError};

/// The first `max` bytes of a regular file. A pipe or a device is an error.
pub(crate) fn read_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let file = open_regular(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(size.min(max) as usize);
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether there is a regular file of this size. A symbolic link does not count.
pub(crate) fn is_file_of(path: &Path, size: u64) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

/// The bytes of a file of at most `max` bytes, mapped.
pub(crate) fn map_all(path: &Path, max: u64) -> io::Result<Bytes> {
    let file = open_regular(path)?;
    match file.metadata()?.len() {
        0 => Ok(Bytes::new()),
        size if size > max => Err(io::Error::other("it is too large")),
        _ => Ok(Bytes::from_owner(map_immutable(&file)?)),
    }
}

/// The bytes of a file of exactly `size` bytes, mapped.
pub(crate) fn map(path: &Path, size: u64) -> Result<Bytes> {
    let read = |source| StoreError::new("read", path, source);
    let file = open_regular(path).map_err(read)?;
    let found = file.metadata().map_err(read)?.len();
    if found != size {
        let message = format!("it has {found} bytes instead of {size}");
        return Err(read(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    if size == 0 {
        return Ok(Bytes::new());
    }
    Ok(Bytes::from_owner(map_immutable(&file).map_err(read)?))
}

#[expect(unsafe_code, reason = "mapping a file is what makes reading it free; the one place that does it")]
fn map_immutable(file: &File) -> io::Result<memmap2::Mmap> {
    // SAFETY: the mapped bytes must not change. Objects, tables, indices and traces are
    // renamed into place when they are complete and never written again: a new version is
    // another file, and replacing or removing one leaves the mapping intact. Only a user who
    // edits files inside the store while a run reads them can break this.
    unsafe { memmap2::Mmap::map(file) }
}
