//! Output tables: assembled from the record of a task and its inputs.
//!
//! A record has the computed columns and the selection. The columns that are passed through are
//! taken from the inputs here, by reference where the rows are the same and by derivation where
//! they are selected: no byte is moved.

use std::sync::Arc;

use millrace_types::action_record::Declared;
use millrace_types::{
    Chunk, ColumnName, Field, OutputField, Part, PartRecord, PortName, RowsRecord, Schema, Selection,
};

/// A table on an input port, with all its columns, as the task saw its parts.
pub(crate) struct InputTable<'a> {
    pub(crate) port: &'a PortName,
    pub(crate) schema: &'a Schema,
    pub(crate) parts: Vec<Arc<Part>>,
}

/// A record that does not fit its plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misfit(String);

impl Misfit {
    pub(crate) fn schemas(port: &PortName) -> Self {
        Self(format!("the parts of `{port}` do not have the same schema"))
    }
}

fn input<'a, 'b>(inputs: &'a [InputTable<'b>], port: &PortName) -> Result<&'a InputTable<'b>, Misfit> {
    inputs.iter().find(|input| input.port == port).ok_or_else(|| Misfit(format!("there is no table on `{port}`")))
}

/// The columns of an output whose schema was declared at run time.
pub(crate) fn declared_fields(declared: &Declared, inputs: &[InputTable<'_>]) -> Result<Vec<OutputField>, Misfit> {
    let mut fields = Vec::new();
    if let Some((port, without)) = &declared.passed {
        for field in &input(inputs, port)?.schema.fields {
            if !without.contains(&field.name) {
                fields.push(OutputField { field: field.clone(), source: Some((port.clone(), field.name.clone())) });
            }
        }
    }
    for field in &declared.added {
        if fields.iter().any(|known| known.field.name == field.name) {
            return Err(Misfit(format!("it adds the column `{}`, which is passed through too", field.name)));
        }
        fields.push(OutputField { field: field.clone(), source: None });
    }
    Ok(fields)
}

/// The schema of an output.
pub(crate) fn schema(fields: &[OutputField]) -> Schema {
    Schema { fields: fields.iter().map(|output| output.field.clone()).collect() }
}

/// One emitted part as a part of the output table. `index` is its index among those that the task
/// emitted.
pub(crate) fn part(
    record: &PartRecord,
    index: usize,
    fields: &[OutputField],
    inputs: &[InputTable<'_>],
) -> Result<Part, Misfit> {
    let computed = fields.iter().filter(|field| field.source.is_none()).count();
    if computed != record.columns.len() {
        return Err(Misfit(format!("{} columns were computed, and {computed} are planned", record.columns.len())));
    }
    let mut columns = Vec::with_capacity(fields.len());
    for OutputField { field, source } in fields {
        let chunk = match source {
            None => {
                let found = record.columns.iter().find(|(name, _)| *name == field.name);
                let fits = |chunk: &Arc<millrace_types::StoredChunk>| {
                    chunk.data_type == field.data_type
                        && chunk.rows == record.rows
                        && (field.nullable || chunk.null_count == 0)
                };
                match found {
                    Some((_, chunk)) if fits(chunk) => Chunk::Stored(chunk.clone()),
                    _ => return Err(Misfit(format!("the column `{}` differs from the plan", field.name))),
                }
            }
            Some((port, column)) => passed(record, index, port, column, field, inputs)?,
        };
        columns.push(chunk);
    }
    Ok(Part { rows: record.rows, columns })
}

fn passed(
    record: &PartRecord,
    index: usize,
    port: &PortName,
    column: &ColumnName,
    field: &Field,
    inputs: &[InputTable<'_>],
) -> Result<Chunk, Misfit> {
    let elsewhere = || Misfit(format!("the column `{column}` comes from `{port}`, and the rows do not"));
    let table = input(inputs, port)?;
    let (column_index, _) = table.schema.find(column.as_str()).ok_or_else(elsewhere)?;
    let same = || -> Result<&Arc<Part>, Misfit> { table.parts.get(index).ok_or_else(elsewhere) };
    match &record.origin {
        RowsRecord::SameRows { port: from } if from == port => {
            let part = same()?;
            if part.rows != record.rows {
                return Err(elsewhere());
            }
            Ok(part.columns[column_index].clone())
        }
        RowsRecord::Mask { port: from, selection } if from == port => {
            let part = same()?;
            if part.rows != selection.rows {
                return Err(elsewhere());
            }
            // A mask that selects all rows is no selection.
            if part.rows == record.rows {
                return Ok(part.columns[column_index].clone());
            }
            let source = vec![part.columns[column_index].clone()];
            Ok(Chunk::gather(Selection::Mask, selection, record.rows, source, field.data_type.clone()))
        }
        RowsRecord::Take { from } => {
            let (_, selection) = from.iter().find(|(from, _)| from == port).ok_or_else(elsewhere)?;
            let Some(selection) = selection else {
                let [part] = table.parts.as_slice() else { return Err(elsewhere()) };
                if part.rows != record.rows {
                    return Err(elsewhere());
                }
                return Ok(part.columns[column_index].clone());
            };
            let sources: Vec<Chunk> = table.parts.iter().map(|part| part.columns[column_index].clone()).collect();
            Ok(Chunk::gather(Selection::Take, selection, record.rows, sources, field.data_type.clone()))
        }
        _ => Err(elsewhere()),
    }
}
