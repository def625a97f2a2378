//! Params of a pipeline: their values, and `${…}` where they are used.

use std::collections::BTreeMap;

use serde_json::Value;

use super::model::{Param, Pipeline};
use super::reference::scalar;
use crate::diagnostic::{Diagnostic, nearest};

/// Values of params that are set from outside, in the order of precedence: files first, then
/// `--set`, later ones over earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub(crate) values: Vec<(String, Value)>,
    /// The files that some of them come from.
    pub(crate) files: Vec<std::path::PathBuf>,
}

impl Overrides {
    /// `name=value`, the value as in TOML; any other value is a text.
    ///
    /// # Errors
    /// When there is no `=`.
    pub fn set(&mut self, text: &str) -> Result<(), Diagnostic> {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Diagnostic::new(format!("`--set {text}` has no `=`")).help("write `--set name=value`"));
        };
        self.values.push((name.trim().to_owned(), scalar(value.trim())));
        Ok(())
    }

    /// A TOML or JSON file of names and values.
    ///
    /// # Errors
    /// When it cannot be read or is not a table.
    pub fn file(&mut self, path: &std::path::Path) -> Result<(), Diagnostic> {
        let fail = |what: String| Diagnostic::new(format!("the params file `{}` {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
        let json = path.extension().is_some_and(|extension| extension == "json");
        let value: Value = if json {
            serde_json::from_str(&text).map_err(|error| fail(format!("is not JSON: {error}")))?
        } else {
            let table: toml::Table =
                toml::from_str(&text).map_err(|error| fail(format!("is not TOML: {}", error.message())))?;
            serde_json::to_value(table).map_err(|error| fail(format!("cannot be used: {error}")))?
        };
        match value {
            Value::Object(map) => self.values.extend(map),
            _ => return Err(fail("is not a table of names and values".to_owned())),
        }
        self.files.push(path.to_owned());
        Ok(())
    }
}

/// The names that `${…}` can use.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// `${params.NAME}`
    pub params: BTreeMap<String, Value>,
    /// `${matrix.NAME}`
    pub matrix: BTreeMap<String, Value>,
}

impl Pipeline {
    /// The values of all params.
    ///
    /// # Errors
    /// Unknown names, missing values, wrong types, and values out of range.
    pub fn values(&self, overrides: &Overrides) -> Result<BTreeMap<String, Value>, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut refused = Vec::new();
        let mut values: BTreeMap<String, Value> =
            self.params.iter().filter_map(|param| Some((param.name.clone(), param.default.clone()?))).collect();
        for (name, value) in &overrides.values {
            match self.params.iter().find(|param| param.name == *name) {
                None => {
                    let names = self.params.iter().map(|param| param.name.as_str());
                    errors.push(Diagnostic::new(format!("there is no param `{name}` to set")).suggest(name, names));
                }
                Some(param) => match param.check(value) {
                    Ok(value) => drop(values.insert(name.clone(), value)),
                    Err(message) => {
                        refused.push(name);
                        let error = Diagnostic::new(format!("the param `{name}` cannot be {value}: {message}"));
                        errors.push(error.at(&param.span, "defined here"));
                    }
                },
            }
        }
        for param in &self.params {
            match values.get(&param.name) {
                None if refused.contains(&&param.name) => {}
                None => errors.push(
                    Diagnostic::new(format!("the param `{}` has no value", param.name))
                        .at(&param.span, "no default here")
                        .help(format!("give it a default, or `--set {}=…`", param.name)),
                ),
                Some(value) => {
                    if let Err(message) = param.check(value) {
                        let text = format!("the default of the param `{}` is not possible: {message}", param.name);
                        errors.push(Diagnostic::new(text).at(&param.span, "here"));
                    }
                }
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(errors) }
    }
}

/// Why a value does not fit a param.
#[derive(Debug, thiserror::Error)]
enum ValueError {
    #[error("expected a value of type {0}")]
    Type(String),
    #[error("expected at least {0}")]
    Min(f64),
    #[error("expected at most {0}")]
    Max(f64),
}

/// Why a `${…}` cannot be substituted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubstitutionError {
    /// It names neither params nor a matrix.
    #[error("`${{{name}}}` names neither `params.…` nor `matrix.…`")]
    Space {
        /// The name.
        name: String,
    },
    /// There is no such name.
    #[error("there is no `{name}`{near}")]
    Unknown {
        /// The name.
        name: String,
        /// The nearest name, as a question, or nothing.
        near: String,
    },
    /// A brace is open.
    #[error("a `${{` is opened but never closed")]
    Open,
}

