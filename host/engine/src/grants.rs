//! Grants of a step besides its inputs: folders and variables, by digest.
//!
//! A component with WASI can read all of a folder that it is granted, so all of it is in the key of
//! its tasks: names, bytes, and the targets of links.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use millrace_store::{Store, StoreError};
use millrace_types::{BlobDigest, Grants, SourceDigest, bounds};

use crate::diagnostic::Diagnostic;
use crate::pipeline::Step;

/// Why a folder cannot be granted.
#[derive(Debug, thiserror::Error)]
enum GrantError {
    /// It is a file.
    #[error("it is not a folder; grant the folder that it is in")]
    NotAFolder,
    /// Something in it cannot be read by a step.
    #[error("`{}`: {why}", path.display())]
    Path { path: PathBuf, why: String },
    /// It has too many files.
    #[error("it has more than {} files", bounds::GRANTED_FILES)]
    TooMany,
    /// A file cannot be digested.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Grants of a step, with the digests that they had when the run began.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// The grants as the guest receives them.
    pub(crate) grants: Grants,
    /// The digests as the key has them, by name.
    pub(crate) digests: Vec<(String, BlobDigest)>,
}

impl Granted {
    /// Digests the grants of a step.
    ///
    /// # Errors
    /// When a folder is missing, or contains something that no step could read.
    pub(crate) fn find(store: &Store, step: &Step) -> Result<Self, Vec<Diagnostic>> {
        let mut found = Self::default();
        let mut errors = Vec::new();
        for (name, span) in &step.grants.env {
            // A missing variable is visible to the guest, too.
            let value = std::env::var_os(name);
            let digest = digest_of_variable(value.as_deref());
            match value.map(std::ffi::OsString::into_string) {
                Some(Ok(value)) => found.grants.env.push((name.clone(), value)),
                Some(Err(_)) => {
                    let error = Diagnostic::new(format!("the value of `{name}` is not UTF-8"));
                    errors.push(error.at(span, "granted here"));
                }
                None => {}
            }
            found.digests.push((format!("env:{name}"), digest));
        }
        for (name, span) in &step.grants.read {
            let folder = step.folder.join(name);
            match digest(store, &folder) {
                Ok(digest) => {
                    found.digests.push((format!("read:{name}"), digest));
                    found.grants.read.push((guest_name(name).to_owned(), folder));
                }
                Err(error) => {
                    let error = Diagnostic::new(format!("`{name}` cannot be granted: {error}"));
                    errors.push(error.at(span, "granted here"));
                }
            }
        }
        found.digests.sort();
        // The key does not cover the order in which the pipeline names variables.
        found.grants.env.sort();
        if errors.is_empty() { Ok(found) } else { Err(errors) }
    }

    /// The folder that has changed since its digest was taken, if any: the key of a task does not
    /// cover what the task may have read there.
    pub(crate) fn changed(&self, store: &Store) -> Option<&str> {
        let is_same = |(name, folder): &&(String, PathBuf)| {
            let known = |(known, _): &&(String, BlobDigest)| {
                known.strip_prefix("read:").is_some_and(|known| guest_name(known) == name)
            };
            let before = self.digests.iter().find(known).map(|(_, digest)| *digest);
            before.is_some() && digest(store, folder).ok() == before
        };
        self.grants.read.iter().find(|grant| !is_same(grant)).map(|(name, _)| name.as_str())
    }
}

/// The digest of the value of a variable, or of its absence.
fn digest_of_variable(value: Option<&OsStr>) -> BlobDigest {
    let bytes = value.map(OsStr::as_encoded_bytes);
    blake3::hash(&postcard::to_allocvec(&bytes).unwrap_or_default()).into()
}

/// The granted variables of a task, from the environment of this process.
///
/// # Errors
/// The name of a variable whose value does not match its digest.
pub(crate) fn variables(digests: &[(String, BlobDigest)]) -> Result<Vec<(String, String)>, &str> {
    let mut found = Vec::new();
    for (name, digest) in digests.iter().filter_map(|(name, digest)| Some((name.strip_prefix("env:")?, digest))) {
        let value = std::env::var_os(name);
        if digest_of_variable(value.as_deref()) != *digest {
            return Err(name);
        }
        found.extend(value.and_then(|value| Some((name.to_owned(), value.into_string().ok()?))));
    }
    Ok(found)
}

/// The name of a folder without the slash at its end.
fn guest_name(name: &str) -> &str {
    let trimmed = name.trim_end_matches('/');
    if trimmed.is_empty() { name } else { trimmed }
}

#[derive(serde::Serialize)]
enum FolderEntry {
    Folder,
    File(SourceDigest),
    Link(Vec<u8>),
}

/// The digest of the content of a folder.
fn digest(store: &Store, folder: &Path) -> Result<BlobDigest, GrantError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| GrantError::Path { path, why: error.to_string() }
    };
    let refuse = |path: &Path, why: &str| GrantError::Path { path: path.to_owned(), why: why.to_owned() };
    if !std::fs::metadata(folder).map_err(io(folder))?.is_dir() {
        return Err(GrantError::NotAFolder);
    }
    let mut entries = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        let path = folder.join(&inner);
        for entry in std::fs::read_dir(&path).map_err(io(&path))? {
            let entry = entry.map_err(io(&path))?;
            let (path, inner) = (entry.path(), inner.join(entry.file_name()));
            if entry.file_name().to_str().is_none() {
                // WASI has no name for it, and would leave out the whole folder.
                return Err(refuse(&path, "its name is not UTF-8"));
            }
            let kind = entry.file_type().map_err(io(&path))?;
            let found = if kind.is_dir() {
                open.push(inner.clone());
                FolderEntry::Folder
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).map_err(io(&path))?;
                FolderEntry::Link(target.as_os_str().as_encoded_bytes().to_vec())
            } else if kind.is_file() {
                FolderEntry::File(store.source_digest(&path)?)
            } else {
                return Err(refuse(&path, "it is neither a file nor a folder nor a link"));
            };
            entries.push((inner.as_os_str().as_encoded_bytes().to_vec(), found));
            if entries.len() > bounds::GRANTED_FILES {
                return Err(GrantError::TooMany);
            }
        }
    }
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let bytes = postcard::to_allocvec(&entries).unwrap_or_default();
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 granted folder");
    Ok(hasher.update(&bytes).finalize().into())
}
