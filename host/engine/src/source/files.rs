//! The files of a source: where it looks for them, and what it saw in them.

use std::path::{Path, PathBuf};

use millrace_store::{FileStamp, Store};
use millrace_types::SourceDigest;
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Place};
use crate::pipeline::Source;

/// Where a source looks for its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Look {
    pattern: String,
    folder: PathBuf,
}

impl Look {
    pub(crate) fn of(source: &Source) -> Self {
        Self { pattern: source.path.0.clone(), folder: source.folder.clone() }
    }

    /// The files that are there, sorted by name; a name that is no pattern is taken as it is.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, String> {
        let Self { pattern, folder } = self;
        if !pattern.contains(['*', '?', '[', '{']) {
            return Ok(vec![folder.join(pattern)]);
        }
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|error| format!("`{pattern}` is no pattern: {error}"))?.compile_matcher();
        // The part before the first special character says where to look.
        let fixed = pattern.split(['*', '?', '[', '{']).next().unwrap_or_default();
        let start = fixed.rfind('/').map_or("", |end| &fixed[..end]);
        let mut found = Vec::new();
        // A pipeline named without a folder lies in this one.
        let base = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
        let mut folders = vec![base.join(start)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.strip_prefix(base).is_ok_and(|name| glob.is_match(name)) {
                    found.push(path);
                }
            }
        }
        found.sort();
        if found.is_empty() {
            return Err(format!("no file matches `{pattern}` in `{}`", base.display()));
        }
        Ok(found)
    }
}

/// The path of a file that may not be there, without links as far as it is.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_default();
    let there = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = there else { return absolute };
    absolute.strip_prefix(above).map_or_else(|_| absolute.clone(), |rest| real.join(rest))
}

/// Whether a file is one that the pattern of a source asks for.
pub(crate) fn matches(source: &Source, path: &Path) -> bool {
    let glob = globset::GlobBuilder::new(&source.path.0).literal_separator(true).build();
    let base = resolved(if source.folder.as_os_str().is_empty() { Path::new(".") } else { &source.folder });
    resolved(path).strip_prefix(base).is_ok_and(|name| glob.is_ok_and(|glob| glob.compile_matcher().is_match(name)))
}

/// Where a source looked, and what it saw in the files that were there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(super) look: Look,
    pub(super) files: Vec<(PathBuf, SourceDigest)>,
}

impl Seen {
    /// Whether one of the files is a link.
    pub(crate) fn has_links(&self) -> bool {
        self.files.iter().any(|(file, _)| file.is_symlink())
    }

    /// The folders that the files lie in.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let here = |folder: &Path| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() };
        self.files.iter().filter_map(|(file, _)| file.parent()).map(here)
    }

    /// Whether another look sees the same.
    pub(crate) fn holds(&self, store: &Store) -> bool {
        let Ok(files) = self.look.files() else { return false };
        let same = |(file, known): (&PathBuf, &(PathBuf, SourceDigest))| {
            *file == known.0 && store.source_digest(file).is_ok_and(|digest| digest == known.1)
        };
        files.len() == self.files.len() && files.iter().zip(&self.files).all(same)
    }
}

/// A file's digest, and what a stat said of it before.
pub(super) type Digested = (SourceDigest, FileStamp);

/// The digests of files, in their order.
pub(super) fn digests(store: &Store, files: &[PathBuf], place: &Place) -> Result<Vec<Digested>, Diagnostic> {
    store.sources(files).map_err(|error| Diagnostic::new(error.to_string()).at(place, "this file"))
}

/// The first file that is not as it was.
pub(super) fn changed<'f>(store: &Store, files: &'f [PathBuf], digests: &[Digested]) -> Option<&'f PathBuf> {
    files.iter().zip(digests).find(|(file, digested)| !store.is_as_it_was(file, digested)).map(|(file, _)| file)
}
