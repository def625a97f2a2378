//! Runs a step in a plain `cargo test`: the same plan, the same phases, the same tables
//! restricted to what the plan reads, without WebAssembly.
//!
//! Long because a test host implements all that a step can call.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_schema::{Field, Schema};
use arrow_select::concat::{concat, concat_batches};
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take;
use serde_json::Value;

use crate::backend::{Backend, Rows, TableBackend};
use crate::column::f64_array;
use crate::plan::OutputField;
use crate::{Column, Entry, Error, Level, Mode, Phase, Plan, Reduction, Result, Task};

/// A table of columns of equal length.
///
/// # Panics
/// When the columns differ in length.
pub fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of equal length")
}

enum Input {
    Parts(Vec<RecordBatch>),
    Blobs(Vec<(String, Vec<u8>)>),
}

/// A step with its params and inputs.
pub struct Harness<S> {
    params: Value,
    inputs: Vec<(String, Input)>,
    step: PhantomData<S>,
}

/// What a step produced.
#[derive(Debug, Default)]
pub struct Outcome {
    tables: BTreeMap<String, Vec<RecordBatch>>,
    blobs: BTreeMap<String, Vec<u8>>,
    /// The partials of a fold, serialized, one for each part.
    pub partials: Vec<Vec<u8>>,
    /// The metrics, summed over parts.
    pub metrics: BTreeMap<String, f64>,
    /// The lines of the log.
    pub log: Vec<String>,
}

impl<S: Entry> Harness<S> {
    /// Creates a harness for the step with these params.
    pub fn new(params: Value) -> Self {
        Self { params, inputs: Vec::new(), step: PhantomData }
    }

    /// Connects a table of one part.
    #[must_use]
    pub fn table(self, port: &str, table: RecordBatch) -> Self {
        self.parts(port, vec![table])
    }

    /// Connects a table of several parts.
    #[must_use]
    pub fn parts(mut self, port: &str, parts: Vec<RecordBatch>) -> Self {
        self.inputs.push((port.to_owned(), Input::Parts(parts)));
        self
    }

    /// Connects a blob.
    #[must_use]
    pub fn blob(self, port: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.blobs(port, vec![(Value::Object(serde_json::Map::new()), bytes.into())])
    }

    /// Connects the blobs of matrix instances, each with its matrix values.
    #[must_use]
    pub fn blobs(mut self, port: &str, blobs: Vec<(Value, Vec<u8>)>) -> Self {
        let blobs = blobs.into_iter().map(|(instance, bytes)| (instance.to_string(), bytes)).collect();
        self.inputs.push((port.to_owned(), Input::Blobs(blobs)));
        self
    }

    /// The problems that `plan` reports for this use; empty when there are none.
    pub fn problems(&self) -> Vec<Error> {
        self.plan().err().unwrap_or_default()
    }

    fn plan(&self) -> Result<(S, Plan), Vec<Error>> {
        let step = S::from_json(&self.params)?;
        let inputs = self.inputs.iter().map(|(port, input)| {
            let schema = match input {
                Input::Parts(parts) => parts.first().map(|part| part.schema().as_ref().clone()),
                Input::Blobs(_) => None,
            };
            (port.clone(), schema)
        });
        let mut plan = Plan { inputs: inputs.collect(), ..Plan::default() };
        let result = step.plan(&mut plan);
        plan.keep(result);
        if plan.errors.is_empty() { Ok((step, plan)) } else { Err(plan.errors) }
    }

