//! Which columns of a table are needed.

use std::collections::BTreeSet;

use millrace_types::ColumnName;

/// The columns of a table that a run needs: a step reads them, or an export has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Need {
    /// All columns.
    All,
    /// These columns.
    These(BTreeSet<ColumnName>),
}

impl Need {
    /// No column.
    pub(crate) fn nothing() -> Self {
        Self::These(BTreeSet::new())
    }

    /// These columns.
    pub(crate) fn of(names: &[ColumnName]) -> Self {
        Self::These(names.iter().cloned().collect())
    }

    /// Whether no column is needed.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::These(names) if names.is_empty())
    }

    /// Whether a column is needed.
    pub(crate) fn has(&self, name: &ColumnName) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }

    /// Needs what `more` needs, too.
    pub(crate) fn add(&mut self, more: &Self) {
        match (&mut *self, more) {
            (Self::These(names), Self::These(more)) => names.extend(more.iter().cloned()),
            _ => *self = Self::All,
        }
    }
}
