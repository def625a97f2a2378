//! Why a step cannot be used, or could not do its work.

use std::fmt;

/// What a step's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A problem with a use of the step (in `plan`), or with the data (in a run).
///
/// Anything that is an error becomes one by `?`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Error {
    /// What went wrong, without a full stop.
    pub message: String,
    /// The param it is about, as a path: `columns.ratio`.
    pub param: Option<String>,
    /// The name that was not found.
    pub missing: Option<String>,
    /// The names there are.
    pub candidates: Vec<String>,
    /// Where in the param's text, in bytes.
    pub span: Option<(u32, u32)>,
    /// The column whose data it is about.
    pub column: Option<String>,
    /// The row it is about, counted from 0 in the part.
    pub row: Option<u64>,
}

impl Error {
    /// An error with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Says which param it is about.
    #[must_use]
    pub fn in_param(mut self, path: impl Into<String>) -> Self {
        self.param = Some(path.into());
        self
    }

    /// Says which column it is about.
    #[must_use]
    pub fn in_column(mut self, column: impl Into<String>) -> Self {
        self.column = Some(column.into());
        self
    }

    /// Says which row it is about, counted from 0 in the part.
    #[must_use]
    pub fn at_row(mut self, row: usize) -> Self {
        self.row = Some(row as u64);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// An expression's error, with its place in the param that holds it.
pub(crate) fn from_expr(error: millrace_expr::ExprError) -> Error {
    Error {
        message: error.message,
        missing: error.missing,
        candidates: error.candidates,
        span: Some((error.span.0 as u32, error.span.1 as u32)),
        row: error.row.map(|row| row as u64),
        ..Error::default()
    }
}

impl Error {
    /// An error of an expression that stands in a param.
    pub fn expression(error: millrace_expr::ExprError, param: impl Into<String>) -> Self {
        from_expr(error).in_param(param)
    }
}