    /// Plans and runs the step, part by part as its mode requires.
    ///
    /// # Errors
    /// When the plan has problems (the first one is returned), or the step fails.
    pub fn run(&self) -> Result<Outcome> {
        let (step, plan) = self.plan().map_err(|mut errors| errors.remove(0))?;
        let mapped = S::ports().inputs.iter().find(|port| port.mapped).map(|port| port.name);
        let parts =
            self.inputs.iter().find(|(port, _)| Some(port.as_str()) == mapped).map_or(1, |(_, input)| match input {
                Input::Parts(parts) => parts.len(),
                Input::Blobs(_) => 1,
            });
        let state = RefCell::new(Outcome::default());
        let run = |phase, part: Option<usize>, partials: Vec<Vec<u8>>| -> Result<Option<Vec<u8>>> {
            let task = TestTask {
                harness: self.view(&plan, mapped, part),
                phase,
                partials,
                plan: &plan,
                state: &state,
                open: RefCell::default(),
                partial: RefCell::default(),
                seat: None,
            };
            step.run(&Task { backend: &task })?;
            let TestTask { partial, partials, .. } = task;
            state.borrow_mut().partials = partials;
            Ok(partial.into_inner())
        };
        match plan.mode.unwrap_or(S::MANIFEST.mode) {
            Mode::Map => {
                for part in 0..parts {
                    run(Phase::Map, Some(part), Vec::new())?;
                }
            }
            Mode::Whole => {
                run(Phase::Whole, None, Vec::new())?;
            }
            Mode::Fold => {
                let partials = (0..parts).map(|part| {
                    run(Phase::Partial, Some(part), Vec::new())?.ok_or_else(|| Error::new("no partial was emitted"))
                });
                let partials = partials.collect::<Result<Vec<_>>>()?;
                run(Phase::Merge, None, partials)?;
            }
            Mode::Rounds => return self.rounds(&plan, mapped, parts),
        }
        Ok(state.into_inner())
    }

    /// Runs one guest for each part, each on its own thread.
    fn rounds(&self, plan: &Plan, mapped: Option<&str>, parts: usize) -> Result<Outcome> {
        let meeting = Meeting::new(parts.max(1));
        let params = &self.params;
        let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
            let views = (0..parts.max(1)).map(|part| self.view(plan, mapped, (parts > 0).then_some(part)));
            let guest = |(guest, harness): (usize, Vec<(String, View)>)| {
                let meeting = &meeting;
                scope.spawn(move || {
                    let _leaving = Leaving(meeting);
                    let state = RefCell::new(Outcome::default());
                    let task = TestTask {
                        harness,
                        phase: Phase::Rounds,
                        partials: Vec::new(),
                        plan,
                        state: &state,
                        open: RefCell::default(),
                        partial: RefCell::default(),
                        seat: Some((meeting, guest)),
                    };
                    let step = S::from_json(params).map_err(|mut errors| errors.remove(0))?;
                    step.run(&Task { backend: &task })?;
                    drop(task);
                    Ok(state.into_inner())
                })
            };
            let threads: Vec<_> = views.enumerate().map(guest).collect();
            let panicked = || Err(Error::new("a guest panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
        });
        let left = |error: &Error| error.message == LEFT;
        if let Some(Err(error)) = outcomes.iter().find(|outcome| outcome.as_ref().is_err_and(|error| !left(error))) {
            return Err(error.clone());
        }
        let mut outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter();
        let first = outcomes.next().unwrap_or_default();
        // Blobs may be left to the first guest; those that another guest emits must be the same.
        let agrees = |other: Outcome| {
            let same = |(port, blob): (&String, &Vec<u8>)| first.blobs.get(port) == Some(blob);
            other.blobs.iter().all(same) && other.metrics == first.metrics
        };
        match outcomes.all(agrees) {
            true => Ok(first),
            false => Err(Error::new("the guests produced different blobs or metrics")),
        }
    }

    /// The inputs as a task sees them: only one part of the mapped port.
    fn view(&self, plan: &Plan, mapped: Option<&str>, part: Option<usize>) -> Vec<(String, View)> {
        let view = |(port, input): &(String, Input)| {
            let view = match input {
                Input::Blobs(blobs) => View::Blobs(blobs.clone()),
                Input::Parts(parts) => {
                    let seen: Vec<RecordBatch> = match part {
                        Some(part) if Some(port.as_str()) == mapped => parts[part..=part].to_vec(),
                        _ => parts.clone(),
                    };
                    let reads = plan.reads.iter().find(|(name, _)| name == port).map(|(_, columns)| columns.clone());
                    View::Table { all: seen, reads: reads.unwrap_or_default() }
                }
            };
            (port.clone(), view)
        };
        self.inputs.iter().map(view).collect()
    }
}

impl Outcome {
    /// An output table as one batch.
    ///
    /// # Panics
    /// When the step emitted no part of the table.
    pub fn table(&self, port: &str) -> RecordBatch {
        let parts = self.tables.get(port).unwrap_or_else(|| panic!("no part of `{port}` was emitted"));
        concat_batches(&parts[0].schema(), parts).expect("parts with the same schema")
    }

