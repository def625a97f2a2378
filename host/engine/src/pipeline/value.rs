//! TOML values as JSON, with the span of every one of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, PipelineFile, Span};

/// A value with the span of each part, by path: ``, `columns.x`, `list[2]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// The value.
    pub value: Value,
    /// By path.
    pub spans: HashMap<String, Span>,
}

impl Located {
    /// The span of the value at a path, or of the nearest value around it.
    pub fn span(&self, path: &str) -> Option<&Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.spans.get(path) {
                return Some(span);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

pub(crate) struct Reader<'a> {
    pub(crate) file: &'a Arc<PipelineFile>,
    pub(crate) errors: &'a mut Vec<Diagnostic>,
}

pub(crate) type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

impl Reader<'_> {
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        Span { file: self.file.clone(), range }
    }

    pub(crate) fn error(&mut self, range: Range<usize>, message: impl Into<String>, label: &str) {
        let span = self.span(range);
        self.errors.push(Diagnostic::new(message).at(&span, label));
    }

    pub(crate) fn table<'a, 'i>(&mut self, what: &str, value: &'a Spanned<DeValue<'i>>) -> Option<&'a DeTable<'i>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.error(value.span(), format!("{what} is a table"), "this is not");
                None
            }
        }
    }

    pub(crate) fn text(&mut self, what: &str, value: &Spanned<DeValue<'_>>) -> Option<(String, Span)> {
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), self.span(value.span()))),
            _ => {
                self.error(value.span(), format!("{what} is a text"), "this is not");
                None
            }
        }
    }

    pub(crate) fn texts(&mut self, what: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<(String, Span)>> {
        match value.get_ref() {
            DeValue::Array(items) => items.iter().map(|item| self.text(&format!("an item of {what}"), item)).collect(),
            _ => {
                self.error(value.span(), format!("{what} is a list of texts"), "this is not");
                None
            }
        }
    }

    pub(crate) fn bool(&mut self, what: &str, value: &Spanned<DeValue<'_>>) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.error(value.span(), format!("{what} is true or false"), "this is neither");
                None
            }
        }
    }

    /// Reports an unknown key.
    pub(crate) fn unknown(&mut self, what: &str, key: &Spanned<std::borrow::Cow<'_, str>>, known: &[&str]) {
        let span = self.span(key.span());
        let name = key.get_ref();
        let error = Diagnostic::new(format!("unknown key `{name}` in {what}")).at(&span, "not known here");
        self.errors.push(error.suggest(name, known.iter().copied()));
    }

    pub(crate) fn located(&mut self, value: &Spanned<DeValue<'_>>) -> Located {
        let mut spans = HashMap::new();
        let value = self.json(value, String::new(), &mut spans);
        Located { value, spans }
    }

    fn json(&mut self, value: &Spanned<DeValue<'_>>, path: String, spans: &mut HashMap<String, Span>) -> Value {
        spans.insert(path.clone(), self.span(value.span()));
        match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => integer.into(),
                Err(_) => {
                    self.error(value.span(), "an integer has at most 64 bits", "too large");
                    Value::Null
                }
            },
            DeValue::Float(float) => match float.as_str().parse::<f64>().ok().and_then(Number::from_f64) {
                Some(number) => Value::Number(number),
                None => {
                    self.error(value.span(), "a number is finite", "this is not");
                    Value::Null
                }
            },
            DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
            DeValue::Array(items) => {
                let item = |(i, item)| self.json(item, format!("{path}[{i}]"), spans);
                Value::Array(items.iter().enumerate().map(item).collect())
            }
            DeValue::Table(table) => Value::Object(self.object(table, &path, spans)),
        }
    }

    fn object(&mut self, table: &DeTable<'_>, path: &str, spans: &mut HashMap<String, Span>) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, value) in table {
            let inner = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            let value = self.json(value, inner, spans);
            map.insert(key.get_ref().to_string(), value);
        }
        map
    }
}
