//! The functions of `interface host`, as a guest calls them.

use millrace_tables::ColumnBytes;
use millrace_tables::check::Unchecked;
use millrace_types::action_record::Declared;
use millrace_types::{BlobRef, ColumnName, Field, InputItem, PortName, TablePart, bounds};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType, WasmList};

use crate::collective::not_collective;
use crate::output::{claim, take};
use crate::state::{Running, TaskState};
use crate::text::sanitize;
use crate::trap::EmitError;
use crate::world::{
    BlobRep, ColumnIn, ColumnOut, PartRows, PassThrough, TableRep, TaskRep, WitField, WitLevel, WitPhase, WitReduction,
};

type Cx<'a> = StoreContextMut<'a, TaskState>;

fn misuse(message: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(EmitError::Misuse(message.into()))
}

fn running<'a>(cx: &'a mut Cx<'_>) -> wasmtime::Result<&'a mut Running> {
    let state = cx.data_mut();
    // Calls that read gigabytes check the limits, too, not only loops.
    state.limiter.check().map_err(wasmtime::Error::new)?;
    state.task.as_mut().ok_or_else(|| misuse("it used a task, and there is none"))
}

fn table(running: &Running, handle: u32) -> wasmtime::Result<(&str, &[Field], &[TablePart])> {
    match running.item(handle) {
        Some(InputItem::Table { instance, fields, parts }) => Ok((instance, fields, parts)),
        _ => Err(misuse("it used a table that it does not have")),
    }
}

fn blob(running: &Running, handle: u32) -> wasmtime::Result<(&str, BlobRef)> {
    match running.item(handle) {
        Some(InputItem::Blob { instance, blob }) => Ok((instance, *blob)),
        _ => Err(misuse("it used a blob that it does not have")),
    }
}

/// The claims of a guest about a column in its memory.
fn claims<'a>(cx: &'a Cx<'_>, data: &ColumnIn) -> Unchecked<'a> {
    Unchecked {
        rows: data.len,
        null_count: data.null_count,
        validity: data.validity.as_ref().map(|bytes| bytes.as_le_slice(cx)),
        offsets: data.offsets.as_ref().map(|bytes| bytes.as_le_slice(cx)),
        values: data.values.as_le_slice(cx),
    }
}

fn begin(cx: &mut Cx<'_>, port: &str, rows: PartRows) -> wasmtime::Result<()> {
    let output = running(cx)?.outputs.begin(port).map_err(wasmtime::Error::new)?;
    let (origin, count) = match rows {
        PartRows::SameRows(input) => running(cx)?.outputs.same_rows(output, &input),
        PartRows::Rows(rows) => running(cx)?.outputs.new_rows(rows),
        PartRows::Mask(mask) => {
            let bits = mask.bits.as_le_slice(&*cx).to_vec();
            running(cx)?.outputs.mask(output, &mask.port, &bits)
        }
        PartRows::Take(takes) => {
            let mut checked: Vec<(PortName, ColumnBytes)> = Vec::with_capacity(takes.len());
            for one in &takes {
                let (name, rows) = running(cx)?.outputs.take_rows(&one.port).map_err(wasmtime::Error::new)?;
                let indices = claims(cx, &one.indices).check_indices(rows);
                checked.push((name, indices.map_err(|error| wasmtime::Error::new(claim("indices", &error)))?));
            }
            take(checked)
        }
    }
    .map_err(wasmtime::Error::new)?;
    let Running { outputs, chunks, .. } = running(cx)?;
    outputs.open(output, origin, count, &**chunks).map_err(wasmtime::Error::new)
}

fn column(cx: &mut Cx<'_>, name: &str, data: &ColumnIn) -> wasmtime::Result<()> {
    let (field, rows) = running(cx)?.outputs.field(name).map_err(wasmtime::Error::new)?;
    let what = format!("the column `{name}`");
    let Some(mut open) = running(cx)?.outputs.take_open() else { return Err(misuse("it has no open part")) };
    let column = claims(cx, data).check_in_place(&field.data_type, field.nullable);
    let column = column.map_err(|error| wasmtime::Error::new(claim(&what, &error)))?;
    if column.rows() as u64 != rows {
        return Err(misuse(format!("it handed over {what} with {} rows, and its part has {rows}", column.rows())));
    }
    open.column(&field, &column).map_err(wasmtime::Error::new)?;
    running(cx)?.outputs.put_open(open);
    Ok(())
}

fn port_name(text: &str) -> wasmtime::Result<PortName> {
    PortName::new(text).map_err(|error| misuse(format!("it named a port that cannot be: {error}")))
}

