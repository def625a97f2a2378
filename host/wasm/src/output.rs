//! What a task emits: checks the order of calls, and that outputs fit the plan.

use std::sync::Arc;

use millrace_tables::check::{ClaimError, Unchecked};
use millrace_tables::chunks::SinkWriter;
use millrace_tables::pack::PackWriter;
use millrace_tables::{ChunkError, ColumnBytes, ColumnRef, PackSink, keep_pack, put_pack, rows};
use millrace_types::action_record::Declared;
use millrace_types::{
    BlobRef, ColumnName, DataType, Field, InputItem, OutputField, OutputPlan, OutputRecord, PartRecord, Phase,
    PortName, Produced, RowsRecord, Schema, StoredChunk, TaskSpec, bounds,
};

use crate::trap::{EmitError, misuse};

/// The rows of a part, as checked.
pub(crate) enum Rows {
    Same(PortName),
    Mask(PortName, ColumnBytes),
    Take(Vec<(PortName, ColumnBytes)>),
    New,
}

/// A part that is being emitted: its columns are written as they come.
pub(crate) struct OpenPart {
    output: usize,
    rows: u64,
    origin: Rows,
    /// Of the computed columns, in the order of the schema.
    pack: Option<SinkWriter>,
    /// Columns that were emitted too early: the order in the pack is that of the schema, and
    /// must not depend on the order of emission.
    waiting: Vec<(ColumnName, ColumnBytes)>,
    emitted: Vec<ColumnName>,
    bytes: u64,
}

impl OpenPart {
    /// Writes a column, or holds it until those before it are written.
    pub(crate) fn column(&mut self, field: &Field, column: &ColumnRef<'_>) -> Result<(), EmitError> {
        let Some(pack) = &mut self.pack else { return misuse("its part has no columns") };
        self.emitted.push(field.name.clone());
        self.bytes += column.bytes();
        if pack.next().is_none_or(|next| next.name != field.name) {
            self.waiting.push((field.name.clone(), column.to_column()));
            return Ok(());
        }
        pack.column(column).map_err(ChunkError::from)?;
        while let Some(next) = pack.next()
            && let Some(index) = self.waiting.iter().position(|(name, _)| *name == next.name)
        {
            pack.column(&self.waiting.swap_remove(index).1.as_ref()).map_err(ChunkError::from)?;
        }
        Ok(())
    }
}

/// What has been emitted on a port.
enum State {
    Blob(Option<BlobRef>),
    Table { fields: Option<Vec<OutputField>>, declared: Option<Declared>, parts: Vec<PartRecord> },
}

/// Everything that a task has emitted so far.
pub(crate) struct Outputs {
    phase: Phase,
    ports: Vec<(PortName, State)>,
    /// For each input table, the rows of the parts that the task sees.
    inputs: Vec<(PortName, Vec<u64>)>,
    open: Option<OpenPart>,
    partial: Option<BlobRef>,
    /// Another guest of the task emits the blobs.
    is_helper: bool,
}

impl Outputs {
    pub(crate) fn new(spec: &TaskSpec, is_helper: bool) -> Self {
        let state = |plan: &OutputPlan| match plan {
            OutputPlan::Blob { .. } => State::Blob(None),
            OutputPlan::Table { fields, .. } => {
                State::Table { fields: fields.clone(), declared: None, parts: Vec::new() }
            }
        };
        let mut ports: Vec<_> = match spec.phase {
            Phase::Partial => Vec::new(),
            _ => spec.outputs.iter().map(|plan| (plan.port().clone(), state(plan))).collect(),
        };
        ports.sort_by(|a: &(PortName, State), b| a.0.cmp(&b.0));
        let tables = spec.inputs.iter().filter_map(|input| match input.items.as_slice() {
            [InputItem::Table { parts, .. }] => {
                Some((input.port.clone(), parts.iter().map(|part| part.rows).collect()))
            }
            _ => None,
        });
        Self { phase: spec.phase, ports, inputs: tables.collect(), open: None, partial: None, is_helper }
    }

    fn index_of(&self, port: &str) -> Result<usize, EmitError> {
        match self.ports.iter().position(|(name, _)| *name == port) {
            Some(index) => Ok(index),
            None if self.phase == Phase::Partial => {
                misuse(format!("it emitted to `{port}` in `partial`, where only a partial comes out"))
            }
            None => misuse(format!("it emitted to `{port}`, which is none of its outputs")),
        }
    }

    fn input_rows(&self, port: &str) -> Result<&(PortName, Vec<u64>), EmitError> {
        match self.inputs.iter().find(|(name, _)| *name == port) {
            Some(found) => Ok(found),
            None => misuse(format!("it emitted rows of `{port}`, where there is no table")),
        }
    }

