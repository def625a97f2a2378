//! The files of a source: the pattern that finds them, and their digests.

use std::path::{Path, PathBuf};

use millrace_store::{FileStamp, Store};
use millrace_types::SourceDigest;
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Span};
use crate::pipeline::Source;

/// Why a pattern yields no files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatternError {
    /// It is not a valid pattern.
    #[error("`{pattern}` is not a valid pattern: {error}")]
    Invalid {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        error: String,
    },
    /// No file matches it.
    #[error("no file matches `{pattern}` in `{}`", folder.display())]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Where the search started.
        folder: PathBuf,
    },
}

/// The pattern that finds the files of a source, and its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pattern {
    pattern: String,
    folder: PathBuf,
}

impl Pattern {
    /// The pattern of a source.
    pub(crate) fn of(source: &Source) -> Self {
        Self { pattern: source.path.0.clone(), folder: source.folder.clone() }
    }

    /// The files that match, sorted by name. A path without special characters matches itself.
    ///
    /// # Errors
    /// When the pattern is not valid, or no file matches.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>, PatternError> {
        let Self { pattern, folder } = self;
        if !pattern.contains(['*', '?', '[', '{']) {
            return Ok(vec![folder.join(pattern)]);
        }
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob
            .map_err(|error| PatternError::Invalid { pattern: pattern.clone(), error: error.to_string() })?
            .compile_matcher();
        // The search starts in the folder before the first special character.
        let fixed = pattern.split(['*', '?', '[', '{']).next().unwrap_or_default();
        let start = fixed.rfind('/').map_or("", |end| &fixed[..end]);
        let mut found = Vec::new();
        // A pipeline path without a folder is in the current one.
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
            return Err(PatternError::NoMatch { pattern: pattern.clone(), folder: base.to_owned() });
        }
        Ok(found)
    }
}

/// The absolute path of a file that may not exist, with links resolved as far as it exists.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_default();
    let existing = absolute.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = existing else { return absolute };
    absolute.strip_prefix(above).map_or_else(|_| absolute.clone(), |rest| real.join(rest))
}

/// Whether a file would match the pattern of a source.
pub(crate) fn matches(source: &Source, path: &Path) -> bool {
    let glob = globset::GlobBuilder::new(&source.path.0).literal_separator(true).build();
    let base = resolved(if source.folder.as_os_str().is_empty() { Path::new(".") } else { &source.folder });
    resolved(path).strip_prefix(base).is_ok_and(|name| glob.is_ok_and(|glob| glob.compile_matcher().is_match(name)))
}

/// The pattern of a source, and the files that it matched, with their digests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Inputs {
    pub(super) pattern: Pattern,
    pub(super) files: Vec<(PathBuf, SourceDigest)>,
}

impl Inputs {
    /// Whether one of the files is a symbolic link.
    pub(crate) fn has_links(&self) -> bool {
        self.files.iter().any(|(file, _)| file.is_symlink())
    }

    /// The folders of the files.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let here = |folder: &Path| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() };
        self.files.iter().filter_map(|(file, _)| file.parent()).map(here)
    }

    /// Whether the pattern still matches the same files with the same content.
    pub(crate) fn is_unchanged(&self, store: &Store) -> bool {
        let Ok(files) = self.pattern.files() else { return false };
        let same = |(file, known): (&PathBuf, &(PathBuf, SourceDigest))| {
            *file == known.0 && store.source_digest(file).is_ok_and(|digest| digest == known.1)
        };
        files.len() == self.files.len() && files.iter().zip(&self.files).all(same)
    }
}

/// A file's digest, and its stamp from before it was read.
pub(super) type Digested = (SourceDigest, FileStamp);

/// The digests of files, in their order.
pub(super) fn digests(store: &Store, files: &[PathBuf], span: &Span) -> Result<Vec<Digested>, Diagnostic> {
    store.sources(files).map_err(|error| Diagnostic::new(error.to_string()).at(span, "this file"))
}

/// The first file that has changed.
pub(super) fn changed<'f>(store: &Store, files: &'f [PathBuf], digests: &[Digested]) -> Option<&'f PathBuf> {
    files.iter().zip(digests).find(|(file, digested)| !store.is_unchanged(file, digested)).map(|(file, _)| file)
}
