//! Opens files, those of text unpacked on the way.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::ReadError;

/// A regular file. What became something else since it was looked at, such as a pipe that nobody
/// writes to, is none, and nobody waits for it.
pub(super) fn regular(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// The bytes of a file; `.gz` and `.zip` with a single entry are unpacked.
pub(super) fn open(
    path: &Path,
    each: &mut dyn FnMut(&mut (dyn Read + Send)) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut file = regular(path).map_err(ReadError::io(path))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "gz" => each(&mut flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(256 << 10, file))),
        "zip" => {
            let zip = |error: zip::result::ZipError| {
                ReadError::content(path, None, format!("not a usable zip file: {error}"))
            };
            let mut archive = zip::ZipArchive::new(file).map_err(zip)?;
            if archive.len() != 1 {
                let message = format!("a zip file with one entry is needed, and it has {}", archive.len());
                return Err(ReadError::content(path, None, message));
            }
            each(&mut archive.by_index(0).map_err(zip)?)
        }
        _ => each(&mut file),
    }
}