/// Defines everything that a component of the world imports.
#[expect(clippy::too_many_lines, reason = "one definition for each import")]
pub(crate) fn link(linker: &mut Linker<TaskState>) -> wasmtime::Result<()> {
    let version = millrace_types::action_key::WORLD_VERSION;
    // Types only: nothing to define, but the instance must exist.
    linker.instance(&format!("millrace:step/types@{version}"))?;
    let mut host = linker.instance(&format!("millrace:step/host@{version}"))?;
    host.resource("task", ResourceType::host::<TaskRep>(), |_, _| Ok(()))?;
    host.resource("table", ResourceType::host::<TableRep>(), |_, _| Ok(()))?;
    host.resource("blob", ResourceType::host::<BlobRep>(), |_, _| Ok(()))?;

    host.func_wrap("panicked", |mut cx: Cx<'_>, (message,): (String,)| {
        cx.data_mut().panic = Some(sanitize(message, bounds::MESSAGE_BYTES));
        Ok(())
    })?;

    host.func_wrap("[method]table.instance", |mut cx: Cx<'_>, (this,): (Resource<TableRep>,)| {
        Ok((table(running(&mut cx)?, this.rep())?.0.to_owned(),))
    })?;
    host.func_wrap("[method]table.schema", |mut cx: Cx<'_>, (this,): (Resource<TableRep>,)| {
        let (_, fields, _) = table(running(&mut cx)?, this.rep())?;
        Ok((fields.iter().map(WitField::from).collect::<Vec<_>>(),))
    })?;
    host.func_wrap("[method]table.parts", |mut cx: Cx<'_>, (this,): (Resource<TableRep>,)| {
        let (_, _, parts) = table(running(&mut cx)?, this.rep())?;
        Ok((parts.iter().map(|part| part.rows).collect::<Vec<_>>(),))
    })?;
    type RowsArgs = (Resource<TableRep>, u32, u32, u64, u64);
    host.func_wrap("[method]table.column", |mut cx: Cx<'_>, (this, part, column, from, rows): RowsArgs| {
        let running = running(&mut cx)?;
        let (_, fields, parts) = table(running, this.rep())?;
        let found = parts.get(part as usize);
        let Some((has, chunk)) = found.and_then(|part| Some((part.rows, part.columns.get(column as usize)?))) else {
            return Err(misuse(format!("it asked for column {column} of part {part}, which it does not have")));
        };
        let Some(to) = from.checked_add(rows).filter(|to| *to <= has) else {
            let name = fields.get(column as usize).map_or("?", |field| field.name.as_str());
            let message = format!("it asked for {rows} rows of `{name}` from {from} on, and part {part} has {has}");
            return Err(misuse(message));
        };
        let (chunk, chunks) = (chunk.clone(), running.chunks.clone());
        let block = running.open.rows((this.rep(), part, column), from..to, || chunks.column(&chunk));
        let block = block.map_err(wasmtime::Error::new)?;
        running.bytes_read += block.bytes();
        Ok((ColumnOut::from(block),))
    })?;

    host.func_wrap("[method]blob.instance", |mut cx: Cx<'_>, (this,): (Resource<BlobRep>,)| {
        Ok((blob(running(&mut cx)?, this.rep())?.0.to_owned(),))
    })?;
    host.func_wrap("[method]blob.size", |mut cx: Cx<'_>, (this,): (Resource<BlobRep>,)| {
        Ok((blob(running(&mut cx)?, this.rep())?.1.size,))
    })?;
    host.func_wrap("[method]blob.read", |mut cx: Cx<'_>, (this, offset, size): (Resource<BlobRep>, u64, u64)| {
        let running = running(&mut cx)?;
        let (_, blob) = blob(running, this.rep())?;
        let end = offset.checked_add(size).filter(|end| *end <= blob.size);
        let Some(end) = end else {
            return Err(misuse(format!("it read a blob from {offset} for {size} bytes, and it has {}", blob.size)));
        };
        let bytes = running.chunks.blob(&blob).map_err(wasmtime::Error::new)?;
        running.bytes_read += size;
        Ok((bytes.slice(offset as usize..end as usize),))
    })?;

    host.func_wrap("[method]task.params", |mut cx: Cx<'_>, (_,): (Resource<TaskRep>,)| {
        Ok((running(&mut cx)?.spec.params.clone(),))
    })?;
    host.func_wrap("[method]task.phase", |mut cx: Cx<'_>, (_,): (Resource<TaskRep>,)| {
        Ok((WitPhase::from(running(&mut cx)?.spec.phase),))
    })?;
    host.func_wrap("[method]task.tables", |mut cx: Cx<'_>, (_, port): (Resource<TaskRep>, String)| {
        let handles = running(&mut cx)?.handles_of(&port, true);
        Ok((handles.into_iter().map(Resource::<TableRep>::new_own).collect::<Vec<_>>(),))
    })?;
    host.func_wrap("[method]task.blobs", |mut cx: Cx<'_>, (_, port): (Resource<TaskRep>, String)| {
        let handles = running(&mut cx)?.handles_of(&port, false);
        Ok((handles.into_iter().map(Resource::<BlobRep>::new_own).collect::<Vec<_>>(),))
    })?;
    host.func_wrap("[method]task.partials", |mut cx: Cx<'_>, (_,): (Resource<TaskRep>,)| {
        Ok((running(&mut cx)?.spec.partials.len() as u32,))
    })?;
    host.func_wrap("[method]task.partial", |mut cx: Cx<'_>, (_, index): (Resource<TaskRep>, u32)| {
        let running = running(&mut cx)?;
        let Some(blob) = running.spec.partials.get(index as usize).copied() else {
            return Err(misuse(format!("it asked for partial {index} of {}", running.spec.partials.len())));
        };
        running.bytes_read += blob.size;
        Ok((running.chunks.blob(&blob).map_err(wasmtime::Error::new)?,))
    })?;

    host.func_wrap(
        "[method]task.all-reduce",
        |_: Cx<'_>, _: (Resource<TaskRep>, WitReduction, Vec<f64>)| -> wasmtime::Result<(Vec<f64>,)> {
            Err(not_collective())
        },
    )?;

    emitting(&mut host)
}

