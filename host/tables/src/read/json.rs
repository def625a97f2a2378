//! NDJSON: an object on each line. One reading for the types, one for the data.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::arrow::array::new_empty_array;
use ::arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema};
use ::arrow::json::reader::{ReaderBuilder, infer_json_schema};
use millrace_types::Schema;

use super::open::open;
use super::{ReadError, ReadOptions, Shaper, Sink};

pub(super) fn read(files: &[PathBuf], options: &ReadOptions, sink: &mut dyn Sink) -> Result<Schema, ReadError> {
    let mut schemas = Vec::new();
    for path in files {
        open(path, &mut |input| {
            let (schema, _) = infer_json_schema(BufReader::new(input), None).map_err(|error| broken(path, &error))?;
            schemas.push(schema);
            Ok(())
        })?;
    }
    let path = files.first().cloned().unwrap_or_default();
    let schema = ArrowSchema::try_merge(schemas).map_err(|error| broken(&path, &error))?;
    if schema.fields().is_empty() {
        return Err(ReadError::content(&path, None, "the file is empty: there is no object in it"));
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
    let mut shaper = Shaper::new(options);
    let mut emitted = false;
    for path in files {
        open(path, &mut |input| {
            let reader = ReaderBuilder::new(schema.clone()).with_batch_size(options.part_rows);
            for batch in reader.build(BufReader::new(input)).map_err(|error| broken(path, &error))? {
                let batch = batch.map_err(|error| broken(path, &error))?;
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
    shaper.schema.ok_or_else(|| ReadError::content(&path, None, "the file is empty"))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::content(path, None, format!("not usable as JSON lines: {error}"))
}
