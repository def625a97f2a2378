//! Opens files, and decompresses text files.

use std::io::{self, Read};
use std::path::Path;

use millrace_platform::open_regular;

use super::error::ReadError;

/// Passes the bytes of a file to `each`; `.gz`, and `.zip` with a single entry, are
/// decompressed.
pub(super) fn open(
    path: &Path,
    each: &mut dyn FnMut(&mut (dyn Read + Send)) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut file = open_regular(path).map_err(ReadError::io(path))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "gz" => each(&mut flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(256 << 10, file))),
        "zip" => {
            let zip = |error: zip::result::ZipError| {
                ReadError::content(path, None, format!("not a usable zip file: {error}"))
            };
            let mut archive = zip::ZipArchive::new(file).map_err(zip)?;
            if archive.len() != 1 {
                let message = format!("a zip file must have one entry, and it has {}", archive.len());
                return Err(ReadError::content(path, None, message));
            }
            each(&mut archive.by_index(0).map_err(zip)?)
        }
        _ => each(&mut file),
    }
}
