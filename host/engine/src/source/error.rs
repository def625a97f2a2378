//! Why a source cannot be read, and how that is reported to the user.

use std::path::PathBuf;

use millrace_store::StoreError;
use millrace_tables::read::ReadError;

use crate::diagnostic::{Diagnostic, Span, narrow};
use crate::pipeline::Source;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file changed while it was read.
    #[error("`{}` changed while it was read: run again", .0.display())]
    Changed(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Columns that no step reads can no longer be decoded.
    #[error("no step reads {columns}, and {why}: run the pipeline again")]
    Gone {
        /// The columns, in words.
        columns: String,
        /// The reason.
        why: String,
    },
    /// Columns that no step reads cannot be decoded.
    #[error("{columns}: {error}")]
    Columns {
        /// The columns, in words.
        columns: String,
        /// The reason.
        error: ReadError,
    },
}

impl SourceError {
    /// The error, with the span in the pipeline file that it is about.
    pub(super) fn explain(self, source: &Source) -> Vec<Diagnostic> {
        vec![match self {
            Self::Read(error) => explain(source, error),
            Self::Changed(_) => Diagnostic::new(self.to_string()).at(&source.path.1, "this file"),
            Self::Store(_) | Self::Gone { .. } | Self::Columns { .. } => Diagnostic::new(self.to_string()),
        }]
    }
}

fn explain(source: &Source, error: ReadError) -> Diagnostic {
    let message = format!("the source `{}` cannot be read: {error}", source.name);
    let error_at = |span: &Span, label: &str| Diagnostic::new(message.clone()).at(span, label);
    match error {
        ReadError::NoColumn { name, candidates, .. } => {
            let in_columns = source.columns.iter().flatten().find(|(known, _)| *known == name).map(|(_, span)| span);
            let span = in_columns.or_else(|| source.types.get(&name).map(|(_, span)| span)).unwrap_or(&source.span);
            error_at(span, "no such column").suggest(&name, candidates.iter().map(String::as_str))
        }
        ReadError::Type { name, .. } => {
            error_at(source.types.get(&name).map_or(&source.path.1, |(_, span)| span), "the type given")
        }
        ReadError::Filter { error, .. } => {
            let span = source.filter.as_ref().map_or(&source.span, |(_, span)| span);
            let narrowed = narrow(span, error.span);
            let diagnostic = error_at(&narrowed, "here");
            match &error.missing {
                Some(missing) => diagnostic.suggest(missing, error.candidates.iter().map(String::as_str)),
                None => diagnostic,
            }
        }
        ReadError::Io { .. } | ReadError::Content { .. } | ReadError::Sink(_) => error_at(&source.path.1, "this file"),
    }
}