/// Stores a blob straight from the memory of the guest.
fn put_blob(cx: &mut Cx<'_>, bytes: &WasmList<u8>) -> wasmtime::Result<BlobRef> {
    let chunks = running(cx)?.chunks.clone();
    let blob = chunks.put_blob(bytes.as_le_slice(&*cx)).map_err(wasmtime::Error::new)?;
    running(cx)?.bytes_written += blob.size;
    Ok(blob)
}

fn emitting(host: &mut wasmtime::component::LinkerInstance<'_, TaskState>) -> wasmtime::Result<()> {
    host.func_wrap("[method]task.emit-partial", |mut cx: Cx<'_>, (_, bytes): (Resource<TaskRep>, WasmList<u8>)| {
        running(&mut cx)?.outputs.may_take_partial().map_err(wasmtime::Error::new)?;
        let partial = put_blob(&mut cx, &bytes)?;
        running(&mut cx)?.outputs.take_partial(partial);
        Ok(())
    })?;
    host.func_wrap(
        "[method]task.declare",
        |mut cx: Cx<'_>, (_, port, passed, added): (Resource<TaskRep>, String, Option<PassThrough>, Vec<WitField>)| {
            let passed = match passed {
                None => None,
                Some(passed) => {
                    let without = passed.without.iter().map(|name| ColumnName::new(name)).collect();
                    Some((port_name(&passed.port)?, without))
                }
            };
            let declared = Declared { passed, added: added.into_iter().map(Field::from).collect() };
            running(&mut cx)?.outputs.declare(&port, declared).map_err(wasmtime::Error::new)
        },
    )?;
    host.func_wrap("[method]task.begin", |mut cx: Cx<'_>, (_, port, rows): (Resource<TaskRep>, String, PartRows)| {
        begin(&mut cx, &port, rows)
    })?;
    host.func_wrap("[method]task.column", |mut cx: Cx<'_>, (_, name, data): (Resource<TaskRep>, String, ColumnIn)| {
        column(&mut cx, &name, &data)
    })?;
    host.func_wrap("[method]task.end", |mut cx: Cx<'_>, (_,): (Resource<TaskRep>,)| {
        let running = running(&mut cx)?;
        running.bytes_written += running.outputs.end(&*running.chunks).map_err(wasmtime::Error::new)?;
        Ok(())
    })?;
    host.func_wrap(
        "[method]task.emit-blob",
        |mut cx: Cx<'_>, (_, port, bytes): (Resource<TaskRep>, String, WasmList<u8>)| {
            let output = running(&mut cx)?.outputs.blob_output(&port).map_err(wasmtime::Error::new)?;
            let blob = put_blob(&mut cx, &bytes)?;
            running(&mut cx)?.outputs.take_blob(output, blob);
            Ok(())
        },
    )?;
    host.func_wrap("[method]task.metric", |mut cx: Cx<'_>, (_, name, value): (Resource<TaskRep>, String, f64)| {
        let running = running(&mut cx)?;
        if name.len() > bounds::NAME_BYTES || running.metrics.len() >= bounds::METRICS {
            return Err(misuse(format!(
                "it emitted too many metrics, or one with too long a name ({} bytes)",
                name.len()
            )));
        }
        if !value.is_finite() {
            return Err(misuse(format!("it emitted the metric `{name}` as {value}, which is no number")));
        }
        *running.metrics.entry(name).or_default() += value;
        Ok(())
    })?;
    host.func_wrap(
        "[method]task.log",
        |mut cx: Cx<'_>, (_, level, message): (Resource<TaskRep>, WitLevel, String)| {
            running(&mut cx)?.log(level.into(), message);
            Ok(())
        },
    )?;
    host.func_wrap("[method]task.progress", |mut cx: Cx<'_>, (_, done, total): (Resource<TaskRep>, u64, u64)| {
        if let Some(progress) = &running(&mut cx)?.progress {
            progress(done, total);
        }
        Ok(())
    })?;
    Ok(())
}
