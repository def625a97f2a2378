//! Errors of expressions: the message, and where in the text or in the rows.

/// An error in an expression, or in a value that it was applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    /// What went wrong.
    pub message: String,
    /// The span in the text, in bytes.
    pub span: (usize, usize),
    /// The name that was not found.
    pub missing: Option<String>,
    /// The names that exist.
    pub candidates: Vec<String>,
    /// The row of the value, when the error is about a value.
    pub row: Option<usize>,
}

impl ExprError {
    pub(crate) fn at(span: (usize, usize), message: impl Into<String>) -> Self {
        Self { message: message.into(), span, missing: None, candidates: Vec::new(), row: None }
    }

    pub(crate) fn unknown(
        span: (usize, usize),
        what: &str,
        name: &str,
        candidates: impl Iterator<Item = String>,
    ) -> Self {
        Self {
            message: format!("there is no {what} `{name}`"),
            span,
            missing: Some(name.to_owned()),
            candidates: candidates.collect(),
            row: None,
        }
    }
}

impl std::fmt::Display for ExprError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExprError {}
