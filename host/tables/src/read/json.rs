//! NDJSON: an object on each line. One reading for the types, one for the data.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema};
use ::arrow::json::reader::{ReaderBuilder, infer_json_schema};
use millrace_types::Schema;
use serde_json::Value;
use serde_json::value::RawValue;

use super::open::open;
use super::predicate::Batch;
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
    let schema = merged(schemas).map_err(|message| ReadError::content(&path, None, message))?;
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
    loses_digits(files, &schema)?;
    let shaper = Shaper::new(options);
    let mut emitted = false;
    for path in files {
        open(path, &mut |input| {
            let reader = ReaderBuilder::new(schema.clone()).with_batch_size(options.part_rows);
            for batch in reader.build(text(path, input)?).map_err(|error| broken(path, &error))? {
                let batch = batch.map_err(|error| located(path, &error, Some(&schema)))?;
                shaper.emit(path, Batch::from(&batch), sink)?;
                emitted = true;
            }
            Ok(())
        })?;
    }
    if !emitted {
        shaper.emit(&path, Batch::empty(schema), sink)?;
    }
    shaper.finish(files.first(), "the file is empty")
}

/// The schema of several files: what one file with all their lines would have.
fn merged(schemas: Vec<ArrowSchema>) -> Result<ArrowSchema, String> {
    let mut fields: Vec<ArrowField> = Vec::new();
    for field in schemas.iter().flat_map(|schema| schema.fields()) {
        let Some(known) = fields.iter_mut().find(|known| known.name() == field.name()) else {
            fields.push(field.as_ref().clone());
            continue;
        };
        let joined = match (known.data_type(), field.data_type()) {
            (a, b) if a == b => a.clone(),
            (ArrowType::Null, other) | (other, ArrowType::Null) => other.clone(),
            (ArrowType::Int64, ArrowType::Float64) | (ArrowType::Float64, ArrowType::Int64) => ArrowType::Float64,
            (a, b) => {
                return Err(format!("column `{}` is {} in one file and {} in another", field.name(), name(a), name(b)));
            }
        };
        known.set_data_type(joined);
    }
    Ok(ArrowSchema::new(fields))
}

/// A line with an integer that a float would not hold to the last digit, in a column of
/// floats. Only lines with so many digits are looked at.
fn loses_digits(files: &[PathBuf], schema: &ArrowSchema) -> Result<(), ReadError> {
    const DIGITS: usize = 16;
    const EXACT: u64 = 1 << 53;
    let floats: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| *field.data_type() == ArrowType::Float64)
        .map(|field| field.name().as_str())
        .collect();
    if floats.is_empty() {
        return Ok(());
    }
    for path in files {
        open(path, &mut |input| {
            for (number, line) in (1u64..).zip(text(path, input)?.split(b'\n')) {
                let line = line.map_err(ReadError::io(path))?;
                let is_long = line
                    .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
                    .any(|run| run.len() >= DIGITS && run[0].is_ascii_digit());
                if !is_long {
                    continue;
                }
                // Numbers as they are written: a reader of values has lost the digits.
                let Ok(object) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&line) else { continue };
                let lost = floats.iter().find(|name| {
                    let written = object.get(**name).map_or("", |value| value.get());
                    let digits = written.strip_prefix('-').unwrap_or(written);
                    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                    is_integer && !digits.parse::<u64>().is_ok_and(|value| value <= EXACT)
                });
                if let Some(name) = lost {
                    let message = format!(
                        "column `{name}` is of floats, and `{}` has more digits than a float holds",
                        object[*name].get()
                    );
                    return Err(ReadError::content(path, Some(number), message));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
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
