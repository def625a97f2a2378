//! Files: opened without blocking, and read at an offset.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes `open` return at once: the open of a pipe without a writer would block.
pub fn never_wait(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    #[cfg(not(unix))]
    let _ = options;
}

/// Opens a regular file for reading, without blocking.
///
/// # Errors
/// When it cannot be opened, or is not a regular file: a pipe or a device, for instance.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    never_wait(&mut options);
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Reads from an offset; returns the number of bytes, 0 at the end. Threads may share the file.
///
/// # Errors
/// When the system refuses.
pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, into, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, into, offset);
}

/// Fills a buffer from an offset. Threads may share the file.
///
/// # Errors
/// `UnexpectedEof` when the file ends before; when the system refuses.
pub fn read_exact_at(file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match read_at(file, into, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                into = &mut into[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives a file the usual mode of one that a program writes, `rw-r--r--`: a temporary file is
/// private. Does nothing where files have no modes.
///
/// # Errors
/// When the system refuses.
pub fn make_shared(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