    /// The parts of an output table.
    pub fn parts(&self, port: &str) -> &[RecordBatch] {
        self.tables.get(port).map_or(&[], Vec::as_slice)
    }

    /// Names of the columns of an output table.
    pub fn columns(&self, port: &str) -> Vec<String> {
        self.table(port).schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// A column of an output table.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn column(&self, port: &str, name: &str) -> ArrayRef {
        let table = self.table(port);
        table.column_by_name(name).unwrap_or_else(|| panic!("`{port}` has no column `{name}`")).clone()
    }

    /// A numeric column of an output table.
    ///
    /// # Panics
    /// When there is no such column, or it is not numeric.
    pub fn numbers(&self, port: &str, name: &str) -> Vec<Option<f64>> {
        let column = Column::try_from(&*self.column(port, name)).ok();
        let array = column.as_ref().and_then(f64_array).expect("a column of numbers");
        array.iter().collect()
    }

    /// A text column of an output table.
    ///
    /// # Panics
    /// When there is no such column, or it is not text.
    pub fn text(&self, port: &str, name: &str) -> Vec<Option<String>> {
        self.column(port, name).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    }

    /// An output blob.
    ///
    /// # Panics
    /// When the step emitted no such blob.
    pub fn blob(&self, port: &str) -> &[u8] {
        self.blobs.get(port).unwrap_or_else(|| panic!("no blob `{port}` was emitted"))
    }
}

/// The error of a guest that waits for one that has exited.
const LEFT: &str = "another guest has ended";

/// The meeting point of the guests of a task in `rounds`.
struct Meeting {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Default)]
struct Round {
    number: usize,
    asked: Option<(Reduction, usize)>,
    values: Vec<Option<Vec<f64>>>,
    /// The result for each guest.
    made: Vec<Vec<f64>>,
    ended: bool,
}

impl Meeting {
    fn new(guests: usize) -> Self {
        Self { round: Mutex::new(Round { values: vec![None; guests], ..Round::default() }), changed: Condvar::new() }
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, guest: usize, how: Reduction, values: &[f64]) -> Result<Vec<f64>> {
        let mut round = self.round();
        if *round.asked.get_or_insert((how, values.len())) != (how, values.len()) {
            return Err(Error::new("the guests ask for different reductions"));
        }
        round.values[guest] = Some(values.to_vec());
        let number = round.number;
        if round.values.iter().all(Option::is_some) {
            let all: Vec<Vec<f64>> = round.values.iter_mut().filter_map(Option::take).collect();
            round.made = (0..all.len()).map(|guest| reduced(how, &all, guest)).collect();
            (round.number, round.asked) = (number + 1, None);
            self.changed.notify_all();
        }
        while round.number == number {
            if round.ended {
                return Err(Error::new(LEFT));
            }
            round = self.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(round.made[guest].clone())
    }
}

fn reduced(how: Reduction, all: &[Vec<f64>], guest: usize) -> Vec<f64> {
    let column = |i: usize| all.iter().map(move |values| values[i]);
    let one = |i: usize| match how {
        Reduction::Sum => column(i).reduce(|a, b| a + b).unwrap_or(0.0),
        Reduction::Min => column(i).reduce(f64::min).unwrap_or(0.0),
        Reduction::Max => column(i).reduce(f64::max).unwrap_or(0.0),
        Reduction::Before => column(i).take(guest).sum(),
    };
    (0..all[guest].len()).map(one).collect()
}

struct Leaving<'a>(&'a Meeting);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.round().ended = true;
        self.0.changed.notify_all();
    }
}

enum View {
    Table { all: Vec<RecordBatch>, reads: Vec<String> },
    Blobs(Vec<(String, Vec<u8>)>),
}

enum OpenRows {
    Same(String),
    Mask(String, BooleanArray),
    Take(Vec<(String, UInt32Array)>),
    New(usize),
}

struct OpenPart {
    port: String,
    rows: OpenRows,
    columns: Vec<(String, ArrayRef)>,
}

struct TestTask<'a> {
    harness: Vec<(String, View)>,
    phase: Phase,
    partials: Vec<Vec<u8>>,
    plan: &'a Plan,
    state: &'a RefCell<Outcome>,
    open: RefCell<(Option<OpenPart>, BTreeMap<String, Vec<OutputField>>, BTreeMap<String, usize>)>,
    partial: RefCell<Option<Vec<u8>>>,
    /// The meeting point of the guests, and the index of this one.
    seat: Option<(&'a Meeting, usize)>,
}