impl Param {
    /// The value, if it fits this param.
    fn check(&self, value: &Value) -> Result<Value, ValueError> {
        let implied = self.default.as_ref().map(|default| match default {
            Value::Number(number) if number.is_f64() => "float",
            Value::Number(_) => "int",
            Value::Bool(_) => "bool",
            Value::Array(_) => "list",
            Value::Object(_) => "table",
            _ => "string",
        });
        let ty = self.ty.as_deref().or(implied).unwrap_or("any");
        let value = match (ty, value) {
            // A text from a shell may look like a number.
            ("string", Value::Number(_) | Value::Bool(_)) => Value::String(value.to_string()),
            _ => value.clone(),
        };
        let fits = match ty {
            "float" => value.is_number(),
            "int" => value.is_i64() || value.is_u64(),
            "bool" => value.is_boolean(),
            "list" => value.is_array(),
            "table" => value.is_object(),
            "string" => value.is_string(),
            _ => true,
        };
        if !fits {
            return Err(ValueError::Type(ty.to_owned()));
        }
        if let Some(number) = value.as_f64() {
            if let Some(min) = self.min.filter(|min| number < *min) {
                return Err(ValueError::Min(min));
            }
            if let Some(max) = self.max.filter(|max| number > *max) {
                return Err(ValueError::Max(max));
            }
        }
        Ok(value)
    }
}

impl Scope {
    fn get(&self, name: &str) -> Result<&Value, SubstitutionError> {
        let (space, key) = name.split_once('.').unwrap_or(("", name));
        let map = match space {
            "params" => &self.params,
            "matrix" => &self.matrix,
            _ => return Err(SubstitutionError::Space { name: name.to_owned() }),
        };
        map.get(key).ok_or_else(|| {
            let near = nearest(key, map.keys().map(String::as_str));
            let near = near.map_or(String::new(), |near| format!("; did you mean `${{{space}.{near}}}`?"));
            SubstitutionError::Unknown { name: name.to_owned(), near }
        })
    }

    /// A text with every `${…}` in it substituted.
    ///
    /// # Errors
    /// When a name does not exist.
    pub fn text(&self, text: &str) -> Result<String, SubstitutionError> {
        match self.value(text)? {
            Value::String(text) => Ok(text),
            other => Ok(other.to_string()),
        }
    }

    /// The value of a text. One that is exactly one `${…}` keeps the type of the value it names.
    fn value(&self, text: &str) -> Result<Value, SubstitutionError> {
        let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        if let Some(name) = inner.filter(|name| !name.contains("${")) {
            return self.get(name.trim()).cloned();
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let (name, after) = after.split_once('}').ok_or(SubstitutionError::Open)?;
            match self.get(name.trim())? {
                Value::String(text) => out.push_str(text),
                other => out.push_str(&other.to_string()),
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(Value::String(out))
    }
}

/// Substitutes every `${…}`. Each error comes with its path.
pub fn substitute(value: &Value, scope: &Scope, path: &str, errors: &mut Vec<(String, String)>) -> Value {
    match value {
        Value::String(text) if text.contains("${") => scope.value(text).unwrap_or_else(|error| {
            errors.push((path.to_owned(), error.to_string()));
            Value::Null
        }),
        Value::Array(items) => {
            let item = |(i, item)| substitute(item, scope, &format!("{path}[{i}]"), errors);
            Value::Array(items.iter().enumerate().map(item).collect())
        }
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            for (key, item) in map {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                out.insert(key.clone(), substitute(item, scope, &inner, errors));
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_that_is_one_placeholder_keeps_its_type() {
        let scope = Scope {
            params: BTreeMap::from([("seed".to_owned(), json!(7)), ("x".to_owned(), json!("a"))]),
            matrix: BTreeMap::from([("l2".to_owned(), json!(0.5))]),
        };
        let mut errors = Vec::new();
        let value = json!({ "a": "${params.seed}", "b": ["s${params.seed}-${params.x}", "${matrix.l2}"], "c": 1 });
        assert_eq!(substitute(&value, &scope, "", &mut errors), json!({ "a": 7, "b": ["s7-a", 0.5], "c": 1 }));
        substitute(&json!({ "a": ["${params.sed}"] }), &scope, "", &mut errors);
        assert_eq!(
            errors,
            [("a[0]".to_owned(), "there is no `params.sed`; did you mean `${params.seed}`?".to_owned())]
        );
    }
}
