//! What a step reads and does while it runs.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, BooleanArray, Float64Array, Int64Array, StringArray, UInt32Array};
use arrow_schema::Field;
use millrace_expr::{Checked, Column, ExprError};
use serde_json::Value;

use crate::backend::{Backend, Level, Phase, Reduction, Rows, TableBackend};
use crate::column::{f64_array, i64_array};
use crate::error::{Error, Result};
use crate::partials::Partials;
use crate::plan::type_name;

/// A running task.
pub struct Task<'a> {
    pub(crate) backend: &'a dyn Backend,
}

fn absent(port: &str) -> Error {
    Error::new(format!("nothing is connected to the port `{port}`"))
}

impl Task<'_> {
    /// Which function of the step runs.
    pub fn phase(&self) -> Phase {
        self.backend.phase()
    }

    /// The tables on a port: none when it is not connected, several when it
    /// gathers the instances of a matrix.
    pub fn tables(&self, port: &str) -> Vec<Table<'_>> {
        self.backend.tables(port).into_iter().map(Table::new).collect()
    }

    /// The table on a port.
    ///
    /// # Errors
    /// When nothing is connected.
    pub fn table(&self, port: &str) -> Result<Table<'_>> {
        self.tables(port).into_iter().next().ok_or_else(|| absent(port))
    }

    /// The one part of the mapped port, in `map` and `partial`.
    ///
    /// # Errors
    /// When nothing is connected.
    pub fn part(&self, port: &str) -> Result<Part<'_>> {
        self.table(port)?.part(0)
    }

    /// The blobs on a port, with the matrix values of their instances.
    ///
    /// # Errors
    /// When an instance is not JSON, which is a bug in the host.
    pub fn blobs(&self, port: &str) -> Result<Vec<(Value, Vec<u8>)>> {
        let blob = |(instance, bytes): (String, Vec<u8>)| Ok((serde_json::from_str(&instance)?, bytes));
        self.backend.blobs(port).into_iter().map(blob).collect()
    }

    /// The blob on a port.
    ///
    /// # Errors
    /// When nothing is connected.
    pub fn blob(&self, port: &str) -> Result<Vec<u8>> {
        self.backend.blobs(port).into_iter().next().map(|(_, bytes)| bytes).ok_or_else(|| absent(port))
    }

    /// The blob on a port, parsed as JSON.
    ///
    /// # Errors
    /// When nothing is connected, or it is not JSON.
    pub fn json(&self, port: &str) -> Result<Value> {
        // As text: a component has one JSON reader, and that reads text.
        let not = |what: String| Error::new(format!("the blob on `{port}` is not JSON: {what}"));
        let text = String::from_utf8(self.blob(port)?).map_err(|error| not(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| not(error.to_string()))
    }

    /// Emits a part with the rows of the input part, and these new columns.
    ///
    /// # Errors
    /// When a column cannot be handed over.
    pub fn same_rows(&self, port: &str, input: &str, columns: Vec<(&str, Column)>) -> Result<()> {
        self.emit(port, Rows::Same(input), columns)
    }

    /// As [`same_rows`](Self::same_rows), with columns that are computed one after the other:
    /// each is handed over before the next is computed, so that a guest needs the memory of
    /// one, and its working set stays in the cache.
    ///
    /// # Errors
    /// When a column cannot be handed over, and the first error of a column itself.
    pub fn same_rows_each<N: AsRef<str>>(
        &self,
        port: &str,
        input: &str,
        columns: impl IntoIterator<Item = Result<(N, Column)>>,
    ) -> Result<()> {
        self.backend.begin(port, Rows::Same(input))?;
        for column in columns {
            let (name, column) = column?;
            self.backend.column(name.as_ref(), column)?;
        }
        self.backend.end()
    }

    /// Emits a part with the rows of the input part that a mask selects, and these new columns,
    /// which have only the selected rows.
    ///
    /// # Errors
    /// When a column cannot be handed over, or the mask has nulls.
    pub fn mask(&self, port: &str, input: &str, mask: &BooleanArray, columns: Vec<(&str, Column)>) -> Result<()> {
        if mask.null_count() > 0 {
            return Err(Error::new("a mask must not have nulls"));
        }
        self.emit(port, Rows::Mask(input, mask), columns)
    }

    /// Emits a part with rows of one or more inputs, by index over all parts that
    /// the task sees, and these new columns. A null index gives a row of nulls.
    ///
    /// # Errors
    /// When a column cannot be handed over.
    pub fn take(&self, port: &str, indices: &[(&str, &UInt32Array)], columns: Vec<(&str, Column)>) -> Result<()> {
        self.emit(port, Rows::Take(indices), columns)
    }

    /// Emits a part with new rows.
    ///
    /// # Errors
    /// When a column cannot be handed over.
    pub fn rows(&self, port: &str, rows: usize, columns: Vec<(&str, Column)>) -> Result<()> {
        self.emit(port, Rows::New(rows as u64), columns)
    }

    fn emit(&self, port: &str, rows: Rows<'_>, columns: Vec<(&str, Column)>) -> Result<()> {
        self.backend.begin(port, rows)?;
        for (name, column) in columns {
            self.backend.column(name, column)?;
        }
        self.backend.end()
    }

    /// Declares the schema of an output that the plan left open, before its first part: the
    /// columns of `input` except for `without`, then the `added` ones.
    ///
    /// # Errors
    /// None so far: the host stops a task that declares an impossible schema.
    pub fn declare_replacing(&self, port: &str, input: &str, without: &[String], added: &[Field]) -> Result<()> {
        self.backend.declare(port, Some((input, without)), added)
    }

    /// Emits the blob of an output, once.
    ///
    /// # Errors
    /// When it was emitted before.
    pub fn emit_blob(&self, port: &str, bytes: &[u8]) -> Result<()> {
        self.backend.emit_blob(port, bytes)
    }

    #[doc(hidden)]
    pub fn emit_partial<P: serde::Serialize>(&self, partial: &P) -> Result<()> {
        // Allocated at its final size: a growing buffer copies its contents again and again.
        let size = postcard::experimental::serialized_size(partial)?;
        let bytes = postcard::to_extend(partial, Vec::with_capacity(size))?;
        self.backend.emit_partial(&bytes)
    }

    #[doc(hidden)]
    pub fn partials<P>(&self) -> Partials<'_, P> {
        Partials { backend: self.backend, kept: PhantomData }
    }

    /// Reduces the numbers of all guests of the task in place, index by index, and waits for
    /// all guests. All must ask for the same reduction, of equally many numbers; a NaN in any
    /// guest gives NaN. For [`Rounds`](crate::Rounds) only.
    ///
    /// # Errors
    /// None so far: the host stops guests that ask for different reductions.
    pub fn all_reduce(&self, how: Reduction, values: &mut [f64]) -> Result<()> {
        self.backend.all_reduce(how, values)
    }

    /// Emits a named number. The numbers of the parts of a step are summed.
    pub fn metric(&self, name: &str, value: f64) {
        self.backend.metric(name, value);
    }

    /// Writes a line to the log of the run.
    pub fn log(&self, level: Level, message: &str) {
        self.backend.log(level, message);
    }

    /// Reports the progress of the work.
    pub fn progress(&self, done: u64, total: u64) {
        self.backend.progress(done, total);
    }
}