    /// The rows of the input part that belongs to the next part of an output.
    fn same_part(&self, output: usize, port: &str) -> Result<(PortName, u64), EmitError> {
        let (name, rows) = self.input_rows(port)?;
        let index = match &self.ports[output].1 {
            State::Table { parts, .. } => parts.len(),
            State::Blob(_) => 0,
        };
        match rows.get(index) {
            Some(rows) => Ok((name.clone(), *rows)),
            None => {
                misuse(format!("it emitted part {index} with the rows of `{port}`, which has {} parts", rows.len()))
            }
        }
    }

    pub(crate) fn begin(&mut self, port: &str) -> Result<usize, EmitError> {
        if let Some(open) = &self.open {
            return misuse(format!(
                "it began a part of `{port}` while one of `{}` was open",
                self.ports[open.output].0
            ));
        }
        let output = self.index_of(port)?;
        match &self.ports[output].1 {
            State::Blob(_) => misuse(format!("it began a part of `{port}`, which is a blob")),
            State::Table { fields: None, .. } => {
                misuse(format!("it began a part of `{port}` before it declared its schema"))
            }
            State::Table { parts, .. } if parts.len() >= bounds::PARTS_PER_TASK => {
                misuse(format!("it emitted more than {} parts of `{port}`", bounds::PARTS_PER_TASK))
            }
            State::Table { parts, .. } if self.phase == Phase::Map && !parts.is_empty() => {
                misuse(format!("it emitted a second part of `{port}` in `map`"))
            }
            State::Table { .. } => Ok(output),
        }
    }

    pub(crate) fn same_rows(&self, output: usize, port: &str) -> Result<(Rows, u64), EmitError> {
        let (port, rows) = self.same_part(output, port)?;
        Ok((Rows::Same(port), rows))
    }

    pub(crate) fn mask(&self, output: usize, port: &str, bits: &[u8]) -> Result<(Rows, u64), EmitError> {
        let (port, rows) = self.same_part(output, port)?;
        let claims = Unchecked { rows, null_count: 0, validity: None, offsets: None, values: bits };
        let mask = claims.check(&DataType::Boolean, false).map_err(|error| claim("the mask", &error))?;
        let kept = rows::kept(&mask);
        Ok((Rows::Mask(port, mask), kept))
    }

    pub(crate) fn take_rows(&self, port: &str) -> Result<(PortName, u64), EmitError> {
        let (name, rows) = self.input_rows(port)?;
        Ok((name.clone(), rows.iter().sum()))
    }

    pub(crate) fn new_rows(&self, rows: u64) -> Result<(Rows, u64), EmitError> {
        if rows > bounds::PART_ROWS {
            return misuse(format!("it began a part of {rows} rows, and a part has at most {}", bounds::PART_ROWS));
        }
        Ok((Rows::New, rows))
    }

    pub(crate) fn open(
        &mut self,
        output: usize,
        origin: Rows,
        rows: u64,
        sink: &dyn PackSink,
    ) -> Result<(), EmitError> {
        let State::Table { fields: Some(fields), .. } = &self.ports[output].1 else {
            return misuse("its output has no schema");
        };
        let computed = fields.iter().filter(|field| field.source.is_none());
        let computed: Vec<Field> = computed.map(|field| field.field.clone()).collect();
        let pack = match computed.as_slice() {
            [] => None,
            computed => Some(PackWriter::new(computed, rows, sink.new_pack()?)),
        };
        self.open = Some(OpenPart { output, rows, origin, pack, waiting: Vec::new(), emitted: Vec::new(), bytes: 0 });
        Ok(())
    }

    /// The field that a column is emitted for.
    pub(crate) fn field(&self, name: &str) -> Result<(Field, u64), EmitError> {
        let Some(open) = &self.open else { return misuse(format!("it emitted the column `{name}` outside of a part")) };
        let (port, state) = &self.ports[open.output];
        let State::Table { fields: Some(fields), .. } = state else { return misuse("its output has no schema") };
        if open.emitted.iter().any(|known| *known == name) {
            return misuse(format!("it emitted the column `{name}` of `{port}` twice"));
        }
        match fields.iter().find(|field| field.field.name == name) {
            Some(OutputField { field, source: None }) => Ok((field.clone(), open.rows)),
            Some(_) => misuse(format!("it emitted the column `{name}` of `{port}`, which is passed through")),
            None => misuse(format!("it emitted the column `{name}`, which `{port}` does not have")),
        }
    }