impl TestTask<'_> {
    fn input(&self, port: &str) -> Option<&View> {
        self.harness.iter().find(|(name, _)| name == port).map(|(_, view)| view)
    }

    fn all(&self, port: &str) -> Result<&[RecordBatch]> {
        match self.input(port) {
            Some(View::Table { all, .. }) => Ok(all),
            _ => Err(Error::new(format!("there is no table on `{port}`"))),
        }
    }

    /// The rows of a passed-through column in an emitted part.
    fn passed(&self, rows: &OpenRows, index: usize, port: &str, column: &str) -> Result<ArrayRef> {
        let parts = self.all(port)?;
        let of = |batch: &RecordBatch| {
            let array = batch.column_by_name(column).cloned();
            array.ok_or_else(|| Error::new(format!("`{port}` has no column `{column}`")))
        };
        match rows {
            OpenRows::Same(from) | OpenRows::Mask(from, _) if from != port => {
                Err(Error::new(format!("`{column}` comes from `{port}`, but the rows are those of `{from}`")))
            }
            OpenRows::Same(_) => of(&parts[index]),
            OpenRows::Mask(_, mask) => of(&filter_record_batch(&parts[index], mask)?),
            OpenRows::Take(indices) => {
                let arrays = parts.iter().map(of).collect::<Result<Vec<_>>>()?;
                let whole = concat(&arrays.iter().map(|array| &**array).collect::<Vec<_>>())?;
                let (_, indices) =
                    indices.iter().find(|(name, _)| name == port).ok_or_else(|| Error::new("no indices"))?;
                Ok(take(&whole, indices, None)?)
            }
            OpenRows::New(_) => Err(Error::new("new rows have no columns to pass through")),
        }
    }
}

