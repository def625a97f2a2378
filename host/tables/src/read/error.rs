//! Why a source cannot be read, with the file, line and column.

use std::path::{Path, PathBuf};

use crate::column::ColumnError;

/// An error of the sink that receives the parts.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// A source that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An error of the system.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// The content of the file is not valid.
    #[error("{}: {message}", position(path, *line))]
    Content {
        /// The file.
        path: PathBuf,
        /// Counted from 1, where there are lines.
        line: Option<u64>,
        /// What is wrong.
        message: String,
    },
    /// A value is not of the type given for its column.
    #[error("{}: column `{name}`: `{text}` is not {wanted}, the type given for it", position(path, *line))]
    Type {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: Option<u64>,
        /// The column.
        name: String,
        /// The value.
        text: String,
        /// The type.
        wanted: String,
    },
    /// A column that the pipeline names does not exist.
    #[error("`{}` has no column `{name}`", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        name: String,
        /// The columns that exist.
        candidates: Vec<String>,
    },
    /// The row filter does not fit the columns.
    #[error("`where` does not fit `{}`: {error}", path.display())]
    Filter {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the expression.
        error: millrace_expr::ExprError,
    },
    /// The sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

fn position(path: &Path, line: Option<u64>) -> String {
    match line {
        Some(line) => format!("`{}`, line {line}", path.display()),
        None => format!("`{}`", path.display()),
    }
}

impl ReadError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn content(path: &Path, line: Option<u64>, message: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), line, message: message.into() }
    }

    pub(crate) fn column(path: &Path, name: &str, error: &ColumnError) -> Self {
        Self::content(path, None, format!("column `{name}`: {error}"))
    }
}
