//! Params: from JSON to a struct, and from a struct to JSON Schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::Error;

/// A struct of params, derived with `#[derive(Params)]`.
pub trait Params: Sized {
    /// JSON Schema of the params, an object.
    fn schema() -> Value;

    #[doc(hidden)]
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// Reads params from JSON, and reports all errors together.
    ///
    /// # Errors
    /// When params are unknown or missing, or values have a wrong type or are out of range.
    fn from_json(value: &Value) -> Result<Self, Vec<Error>> {
        let empty = Map::new();
        let object = match value {
            Value::Object(object) => object,
            Value::Null => &empty,
            _ => return Err(vec![Error::new("params must be a table of names and values")]),
        };
        let mut reader = Reader { object, known: Vec::new(), errors: Vec::new() };
        let params = Self::read(&mut reader);
        let Reader { known, mut errors, .. } = reader;
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            errors.push(Error {
                message: format!("there is no param `{name}`"),
                param: Some(name.clone()),
                missing: Some(name.clone()),
                candidates: known.iter().map(|name| (*name).to_owned()).collect(),
                ..Error::default()
            });
        }
        match params {
            Some(params) if errors.is_empty() => Ok(params),
            _ => Err(errors),
        }
    }
}

/// A type that a param can have.
pub trait Param: Sized {
    /// The JSON Schema of the type.
    fn schema() -> Value;
    /// Reads a value.
    ///
    /// # Errors
    /// When the value has another type.
    fn read(value: &Value) -> Result<Self, Error>;
    /// The value as JSON, to show a default.
    fn to_json(&self) -> Value;
    /// The value as a number, to compare with `min` and `max`.
    fn number(&self) -> Option<f64> {
        None
    }
}

/// Reads the fields of a params struct. Used by the derive.
pub struct Reader<'a> {
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
    errors: Vec<Error>,
}

impl Reader<'_> {
    /// Reads one field: its value or its default. Errors are collected.
    pub fn field<T: Param>(
        &mut self,
        name: &'static str,
        missing: Option<T>,
        min: Option<f64>,
        max: Option<f64>,
    ) -> Option<T> {
        self.known.push(name);
        let Some(value) = self.object.get(name) else {
            if missing.is_none() {
                self.errors.push(Error::new(format!("the param `{name}` is missing")));
            }
            return missing;
        };
        match T::read(value) {
            Ok(read) => match out_of_range(&read, min, max) {
                None => Some(read),
                Some(message) => {
                    self.errors.push(Error::new(message).in_param(name));
                    None
                }
            },
            Err(error) => {
                let path = match &error.param {
                    Some(inner) if inner.starts_with('[') => format!("{name}{inner}"),
                    Some(inner) => format!("{name}.{inner}"),
                    None => name.to_owned(),
                };
                self.errors.push(error.in_param(path));
                None
            }
        }
    }
}

/// A number as a person writes it: the fewest digits that identify it.
///
/// `format!("{value}")` gives the same text, but adds 16 KB to a component: std brings three
/// ways to print a float, and JSON a fourth that is linked anyway.
pub fn float_text(value: f64) -> String {
    match serde_json::Number::from_f64(value) {
        Some(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
        }
        None if value.is_nan() => "NaN".to_owned(),
        None if value < 0.0 => "-inf".to_owned(),
        None => "inf".to_owned(),
    }
}

fn out_of_range<T: Param>(value: &T, min: Option<f64>, max: Option<f64>) -> Option<String> {
    let number = value.number()?;
    let below = min.is_some_and(|min| number < min);
    let above = max.is_some_and(|max| number > max);
    let is_wrong = below || above || number.is_nan();
    let (number, min, max) = (float_text(number), min.map(float_text), max.map(float_text));
    is_wrong.then(|| match (min, max) {
        (Some(min), Some(max)) => format!("{number} is not between {min} and {max}"),
        (Some(min), None) => format!("{number} is less than {min}"),
        (_, Some(max)) => format!("{number} is more than {max}"),
        (None, None) => format!("{number} is not a number"),
    })
}

/// Describes the fields of a params struct. Used by the derive.
#[derive(Default)]
pub struct SchemaWriter {
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl SchemaWriter {
    /// Adds one field.
    pub fn field<T: Param>(&mut self, name: &str, doc: &str, missing: Option<T>, min: Option<f64>, max: Option<f64>) {
        let mut schema = T::schema();
        if let Value::Object(schema) = &mut schema {
            if !doc.is_empty() {
                schema.insert("description".to_owned(), doc.into());
            }
            match missing.as_ref().map(Param::to_json) {
                None => self.required.push(name.into()),
                Some(Value::Null) => {}
                Some(default) => {
                    schema.insert("default".to_owned(), default);
                }
            }
            for (key, bound) in [("minimum", min), ("maximum", max)] {
                if let Some(bound) = bound {
                    schema.insert(key.to_owned(), bound.into());
                }
            }
        }
        self.properties.insert(name.to_owned(), schema);
    }

    /// Returns the schema of the struct.
    pub fn finish(self) -> Value {
        let mut schema = json!({ "type": "object", "properties": self.properties, "additionalProperties": false });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        schema
    }
}

fn wrong(value: &Value, expected: &str) -> Error {
    let found = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        other => other.to_string(),
    };
    Error::new(format!("expected {expected}, found {found}"))
}

/// The error for a value that is not one of the words of a `Choice`. Used by its derive.
pub fn not_a_choice(found: Option<&str>, value: &Value, words: &[&str]) -> Error {
    match found {
        None => wrong(value, "a word"),
        Some(found) => Error {
            message: format!("`{found}` is not one of {}", words.join(", ")),
            missing: Some(found.to_owned()),
            candidates: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Error::default()
        },
    }
}