/// A table on an input port, restricted to the columns of the plan.
#[derive(Clone)]
pub struct Table<'a> {
    inner: Arc<dyn TableBackend + 'a>,
    fields: Arc<[Field]>,
    rows: Arc<[u64]>,
}

impl<'a> Table<'a> {
    fn new(inner: Box<dyn TableBackend + 'a>) -> Self {
        Self { fields: inner.fields().into(), rows: inner.parts().into(), inner: Arc::from(inner) }
    }

    /// The matrix values of the instance it comes from.
    ///
    /// # Errors
    /// When they are not JSON, which is a bug in the host.
    pub fn instance(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.inner.instance())?)
    }

    /// The columns that can be read.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The number of rows of each part.
    pub fn part_rows(&self) -> &[u64] {
        &self.rows
    }

    /// The number of rows of all parts.
    pub fn rows(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// One part.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn part(&self, index: usize) -> Result<Part<'a>> {
        if index >= self.rows.len() {
            return Err(Error::new(format!("there is no part {index}, only {}", self.rows.len())));
        }
        Ok(self.whole(index))
    }

    /// All parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'a>> + '_ {
        (0..self.rows.len()).map(|index| self.whole(index))
    }

    fn whole(&self, index: usize) -> Part<'a> {
        Part { table: self.clone(), index, rows: 0..self.rows[index] as usize }
    }
}

/// Rows per block: 128 KiB of a column of numbers, so that the columns of a computation, and
/// its result, stay in the cache of a processor.
const BLOCK: usize = 16_384;

/// One part of a table, or a block of it. A column is fetched on request.
#[derive(Clone)]
pub struct Part<'a> {
    table: Table<'a>,
    index: usize,
    /// The range of its rows.
    rows: Range<usize>,
}

