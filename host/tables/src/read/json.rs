//! NDJSON: an object on each line. One reading for the types, one for the data.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::array::new_empty_array;
use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema};
use ::arrow::json::reader::{ReaderBuilder, infer_json_schema};
use millrace_types::Schema;
use serde_json::Value;

use super::open::open;
use super::{ReadError, ReadOptions, Shaper, Sink};

pub(super) fn read(files: &[PathBuf], options: &ReadOptions, sink: &dyn Sink) -> Result<Schema, ReadError> {
    let mut schemas = Vec::new();
    for path in files {
        open(path, &mut |input| {
            let (schema, _) =
                infer_json_schema(text(path, input)?, None).map_err(|error| located(path, &error, None))?;
            schemas.push(schema);
            Ok(())
        })?;
    }
    let path = files.first().cloned().unwrap_or_default();
    let schema = ArrowSchema::try_merge(schemas).map_err(|error| broken(&path, &error))?;
    if schema.fields().is_empty() {
        return Err(ReadError::content(&path, None, "there is no object with a value in it"));
    }
    let fields = schema.fields().iter().map(|field| {
        let given = options.types.get(field.name()).map(crate::arrow_type);
        let found = match field.data_type() {
            ArrowType::Null => ArrowType::Utf8,
            other => other.clone(),
        };
        ArrowField::new(field.name(), given.unwrap_or(found), true)
    });
    // By name: an object has no order, and the first line is not to decide one.
    let mut fields: Vec<ArrowField> = fields.collect();
    fields.sort_by(|a, b| a.name().cmp(b.name()));
    let schema = Arc::new(ArrowSchema::new(fields));
    let shaper = Shaper::new(options);
    let mut emitted = false;
    for path in files {
        open(path, &mut |input| {
            let reader = ReaderBuilder::new(schema.clone()).with_batch_size(options.part_rows);
            for batch in reader.build(text(path, input)?).map_err(|error| broken(path, &error))? {
                let batch = batch.map_err(|error| located(path, &error, Some(&schema)))?;
                shaper.emit(path, &schema, batch.columns().to_vec(), sink)?;
                emitted = true;
            }
            Ok(())
        })?;
    }
    if !emitted {
        let arrays = schema.fields().iter().map(|field| new_empty_array(field.data_type())).collect();
        shaper.emit(&path, &schema, arrays, sink)?;
    }
    shaper.finish(files.first(), "the file is empty")
}

/// Without the mark that some programs put before UTF-8.
fn text<R: Read>(path: &Path, input: R) -> Result<BufReader<R>, ReadError> {
    let mut input = BufReader::new(input);
    let marked = input.fill_buf().map_err(ReadError::io(path))?.starts_with(b"\xef\xbb\xbf");
    if marked {
        input.consume(3);
    }
    Ok(input)
}

/// The error with the line that it is about: the reader does not count them, so
/// they are looked at once more, one by one.
fn located(path: &Path, error: &dyn std::fmt::Display, schema: Option<&ArrowSchema>) -> ReadError {
    let mut found = None;
    let scan = open(path, &mut |input| {
        let lines = text(path, input)?.split(b'\n');
        for (number, line) in (1u64..).zip(lines) {
            let line = line.map_err(ReadError::io(path))?;
            if let Some(message) = wrong(&line, schema) {
                found = Some((number, message));
                break;
            }
        }
        Ok(())
    });
    match (scan, found) {
        (Ok(()), Some((line, message))) => ReadError::content(path, Some(line), message),
        _ => broken(path, error),
    }
}

/// What is wrong with a line.
fn wrong(line: &[u8], schema: Option<&ArrowSchema>) -> Option<String> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Some("it is not UTF-8; convert the file, for instance with iconv".to_owned());
    };
    if line.trim().is_empty() {
        return None;
    }
    let object = match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Some("it is not an object".to_owned()),
        Err(error) => {
            let message = error.to_string();
            let what = message.split(" at line").next().unwrap_or_default();
            return Some(format!("not JSON at column {}: {what}", error.column()));
        }
    };
    schema?.fields().iter().find_map(|field| {
        let value = object.get(field.name())?;
        let fits = match field.data_type() {
            ArrowType::Utf8 | ArrowType::Date32 | ArrowType::Timestamp(..) => value.is_string(),
            ArrowType::Boolean => value.is_boolean(),
            number if number.is_integer() => value.is_i64() || value.is_u64(),
            number if number.is_floating() => value.is_number(),
            _ => true,
        };
        let what =
            || format!("column `{}` is {} here, and {} elsewhere", field.name(), kind(value), name(field.data_type()));
        (!fits && !value.is_null()).then(what)
    })
}

fn name(data_type: &ArrowType) -> String {
    crate::column::type_from_arrow(data_type).map_or_else(|_| data_type.to_string(), |ours| ours.to_string())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::content(path, None, format!("not usable as JSON lines: {error}"))
}