impl Param for f64 {
    fn schema() -> Value {
        json!({ "type": "number" })
    }
    fn read(value: &Value) -> Result<Self, Error> {
        value.as_f64().ok_or_else(|| wrong(value, "a number"))
    }
    fn to_json(&self) -> Value {
        (*self).into()
    }
    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

macro_rules! integer {
    ($($ty:ty, $name:literal;)*) => {$(
        impl Param for $ty {
            fn schema() -> Value {
                json!({ "type": "integer" })
            }
            fn read(value: &Value) -> Result<Self, Error> {
                let signed = value.as_i64().and_then(|value| value.try_into().ok());
                signed.or_else(|| value.as_u64()?.try_into().ok()).ok_or_else(|| wrong(value, $name))
            }
            fn to_json(&self) -> Value {
                (*self).into()
            }
            fn number(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )*};
}

integer! {
    i64, "an integer";
    u64, "an integer from 0";
    u32, "an integer from 0 to 4294967295";
    usize, "an integer from 0";
}

impl Param for bool {
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
    fn read(value: &Value) -> Result<Self, Error> {
        value.as_bool().ok_or_else(|| wrong(value, "true or false"))
    }
    fn to_json(&self) -> Value {
        (*self).into()
    }
}

impl Param for String {
    fn schema() -> Value {
        json!({ "type": "string" })
    }
    fn read(value: &Value) -> Result<Self, Error> {
        value.as_str().map(str::to_owned).ok_or_else(|| wrong(value, "text"))
    }
    fn to_json(&self) -> Value {
        self.as_str().into()
    }
}

/// Any value, for params that take several types.
impl Param for Value {
    fn schema() -> Value {
        json!({})
    }
    fn read(value: &Value) -> Result<Self, Error> {
        Ok(value.clone())
    }
    fn to_json(&self) -> Value {
        self.clone()
    }
}

impl<T: Param> Param for Option<T> {
    fn schema() -> Value {
        T::schema()
    }
    fn read(value: &Value) -> Result<Self, Error> {
        T::read(value).map(Some)
    }
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, Param::to_json)
    }
    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(Param::number)
    }
}

impl<T: Param> Param for Vec<T> {
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
    fn read(value: &Value) -> Result<Self, Error> {
        let items = value.as_array().ok_or_else(|| wrong(value, "a list"))?;
        let item = |(i, item)| T::read(item).map_err(|error| error.in_param(format!("[{i}]")));
        items.iter().enumerate().map(item).collect()
    }
    fn to_json(&self) -> Value {
        self.iter().map(Param::to_json).collect::<Vec<_>>().into()
    }
}

impl<T: Param> Param for BTreeMap<String, T> {
    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
    fn read(value: &Value) -> Result<Self, Error> {
        let entries = value.as_object().ok_or_else(|| wrong(value, "a table of names and values"))?;
        let entry = |(name, item): (&String, _)| match T::read(item) {
            Ok(item) => Ok((name.clone(), item)),
            Err(error) => Err(error.in_param(name.clone())),
        };
        entries.iter().map(entry).collect()
    }
    fn to_json(&self) -> Value {
        Value::Object(self.iter().map(|(name, item)| (name.clone(), item.to_json())).collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::Choice;

    use super::*;

    #[derive(Debug, PartialEq, Choice)]
    enum Method {
        OneHot,
        Codes,
    }

    #[derive(Debug, PartialEq, crate::Params)]
    struct Sample {
        /// How fast.
        #[param(default = 0.5, min = 0.0, max = 1.0)]
        rate: f64,
        label: String,
        #[param(default = Vec::new())]
        columns: Vec<String>,
        #[param(default = Method::Codes)]
        method: Method,
        limit: Option<u32>,
    }

    #[test]
    fn missing_params_take_their_defaults() {
        let read = Sample::from_json(&json!({ "label": "y", "rate": 1 })).unwrap();
        let expected = Sample { rate: 1.0, label: "y".into(), columns: vec![], method: Method::Codes, limit: None };
        assert_eq!(read, expected);
    }

    #[test]
    fn all_errors_are_reported_together_with_their_paths() {
        let params = json!({ "rate": 2, "columns": ["a", 1], "method": "one_hot", "lable": "y", "limit": -1 });
        let errors = Sample::from_json(&params).unwrap_err();
        let text: Vec<String> =
            errors.iter().map(|e| format!("{}: {}", e.param.as_deref().unwrap_or("-"), e.message)).collect();
        assert_eq!(
            text,
            [
                "rate: 2 is not between 0 and 1",
                "-: the param `label` is missing",
                "columns[1]: expected text, found 1",
                "method: `one_hot` is not one of one-hot, codes",
                "limit: expected an integer from 0 to 4294967295, found -1",
                "lable: there is no param `lable`",
            ]
        );
        assert_eq!(errors[5].candidates, ["rate", "label", "columns", "method", "limit"]);
    }

    #[test]
    fn the_schema_has_docs_defaults_and_ranges() {
        let schema = Sample::schema();
        assert_eq!(
            schema["properties"]["rate"],
            json!({ "type": "number", "description": "How fast.", "default": 0.5, "minimum": 0.0, "maximum": 1.0 })
        );
        assert_eq!(schema["required"], json!(["label"]));
        assert_eq!(schema["properties"]["method"]["enum"], json!(["one-hot", "codes"]));
    }
}
