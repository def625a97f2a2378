//! Names of steps, ports and columns.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name is empty")]
    Empty,
    /// A character that would be ambiguous in references, files or tools.
    #[error("`{name}` has `{found}` in it; a name has letters, digits, `_` and `-`")]
    Character {
        /// The complete name.
        name: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// Longer than [`crate::bounds::NAME_BYTES`].
    #[error("a name of {length} bytes is longer than {max}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The maximum length.
        max: usize,
    },
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    )*};
}

name! {
    /// A step or a source of a pipeline: letters, digits, `_` and `-`.
    StepName;
    /// An input or output of a step: letters, digits, `_` and `-`.
    PortName;
    /// A column of a table: any text that occurs in the data.
    ColumnName;
}

fn checked(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > crate::bounds::NAME_BYTES {
        return Err(NameError::TooLong { length: text.len(), max: crate::bounds::NAME_BYTES });
    }
    match text.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-'))) {
        Some(found) => Err(NameError::Character { name: text.to_owned(), found }),
        None => Ok(text.into()),
    }
}

impl StepName {
    /// The name, if the text is valid.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, NameError> {
        checked(text).map(Self)
    }
}

impl PortName {
    /// The name, if the text is valid.
    ///
    /// # Errors
    /// [`NameError`] when it is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, NameError> {
        checked(text).map(Self)
    }
}

impl ColumnName {
    /// The name of a column: any text that occurs in the data.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}