    /// Takes the open part, for a caller that borrows the memory of the guest meanwhile. It has
    /// to be put back.
    pub(crate) fn take_open(&mut self) -> Option<OpenPart> {
        self.open.take()
    }

    pub(crate) fn put_open(&mut self, open: OpenPart) {
        self.open = Some(open);
    }

    /// Ends the open part: all planned columns must have been emitted.
    pub(crate) fn end(&mut self, sink: &dyn PackSink) -> Result<u64, EmitError> {
        let Some(open) = self.open.take() else { return misuse("it ended a part, and none was open") };
        let OpenPart { output, rows, origin, pack, emitted, mut bytes, .. } = open;
        let (port, state) = &mut self.ports[output];
        let State::Table { fields: Some(fields), parts, declared } = state else {
            return misuse("its output has no schema");
        };
        if let Some((input, _)) = declared.as_ref().and_then(|declared| declared.passed.as_ref()) {
            check_source(&origin, port, input, &ColumnName::new("*"))?;
        }
        let mut names = Vec::new();
        for OutputField { field, source } in fields.iter() {
            match source {
                None if emitted.contains(&field.name) => names.push(field.name.clone()),
                None => return misuse(format!("it ended a part of `{port}` without its column `{}`", field.name)),
                Some((from, column)) => check_source(&origin, port, from, column)?,
            }
        }
        let chunks = match pack {
            None => Vec::new(),
            Some(pack) => keep_pack(pack)?,
        };
        let mut selection = |column: ColumnBytes| -> Result<Arc<StoredChunk>, EmitError> {
            bytes += column.bytes();
            let field =
                Field { name: ColumnName::new("selection"), data_type: column.data_type().clone(), nullable: true };
            put_pack(sink, &[field], &[column])?.pop().ok_or_else(|| EmitError::Misuse("no selection".to_owned()))
        };
        let origin = match origin {
            Rows::Same(port) => RowsRecord::SameRows { port },
            Rows::New => RowsRecord::Rows,
            Rows::Mask(port, mask) => RowsRecord::Mask { port, selection: selection(mask)? },
            Rows::Take(takes) => {
                let take = |(port, indices): (PortName, ColumnBytes)| {
                    let one = self
                        .inputs
                        .iter()
                        .any(|(name, rows)| *name == port && rows.as_slice() == [indices.rows() as u64]);
                    // A take of all rows in order is no selection.
                    if one && rows::is_identity(&indices) {
                        Ok((port, None))
                    } else {
                        Ok((port, Some(selection(indices)?)))
                    }
                };
                RowsRecord::Take { from: takes.into_iter().map(take).collect::<Result<_, EmitError>>()? }
            }
        };
        parts.push(PartRecord { rows, origin, columns: names.into_iter().zip(chunks).collect() });
        Ok(bytes)
    }

    pub(crate) fn declare(&mut self, port: &str, declared: Declared) -> Result<(), EmitError> {
        let output = self.index_of(port)?;
        if let Some((input, _)) = &declared.passed {
            self.input_rows(input.as_str())?;
        }
        let State::Table { fields, declared: known, .. } = &mut self.ports[output].1 else {
            return misuse(format!("it declared a schema for `{port}`, which is a blob"));
        };
        if fields.is_some() {
            return misuse(format!("it declared a schema for `{port}`, which has one"));
        }
        let schema = Schema { fields: declared.added.clone() };
        if let Some(twice) = schema.duplicate() {
            return misuse(format!("it declared two columns `{twice}` of `{port}`"));
        }
        // Passed columns are added when the table is assembled.
        *fields = Some(schema.fields.into_iter().map(|field| OutputField { field, source: None }).collect());
        *known = Some(declared);
        Ok(())
    }

    /// The index of an output on which a blob may be emitted now.
    pub(crate) fn blob_output(&self, port: &str) -> Result<usize, EmitError> {
        let output = self.index_of(port)?;
        match &self.ports[output].1 {
            State::Table { .. } => misuse(format!("it emitted a blob to `{port}`, which is a table")),
            State::Blob(Some(_)) => misuse(format!("it emitted a second blob to `{port}`")),
            State::Blob(None) => Ok(output),
        }
    }

    pub(crate) fn take_blob(&mut self, output: usize, blob: BlobRef) {
        self.ports[output].1 = State::Blob(Some(blob));
    }

    /// Whether a partial may be emitted now. Its bytes are stored straight from the memory of
    /// the guest, so the check comes first and [`Self::take_partial`] afterwards; likewise for
    /// blobs.
    pub(crate) fn may_take_partial(&self) -> Result<(), EmitError> {
        if self.phase != Phase::Partial {
            return misuse(format!("it emitted a partial in `{}`", self.phase.as_str()));
        }
        if self.partial.is_some() {
            return misuse("it emitted a second partial");
        }
        Ok(())
    }

