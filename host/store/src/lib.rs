//! The store: immutable objects by digest, and records that name them.
//!
//! ```text
//! packs/a/HEX.arrow     columns: an Arrow IPC file each (written by millrace-tables)
//! blobs/a/HEX           opaque bytes
//! actions/a/HEX         action records, by action key
//! tables/a/HEX          the tables of a run
//! tasks/a/HEX           tasks that another process can run, by action key
//! gathered/a/HEX        the stored chunk of a gathered column
//! sources/a/HEX         the tables that sources were read into
//! manifests/ plans/     the answers of components
//! memo/a/HEX            digest of a source file by path, size, mtime and inode
//! compiled/ENGINE/      compiled code
//! runs/ID               history
//! index/a/HEX           copies of the records of a pipeline's last run
//! traces/a/HEX          everything that a pipeline's last run read, and its results
//! claims/               locks of tasks that are being computed
//! tmp/a/                files that are being written, by thread
//! ```
//!
//! Everything is written to `tmp/` and renamed into place, and a record only after the
//! objects that it refers to: when a process dies, the store is valid and merely holds less.
//! Files are not flushed one by one: after a loss of power a record or an object may be
//! truncated. Its checksum or size reveals that, and it counts as absent.

mod backend;
mod bundle;
mod claim;
mod error;
mod files;
#[cfg(test)]
mod fixtures;
mod folder;
mod hash_file;
mod index;
mod objects;
mod records;
mod remote;
mod source;
mod store;
mod table_file;
mod tables;

pub use backend::{Backend, Created, Presence};
pub use claim::Claim;
pub use error::{OpenError, Result, StoreError};
pub use folder::{Folder, NewFile};
pub use objects::ObjectName;
pub use remote::{Traffic, VerifyPack};
pub use source::{FileMemo, FileStamp};
pub use store::Store;
pub use table_file::TableFile;
