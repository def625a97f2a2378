//! What a step uses: the reference to a component, as a pipeline file has it.
//!
//! ```text
//! std:NAME                    a standard step
//! path:PATH                   a component file, or the crate of one, relative to the pipeline file
//! folder:PATH/NAME@VERSION    version VERSION of NAME in a folder that serves as a registry
//! oci:REFERENCE               a component in an OCI registry
//! ```
//!
//! A reference only says where to look. What is in an action key is the digest of the component.

use std::fmt;
use std::str::FromStr;

use crate::name::{NameError, StepName};

/// A reference to a component.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Uses {
    /// A standard step, by its name.
    Std(String),
    /// A path relative to the folder of the pipeline file.
    Path(String),
    /// A component in a folder that serves as a registry.
    Folder(FolderRef),
    /// A component in an OCI registry.
    Oci(String),
}

/// A component in a folder with the files `NAME/VERSION.wasm`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FolderRef {
    /// The folder, relative to that of the pipeline file.
    pub folder: String,
    /// The name of the component.
    pub name: StepName,
    /// Its version; `None` in a reference that lacks it.
    pub version: Option<Version>,
}

/// An exact version, as `1.2.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(String);

impl Version {
    /// The version, if the text consists of numbers with dots between them, and a suffix such as
    /// `-beta.1` at most.
    pub fn new(text: &str) -> Option<Self> {
        let (numbers, suffix) = text.split_once('-').map_or((text, None), |(numbers, suffix)| (numbers, Some(suffix)));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_valid = numbers.split('.').all(is_number) && suffix.is_none_or(|suffix| suffix.split('.').all(is_word));
        (is_valid && text.len() <= 64).then(|| Self(text.to_owned()))
    }

    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a reference to a component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsesError {
    /// It has no scheme.
    #[error("`{0}` names no component")]
    NoScheme(String),
    /// Its scheme is not known.
    #[error("`{0}:` is no kind of component")]
    Scheme(String),
    /// It names a folder, but no component in it.
    #[error("`{0}` names no component in a folder: expected `folder:PATH/NAME@VERSION`")]
    Folder(String),
    /// The name of the component is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The version is not valid.
    #[error("`{0}` is not a version: expected one such as `1.2.0`")]
    Version(String),
}

/// The schemes of references.
pub const SCHEMES: [&str; 4] = ["std", "path", "folder", "oci"];

impl FromStr for Uses {
    type Err = UsesError;

    fn from_str(text: &str) -> Result<Self, UsesError> {
        let (scheme, rest) = text.split_once(':').ok_or_else(|| UsesError::NoScheme(text.to_owned()))?;
        Ok(match scheme {
            "std" => Self::Std(rest.to_owned()),
            "path" => Self::Path(rest.to_owned()),
            "folder" => Self::Folder(FolderRef::parse(text, rest)?),
            "oci" => Self::Oci(rest.to_owned()),
            _ => return Err(UsesError::Scheme(scheme.to_owned())),
        })
    }
}

impl FolderRef {
    fn parse(text: &str, rest: &str) -> Result<Self, UsesError> {
        let no_component = || UsesError::Folder(text.to_owned());
        let (folder, last) = rest.rsplit_once('/').ok_or_else(no_component)?;
        let (name, version) = match last.split_once('@') {
            Some((name, version)) => {
                let version = Version::new(version).ok_or_else(|| UsesError::Version(version.to_owned()))?;
                (name, Some(version))
            }
            None => (last, None),
        };
        if folder.is_empty() || name.is_empty() {
            return Err(no_component());
        }
        Ok(Self { folder: folder.to_owned(), name: StepName::new(name)?, version })
    }
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Std(name) => write!(f, "std:{name}"),
            Self::Path(path) => write!(f, "path:{path}"),
            Self::Folder(FolderRef { folder, name, version }) => {
                write!(f, "folder:{folder}/{name}")?;
                version.iter().try_for_each(|version| write!(f, "@{version}"))
            }
            Self::Oci(reference) => write!(f, "oci:{reference}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_reference_reads_back() {
        let texts =
            ["std:filter", "path:../my step", "folder:../steps/clean@1.2.0-beta.1", "folder:C:/s/clean", "oci:r.io/a"];
        for text in texts {
            assert_eq!(text.parse::<Uses>().unwrap().to_string(), text);
        }
    }

    /// A name or a version can never lead out of the folder.
    #[test]
    fn text_that_is_not_a_reference_is_refused() {
        let texts = [
            "filter",
            "git:x",
            "folder:clean@1.0",
            "folder:steps/@1.0",
            "folder:steps/clean@",
            "folder:steps/clean@..",
            "folder:steps/clean@latest",
            "folder:steps/..@1.0",
            "folder:steps/clean@1..0",
        ];
        for text in texts {
            assert!(text.parse::<Uses>().is_err(), "{text}");
        }
    }
}
