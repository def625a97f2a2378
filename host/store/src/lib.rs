//! The store: immutable objects by digest, and records that name them.
//!
//! ```text
//! packs/a/HEX.arrow     columns: an Arrow IPC file each (written by millrace-tables)
//! blobs/a/HEX           opaque bytes
//! actions/a/HEX         action records, by action key
//! tables/a/HEX          the tables that a run made
//! gathered/a/HEX        where the bytes of a gathered column lie
//! sources/a/HEX         what a source was read into
//! manifests/ plans/     what components said
//! memo/a/HEX            digest of a source file by path, size, mtime and inode
//! compiled/ENGINE/      compiled code
//! runs/ID               history
//! index/a/HEX           copies of the records of a pipeline's last run
//! traces/a/HEX          what a pipeline's last run looked at, and what came of it
//! claims/               locks of tasks that are being computed
//! tmp/a/                files that are being written, by thread
//! ```
//!
//! Everything is written to `tmp/` and renamed into place, and a record only
//! after the objects that it names: whenever a process dies, what is left is
//! valid and merely holds less. Files are not flushed to disk one by one: after
//! a loss of power a record or an object may be cut, which its checksum or size
//! shows, and it then counts as absent.

mod bundle;
mod claim;
mod hash_file;
mod index;
mod object;
mod record;
mod source;
mod tables;

use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use claim::Claim;
pub use object::{NewFile, ObjectName};
pub use source::FileStamp;
pub use tables::TableFile;

/// A file of the store that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", path.display())]
pub struct StoreError {
    /// `read`, `write`, …
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl StoreError {
    /// An error of the system at a path.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

/// What the store's functions return.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A store in a folder. Cheap to clone, usable from all threads, and shared by
/// as many processes as there are.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    index: Option<Arc<index::Index>>,
    claims: claim::Claims,
    threads: Option<NonZero<usize>>,
    stop: Arc<AtomicBool>,
}

/// What a folder that is already there is refused for.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] StoreError),
    /// The folder has files, and they are not a store's.
    #[error("`{}` is not empty and not a Millrace store", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// A store of another version.
    #[error("the store `{}` is `{found}`, and this host knows `{LAYOUT}`: name another with `--store`, or remove it; if its file LAYOUT was harmed, remove that", path.display())]
    Layout {
        /// The folder.
        path: PathBuf,
        /// What it says.
        found: String,
    },
}

/// The folders above.
const FOLDERS: [&str; 16] = [
    "tmp",
    "claims",
    "packs",
    "blobs",
    "actions",
    "tables",
    "gathered",
    "sources",
    "manifests",
    "plans",
    "plugins",
    "memo",
    "compiled",
    "index",
    "traces",
    "runs",
];

/// Version of the folder layout above. Sixteen folders each, by the first digit: to make
/// one costs as much as a record, and file systems find names among many.
const LAYOUT: &str = "millrace-store 2";

/// Whether this is the mark of a store, of whichever version.
fn is_layout(found: &str) -> bool {
    let version = found.trim().strip_prefix("millrace-store ");
    version.is_some_and(|version| version.len() < 10 && version.parse::<u32>().is_ok())
}

/// The bytes of a regular file of at most so many. Of something else, such as a pipe that
/// nobody writes to, there are none, and nobody waits.
pub(crate) fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let file = open_file(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(size.min(most) as usize);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whatever is opened so opens at once, or never.
pub(crate) fn never_wait(options: &mut std::fs::OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
}

/// A regular file, for reading.
pub(crate) fn open_file(path: &Path) -> io::Result<std::fs::File> {
    let mut options = std::fs::File::options();
    options.read(true);
    never_wait(&mut options);
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

impl Store {
    /// Opens the store in a folder, and makes it when there is none.
    ///
    /// # Errors
    /// When the folder belongs to something else or cannot be written.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let marker = root.join("LAYOUT");
        let store = Self {
            root: root.to_owned(),
            index: None,
            claims: claim::Claims::default(),
            threads: None,
            stop: Arc::default(),
        };
        let found = read_file(&marker, 1 << 10);
        let had_mark = !matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound);
        match found.as_deref().map(std::str::from_utf8) {
            Ok(Ok(found)) if found.trim() == LAYOUT => {
                // Empty folders are easily lost when a store is copied.
                store.make_folders()?;
                return Ok(store);
            }
            Ok(Ok(found)) if is_layout(found) => {
                return Err(OpenError::Layout { path: root.to_owned(), found: found.trim().to_owned() });
            }
            // Not there, or harmed.
            _ => {}
        }
        std::fs::create_dir_all(root).map_err(|e| StoreError::new("create", root, e))?;
        // Two processes may both be the first, and the mark may have been lost: folders of
        // a store are no stranger's, and what is in them is never believed unseen.
        let was_store = ["tmp", "claims"].iter().all(|folder| root.join(folder).is_dir());
        let ours = |name: &std::ffi::OsStr| {
            let is_folder = |folders: &[&str]| folders.iter().any(|folder| name == *folder);
            // In a folder that was none, a file of this name is somebody else's.
            (name == "LAYOUT" && (was_store || !had_mark))
                || is_folder(&["tmp", "claims"])
                || (was_store && is_folder(&FOLDERS))
        };
        let strangers = std::fs::read_dir(root)
            .map_err(|e| StoreError::new("read", root, e))?
            .filter_map(io::Result::ok)
            .any(|entry| !ours(&entry.file_name()));
        if strangers {
            return Err(OpenError::NotAStore { path: root.to_owned() });
        }
        store.make_folders()?;
        store.write_file(&marker, LAYOUT.as_bytes())?;
        Ok(store)
    }

    /// This store, for somebody who uses so many threads, one at least, and stops what takes
    /// long when `stop` is set.
    #[must_use]
    pub fn used_by(self, threads: usize, stop: Arc<AtomicBool>) -> Self {
        Self { threads: NonZero::new(threads.max(1)), stop, ..self }
    }

    /// Whether whoever uses it wishes to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Threads that may read and digest at once: all that this machine runs at a time, if
    /// nobody said how many.
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where compiled code of an engine with this fingerprint lies.
    pub fn compiled_path(&self, fingerprint: &str, component: &millrace_types::ComponentDigest) -> PathBuf {
        self.root.join("compiled").join(fingerprint).join(component.hex())
    }

    /// The folder of the history.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    fn make_folders(&self) -> Result<()> {
        for folder in ["tmp", "claims"].map(|name| self.root.join(name)) {
            std::fs::create_dir_all(&folder).map_err(|e| StoreError::new("create", &folder, e))?;
        }
        Ok(())
    }

    fn sharded(&self, folder: &str, hex: &str) -> PathBuf {
        let mut path = self.root.join(folder);
        path.push(&hex[..1]);
        path.push(hex);
        path
    }
}
