//! The trait of what finds components.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_types::{ComponentDigest, Uses};

use crate::diagnostic::{Diagnostic, Span};

/// The bytes of a component, or where they are.
pub(super) enum ComponentBytes {
    /// In the program.
    Static(&'static [u8]),
    /// In a file, whose digest is checked when it is read.
    File(PathBuf),
    /// In memory.
    Owned(Arc<[u8]>),
}

/// A component that was found.
pub(super) struct Resolved {
    /// The digest of its bytes.
    pub(super) digest: ComponentDigest,
    /// Its bytes.
    pub(super) bytes: ComponentBytes,
}

/// Why a reference gives no component: a message, and what to do.
#[derive(Debug)]
pub(super) struct ResolveError {
    /// The message without a span, with the label of the span to add.
    pub(super) diagnostic: Diagnostic,
    pub(super) label: &'static str,
}

impl ResolveError {
    /// An error about the component of a reference.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { diagnostic: Diagnostic::new(message), label: "this component" }
    }

    /// Adds the help.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.help(help);
        self
    }

    /// The error at the span of its reference.
    pub(super) fn at(self, span: &Span) -> Diagnostic {
        self.diagnostic.at(span, self.label)
    }
}

/// Finds components of one kind of reference. Each gets only references of its kind.
pub(super) trait ComponentSource {
    /// The component of a reference in a file of `folder`; builds it if necessary.
    ///
    /// # Errors
    /// When there is none.
    fn resolve(&self, uses: &Uses, folder: &Path) -> Result<Resolved, ResolveError>;

    /// The digest of the component that the reference means now; `None` if there is none, or it
    /// would have to be built.
    fn current(&self, uses: &Uses, folder: &Path) -> Option<ComponentDigest> {
        self.resolve(uses, folder).ok().map(|resolved| resolved.digest)
    }
}

/// The source of references that this version does not support.
pub(super) struct NoSource;

impl ComponentSource for NoSource {
    fn resolve(&self, uses: &Uses, _: &Path) -> Result<Resolved, ResolveError> {
        let error = ResolveError::new(format!("`{uses}`: this version has no OCI registries"));
        Err(error.help("use a file with `path:FILE.wasm`, or a folder with `folder:PATH/NAME@VERSION`"))
    }
}

/// A name that depends on the version of the step world.
pub(super) fn named(kind: &str, digest: &[u8], more: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("millrace 2026-11 component record");
    for bytes in [kind.as_bytes(), millrace_types::action_key::WORLD_VERSION.as_bytes(), digest, more] {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize()
}
