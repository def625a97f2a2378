//! Why a step cannot be used, or could not do its work.

use std::fmt;

/// What a step's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A problem with a use of the step (in `plan`), or with the data (in a run).
///
/// Every type that implements [`std::error::Error`] converts into it with `?`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Error {
    /// What went wrong, without a full stop.
    pub message: String,
    /// The param it is about, as a path: `columns.ratio`.
    pub param: Option<String>,
    /// The name that was not found.
    pub missing: Option<String>,
    /// The names that exist.
    pub candidates: Vec<String>,
    /// The span in the param's text, in bytes.
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

    /// Sets the param that the error is about.
    #[must_use]
    pub fn in_param(mut self, path: impl Into<String>) -> Self {
        self.param = Some(path.into());
        self
    }

    /// Sets the column that the error is about.
    #[must_use]
    pub fn in_column(mut self, column: impl Into<String>) -> Self {
        self.column = Some(column.into());
        self
    }

    /// Sets the row that the error is about, counted from 0 in the part.
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

/// Converts the error of an expression, with its span in the param that contains it.
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
    /// Creates an error from that of an expression in a param.
    pub fn expression(error: millrace_expr::ExprError, param: impl Into<String>) -> Self {
        from_expr(error).in_param(param)
    }
}
