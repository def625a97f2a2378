//! References of inputs and exports: `customers`, `split.train`, `evaluate.metrics[*]`,
//! `train.model[best]`, `train.model[l2=0.01]`.

use std::collections::BTreeMap;

use millrace_types::{NameError, PortName, StepName};
use serde_json::Value;

/// The instances of a matrix step that a reference means.
#[derive(Debug, Clone, PartialEq)]
pub enum Pick {
    /// Each; the referring step has an instance for each.
    Each,
    /// All, gathered on one port.
    All,
    /// The one that another step selects.
    Chosen(StepName),
    /// Those with these matrix values.
    Where(BTreeMap<String, Value>),
}

/// A source, or an output of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The source or step.
    pub name: StepName,
    /// The output; `None` means the only one.
    pub port: Option<PortName>,
    /// The instances.
    pub pick: Pick,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A bracket is open.
    #[error("a `[` is opened but never closed")]
    Open,
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A condition on the matrix is not valid.
    #[error("`{0}` is not `name=value`")]
    Pair(String),
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// When the text is not a reference.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let text = text.trim();
        let (path, pick) = match text.split_once('[') {
            None => (text, Pick::Each),
            Some((path, rest)) => {
                let inner = rest.strip_suffix(']').ok_or(ReferenceError::Open)?.trim();
                (path.trim(), pick(inner)?)
            }
        };
        let (name, port) = match path.split_once('.') {
            Some((name, port)) => (name, Some(PortName::new(port)?)),
            None => (path, None),
        };
        Ok(Self { name: StepName::new(name)?, port, pick })
    }
}

fn pick(inner: &str) -> Result<Pick, ReferenceError> {
    if inner == "*" {
        return Ok(Pick::All);
    }
    if !inner.contains('=') {
        return Ok(Pick::Chosen(StepName::new(inner)?));
    }
    let mut wanted = BTreeMap::new();
    for pair in inner.split(',') {
        let (name, value) = pair.split_once('=').ok_or_else(|| ReferenceError::Pair(pair.to_owned()))?;
        wanted.insert(name.trim().to_owned(), scalar(value.trim()));
    }
    Ok(Pick::Where(wanted))
}

/// A value as TOML reads it; any other value is a text.
pub fn scalar(text: &str) -> Value {
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
    let value = parsed.and_then(|mut table| table.remove("value")).filter(|_| !text.contains('\n'));
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_as_written() {
        let read = |text: &str| Reference::parse(text).unwrap();
        assert_eq!(read("customers").port, None);
        assert_eq!(read("split.train").port.unwrap(), "train");
        assert_eq!(read("evaluate.metrics[*]").pick, Pick::All);
        assert_eq!(read("predict[best]").pick, Pick::Chosen(StepName::new("best").unwrap()));
        let Pick::Where(wanted) = read("train.model[l2=0.01, name=x]").pick else { panic!("values") };
        assert_eq!((&wanted["l2"], &wanted["name"]), (&Value::from(0.01), &Value::from("x")));
    }

    #[test]
    fn a_text_that_is_not_a_reference_is_refused() {
        for text in ["", "a b", "a.b.c", "a[", "a[b", "a[x=1,y]", ".x", "a."] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