impl Backend for TestTask<'_> {
    fn phase(&self) -> Phase {
        self.phase
    }

    fn tables(&self, port: &str) -> Vec<Box<dyn TableBackend + '_>> {
        match self.input(port) {
            Some(View::Table { all, reads }) => vec![Box::new(TestTable { all, reads })],
            _ => Vec::new(),
        }
    }

    fn blobs(&self, port: &str) -> Vec<(String, Vec<u8>)> {
        match self.input(port) {
            Some(View::Blobs(blobs)) => blobs.clone(),
            _ => Vec::new(),
        }
    }

    fn partials(&self) -> usize {
        self.partials.len()
    }

    fn partial(&self, index: usize) -> Vec<u8> {
        self.partials[index].clone()
    }

    fn emit_partial(&self, bytes: &[u8]) -> Result<()> {
        match self.partial.replace(Some(bytes.to_vec())) {
            None => Ok(()),
            Some(_) => Err(Error::new("a second partial was emitted")),
        }
    }

    fn all_reduce(&self, how: Reduction, values: &mut [f64]) -> Result<()> {
        let (meeting, guest) = self.seat.ok_or_else(|| Error::new("there are other guests in `rounds` only"))?;
        values.copy_from_slice(&meeting.meet(guest, how, values)?);
        Ok(())
    }

    fn declare(&self, port: &str, passed: Option<(&str, &[String])>, added: &[Field]) -> Result<()> {
        let mut fields = Vec::new();
        if let Some((input, without)) = passed {
            let first = self.all(input)?.first().ok_or_else(|| Error::new("there is no part"))?;
            for field in first.schema().fields().iter().filter(|field| !without.contains(field.name())) {
                let source = Some((input.to_owned(), field.name().clone()));
                fields.push(OutputField { field: field.as_ref().clone(), source });
            }
        }
        fields.extend(added.iter().map(|field| OutputField { field: field.clone(), source: None }));
        self.open.borrow_mut().1.insert(port.to_owned(), fields);
        Ok(())
    }

    fn begin(&self, port: &str, rows: Rows<'_>) -> Result<()> {
        let rows = match rows {
            Rows::Same(input) => OpenRows::Same(input.to_owned()),
            Rows::Mask(input, mask) => OpenRows::Mask(input.to_owned(), mask.clone()),
            Rows::Take(indices) => {
                OpenRows::Take(indices.iter().map(|(port, array)| ((*port).to_owned(), (*array).clone())).collect())
            }
            Rows::New(rows) => OpenRows::New(rows as usize),
        };
        let part = OpenPart { port: port.to_owned(), rows, columns: Vec::new() };
        match self.open.borrow_mut().0.replace(part) {
            None => Ok(()),
            Some(open) => Err(Error::new(format!("a part of `{}` is still open", open.port))),
        }
    }

    fn column(&self, name: &str, column: Column) -> Result<()> {
        let array = ArrayRef::try_from(column)?;
        match &mut self.open.borrow_mut().0 {
            Some(open) => open.columns.push((name.to_owned(), array)),
            None => return Err(Error::new("a column was emitted outside of a part")),
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let mut state = self.open.borrow_mut();
        let part = state.0.take().ok_or_else(|| Error::new("no part is open"))?;
        let planned = self.plan.outputs.iter().find(|output| output.port == part.port);
        let fields = planned.and_then(|output| output.fields.clone()).or_else(|| state.1.get(&part.port).cloned());
        let fields = fields.ok_or_else(|| Error::new(format!("`{}` has no schema", part.port)))?;
        let index = state.2.entry(part.port.clone()).or_default();
        let mut arrays = Vec::new();
        for OutputField { field, source } in &fields {
            let array = match source {
                Some((port, column)) => self.passed(&part.rows, *index, port, column)?,
                None => {
                    let found = part.columns.iter().find(|(name, _)| name == field.name());
                    let (_, array) =
                        found.ok_or_else(|| Error::new(format!("column `{}` was not emitted", field.name())))?;
                    array.clone()
                }
            };
            if array.data_type() != field.data_type() {
                let message =
                    format!("column `{}` is {}, planned as {}", field.name(), array.data_type(), field.data_type());
                return Err(Error::new(message));
            }
            arrays.push(array);
        }
        *index += 1;
        if let Some((name, _)) =
            part.columns.iter().find(|(name, _)| !fields.iter().any(|f| f.field.name() == name && f.source.is_none()))
        {
            return Err(Error::new(format!("column `{name}` was not planned")));
        }
        let schema = Arc::new(Schema::new(fields.into_iter().map(|field| field.field).collect::<Vec<_>>()));
        let rows = match &part.rows {
            OpenRows::New(rows) => *rows,
            OpenRows::Same(port) => self.all(port)?[*index - 1].num_rows(),
            OpenRows::Mask(_, mask) => mask.true_count(),
            OpenRows::Take(indices) => indices.first().map_or(0, |(_, array)| array.len()),
        };
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)?;
        self.state.borrow_mut().tables.entry(part.port).or_default().push(batch);
        Ok(())
    }

    fn emit_blob(&self, port: &str, bytes: &[u8]) -> Result<()> {
        match self.state.borrow_mut().blobs.insert(port.to_owned(), bytes.to_vec()) {
            None => Ok(()),
            Some(_) => Err(Error::new(format!("a second blob was emitted on `{port}`"))),
        }
    }

    fn metric(&self, name: &str, value: f64) {
        *self.state.borrow_mut().metrics.entry(name.to_owned()).or_default() += value;
    }

    fn log(&self, _: Level, message: &str) {
        self.state.borrow_mut().log.push(message.to_owned());
    }

    fn progress(&self, _: u64, _: u64) {}
}

struct TestTable<'a> {
    all: &'a [RecordBatch],
    reads: &'a [String],
}

impl TableBackend for TestTable<'_> {
    fn instance(&self) -> String {
        "{}".to_owned()
    }

    fn fields(&self) -> Vec<Field> {
        let Some(first) = self.all.first() else { return Vec::new() };
        let fields = first.schema().fields().clone();
        fields.iter().filter(|field| self.reads.contains(field.name())).map(|field| field.as_ref().clone()).collect()
    }

    fn parts(&self) -> Vec<u64> {
        self.all.iter().map(|part| part.num_rows() as u64).collect()
    }

    fn column(&self, part: usize, column: usize, rows: Range<usize>) -> Result<Column> {
        let name = self.fields()[column].name().clone();
        let array = self.all[part].column_by_name(&name).ok_or_else(|| Error::new("no such column"))?;
        Ok(Column::try_from(&*array.slice(rows.start, rows.len()))?)
    }
}