    pub(crate) fn take_partial(&mut self, partial: BlobRef) {
        self.partial = Some(partial);
    }

    /// The outputs, when the step has returned.
    pub(crate) fn finish(self) -> Result<Produced, EmitError> {
        if let Some(open) = &self.open {
            return misuse(format!("it ended with a part of `{}` still open", self.ports[open.output].0));
        }
        if self.phase == Phase::Partial && self.partial.is_none() {
            return misuse("it emitted no partial");
        }
        let mut outputs = Vec::with_capacity(self.ports.len());
        for (port, state) in self.ports {
            let output = match state {
                State::Blob(Some(blob)) => OutputRecord::Blob(blob),
                State::Blob(None) if self.is_helper => continue,
                State::Blob(None) => return misuse(format!("it emitted no blob to `{port}`")),
                State::Table { parts, .. } if parts.is_empty() && self.phase == Phase::Map => {
                    return misuse(format!("it emitted no part of `{port}`"));
                }
                State::Table { fields: None, .. } => {
                    return misuse(format!("it never declared the schema of `{port}`"));
                }
                State::Table { declared, parts, .. } => OutputRecord::Table { declared, parts },
            };
            outputs.push((port, output));
        }
        Ok(Produced { outputs, partial: self.partial })
    }
}

fn check_source(origin: &Rows, port: &PortName, from: &PortName, column: &ColumnName) -> Result<(), EmitError> {
    let comes = match origin {
        Rows::Same(input) | Rows::Mask(input, _) => input == from,
        Rows::Take(takes) => takes.iter().any(|(input, _)| input == from),
        Rows::New => false,
    };
    if comes {
        return Ok(());
    }
    misuse(format!("`{port}` passes `{column}` through from `{from}`, and its rows do not come from there"))
}

pub(crate) fn claim(what: &str, error: &ClaimError) -> EmitError {
    EmitError::Misuse(format!("it handed over {what}, and {error}"))
}

/// Indices of a take, checked against the rows there are.
pub(crate) fn take(takes: Vec<(PortName, ColumnBytes)>) -> Result<(Rows, u64), EmitError> {
    let Some(rows) = takes.first().map(|(_, indices)| indices.rows()) else {
        return misuse("it took rows from no port");
    };
    if takes.iter().any(|(_, indices)| indices.rows() != rows) {
        return misuse("it took different numbers of rows from two ports");
    }
    for (i, (port, _)) in takes.iter().enumerate() {
        if takes[..i].iter().any(|(known, _)| known == port) {
            return misuse(format!("it took rows from `{port}` twice at once"));
        }
    }
    Ok((Rows::Take(takes), rows as u64))
}

#[cfg(test)]
mod tests {
    use millrace_tables::MemoryChunks;

    use super::*;

    /// Two tasks may make the same pack, and the record of each has the extents of its columns:
    /// they must be equal.
    #[test]
    fn the_layout_of_a_pack_does_not_depend_on_the_order_of_emission() {
        let names = ["a", "b", "c", "d"];
        let field = |name: &str| Field { name: ColumnName::new(name), data_type: DataType::Int32, nullable: false };
        let fields = names.map(field);
        let values = |index: usize| vec![index as u8 + 1; 4 * 50_000];
        let packed = |order: [usize; 4]| {
            let pack = Some(PackWriter::new(&fields, 50_000, MemoryChunks::default().new_pack().unwrap()));
            let (waiting, emitted) = (Vec::new(), Vec::new());
            let mut open = OpenPart { output: 0, rows: 50_000, origin: Rows::New, pack, waiting, emitted, bytes: 0 };
            for index in order {
                let values = values(index);
                let claims = Unchecked { rows: 50_000, null_count: 0, validity: None, offsets: None, values: &values };
                open.column(&fields[index], &claims.check_in_place(&DataType::Int32, false).unwrap()).unwrap();
            }
            assert_eq!((open.bytes, open.emitted.len(), open.waiting.len()), (4 * 4 * 50_000, 4, 0), "{order:?}");
            keep_pack(open.pack.unwrap()).unwrap()
        };
        let planned = packed([0, 1, 2, 3]);
        for order in [[3, 2, 1, 0], [1, 0, 3, 2], [2, 0, 3, 1], [0, 3, 1, 2]] {
            assert!(packed(order) == planned, "{order:?}");
        }
    }
}