impl<'a> Part<'a> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The same rows in consecutive blocks: at least one, which is empty if there are no rows.
    /// Where blocks end depends only on the number of rows.
    ///
    /// Computing a row, or summing row by row, is faster on one block after the other: a column
    /// that is copied in as a whole has left the cache before it is read.
    pub fn blocks(&self) -> impl Iterator<Item = Part<'a>> + '_ {
        let Range { start, end } = self.rows;
        let block = move |i: usize| Part { rows: start + i * BLOCK..end.min(start + (i + 1) * BLOCK), ..self.clone() };
        (0..self.rows.len().div_ceil(BLOCK).max(1)).map(block)
    }

    /// The index in its part of a row of this block.
    pub fn row(&self, row: usize) -> usize {
        self.rows.start + row
    }

    /// The columns that can be read.
    pub fn fields(&self) -> &[Field] {
        &self.table.fields
    }

    /// A column, unchanged.
    ///
    /// # Errors
    /// When the plan does not read it.
    pub fn column(&self, name: &str) -> Result<Column> {
        let index = self.table.fields.iter().position(|field| field.name() == name);
        let index =
            index.ok_or_else(|| Error::new(format!("the plan does not read the column `{name}`")).in_column(name))?;
        self.table.inner.column(self.index, index, self.rows.clone())
    }

    /// Computes an expression over the rows, block by block.
    ///
    /// # Errors
    /// When the plan does not read one of its columns, or a value has no result: that error has
    /// the row, and the span in the param that contains the expression.
    pub fn computed(&self, expression: &Checked, param: &str) -> Result<Column> {
        let mut made = expression.pieces(self.rows());
        self.each_block(expression, param, |inputs, rows| made.push(expression.column(inputs, rows)?))?;
        made.finish().map_err(|error| Error::expression(error, param))
    }

    /// Returns the rows for which a condition holds, block by block; null counts as false.
    ///
    /// # Errors
    /// As [`Self::computed`], and when the expression is not boolean.
    pub fn holds(&self, condition: &Checked, param: &str) -> Result<BooleanArray> {
        let mut kept = condition.pieces(self.rows());
        self.each_block(condition, param, |inputs, rows| kept.push(condition.mask(inputs, rows)?.into()))?;
        let kept = kept.finish().map_err(|error| Error::expression(error, param))?;
        kept.boolean().ok_or_else(|| Error::new("a condition did not produce booleans"))
    }

    fn each_block(
        &self,
        expression: &Checked,
        param: &str,
        mut each: impl FnMut(&[Column], usize) -> Result<(), ExprError>,
    ) -> Result<()> {
        for block in self.blocks() {
            let inputs = expression.columns().iter().map(|name| block.column(name)).collect::<Result<Vec<_>>>()?;
            each(&inputs, block.rows()).map_err(|error| {
                let row = error.row.map(|row| block.row(row));
                Error::expression(ExprError { row, ..error }, param)
            })?;
        }
        Ok(())
    }

    /// A column of numbers or booleans as floats.
    ///
    /// # Errors
    /// When the plan does not read the column, or it has another type.
    pub fn f64(&self, name: &str) -> Result<Float64Array> {
        let column = self.column(name)?;
        f64_array(&column).ok_or_else(|| not(name, &column, "a number"))
    }

    /// A column of integers, signed and up to 64 bits, or booleans.
    ///
    /// # Errors
    /// When the plan does not read the column, or it has another type.
    pub fn i64(&self, name: &str) -> Result<Int64Array> {
        let column = self.column(name)?;
        i64_array(&column).ok_or_else(|| not(name, &column, "an integer"))
    }

    /// A column of text.
    ///
    /// # Errors
    /// When the plan does not read the column, or it has another type.
    pub fn text(&self, name: &str) -> Result<StringArray> {
        let column = self.column(name)?;
        column.text().ok_or_else(|| not(name, &column, "text"))
    }

    /// A column of booleans.
    ///
    /// # Errors
    /// When the plan does not read the column, or it has another type.
    pub fn bool(&self, name: &str) -> Result<BooleanArray> {
        let column = self.column(name)?;
        column.boolean().ok_or_else(|| not(name, &column, "boolean"))
    }
}

fn not(name: &str, found: &Column, needed: &str) -> Error {
    let found = type_name(found.data_type());
    Error::new(format!("column `{name}` is {found}, but {needed} is needed")).in_column(name)
}
