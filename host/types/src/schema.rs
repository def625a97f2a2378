//! Types of columns, and the schemas made of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::ColumnName;

/// The unit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TimeUnit {
    /// 1 s
    Second,
    /// 10⁻³ s
    Millisecond,
    /// 10⁻⁶ s
    Microsecond,
    /// 10⁻⁹ s
    Nanosecond,
}

/// The Arrow types that a column can have: those of `wit/step.wit`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are Arrow's types and named as they are")]
pub enum DataType {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Utf8,
    Binary,
    Date32,
    Timestamp(TimeUnit, Option<String>),
}

impl DataType {
    /// Bytes of one value, for the types that have a fixed number of them.
    pub fn width(&self) -> Option<usize> {
        Some(match self {
            Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 | Self::Date32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 | Self::Timestamp(..) => 8,
            Self::Boolean | Self::Utf8 | Self::Binary => return None,
        })
    }

    /// Whether values have a length of their own, and so an offsets buffer.
    pub fn is_variable(&self) -> bool {
        matches!(self, Self::Utf8 | Self::Binary)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Utf8 => "utf8",
            Self::Binary => "binary",
            Self::Date32 => "date32",
            Self::Timestamp(unit, zone) => {
                let unit = match unit {
                    TimeUnit::Second => "s",
                    TimeUnit::Millisecond => "ms",
                    TimeUnit::Microsecond => "us",
                    TimeUnit::Nanosecond => "ns",
                };
                return match zone {
                    Some(zone) => write!(f, "timestamp[{unit}, {zone}]"),
                    None => write!(f, "timestamp[{unit}]"),
                };
            }
        })
    }
}

/// A text that is not a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a type; there are {NAMES}")]
pub struct DataTypeError {
    /// The text.
    pub text: String,
}

/// The texts that are types.
pub const NAMES: &str =
    "boolean, int8 to int64, uint8 to uint64, float32, float64, utf8, binary, date32, timestamp[s|ms|us|ns]";

impl FromStr for DataType {
    type Err = DataTypeError;

    fn from_str(text: &str) -> Result<Self, DataTypeError> {
        Ok(match text {
            "boolean" | "bool" => Self::Boolean,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" | "int" => Self::Int64,
            "uint8" => Self::UInt8,
            "uint16" => Self::UInt16,
            "uint32" => Self::UInt32,
            "uint64" => Self::UInt64,
            "float32" => Self::Float32,
            "float64" | "float" => Self::Float64,
            "utf8" | "string" => Self::Utf8,
            "binary" => Self::Binary,
            "date32" | "date" => Self::Date32,
            "timestamp" => Self::Timestamp(TimeUnit::Microsecond, None),
            _ => {
                let inner = text
                    .strip_prefix("timestamp[")
                    .and_then(|rest| rest.strip_suffix(']'))
                    .ok_or_else(|| DataTypeError { text: text.to_owned() })?;
                let (unit, zone) = match inner.split_once(',') {
                    Some((unit, zone)) => (unit.trim(), Some(zone.trim().to_owned())),
                    None => (inner.trim(), None),
                };
                let unit = match unit {
                    "s" => TimeUnit::Second,
                    "ms" => TimeUnit::Millisecond,
                    "us" => TimeUnit::Microsecond,
                    "ns" => TimeUnit::Nanosecond,
                    _ => return Err(DataTypeError { text: text.to_owned() }),
                };
                Self::Timestamp(unit, zone)
            }
        })
    }
}

/// A column's name and type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    /// Its name, unique in the schema.
    pub name: ColumnName,
    /// Its type.
    pub data_type: DataType,
    /// Whether nulls may occur.
    pub nullable: bool,
}

/// The columns of a table, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    /// The columns, in order.
    pub fields: Vec<Field>,
}

impl Schema {
    /// The index and the field of a column.
    pub fn find(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.name == *name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// The first name that occurs twice.
    pub fn duplicate(&self) -> Option<&ColumnName> {
        let mut seen = std::collections::HashSet::new();
        self.fields.iter().map(|field| &field.name).find(|name| !seen.insert(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_from_its_text() {
        let types = [
            DataType::Boolean,
            DataType::Int64,
            DataType::UInt8,
            DataType::Float32,
            DataType::Utf8,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Timestamp(TimeUnit::Millisecond, Some("Europe/Vienna".into())),
        ];
        for data_type in types {
            assert_eq!(data_type.to_string().parse(), Ok(data_type));
        }
        assert!("timestamp[years]".parse::<DataType>().is_err());
    }
}
