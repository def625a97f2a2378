//! What a step declares about one use of it, before anything runs.

use arrow_schema::{DataType, Field, Schema};

use crate::error::{Error, Result};
use crate::mode::Mode;

/// What a column must be for a step to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Integers, floats and booleans.
    Number,
    /// Text.
    Text,
    /// Anything.
    Any,
}

/// A column of an output, and its source if it is passed through.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutputField {
    pub(crate) field: Field,
    pub(crate) source: Option<(String, String)>,
}

/// The schema of an output table, under construction.
#[derive(Debug, Clone)]
pub struct Output {
    pub(crate) port: String,
    /// `None`: known only at run time.
    pub(crate) fields: Option<Vec<OutputField>>,
    inputs: Vec<(String, Option<Schema>)>,
}

/// A use of a step: its connected inputs, its reads and its outputs.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub(crate) inputs: Vec<(String, Option<Schema>)>,
    pub(crate) reads: Vec<(String, Vec<String>)>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) mode: Option<Mode>,
    pub(crate) errors: Vec<Error>,
}

fn schema<'a>(inputs: &'a [(String, Option<Schema>)], port: &str) -> Result<&'a Schema> {
    let found = inputs.iter().find(|(name, _)| name == port).and_then(|(_, schema)| schema.as_ref());
    found.ok_or_else(|| Error::new(format!("there is no table on the port `{port}`")))
}

fn unknown(port: &str, column: &str, schema: &Schema) -> Error {
    Error {
        message: format!("`{port}` has no column `{column}`"),
        missing: Some(column.to_owned()),
        candidates: schema.fields().iter().map(|field| field.name().clone()).collect(),
        ..Error::default()
    }
}

impl Plan {
    /// Whether something is connected to a port.
    pub fn is_connected(&self, port: &str) -> bool {
        self.inputs.iter().any(|(name, _)| name == port)
    }

    /// The schema of the table on a port.
    ///
    /// # Errors
    /// When there is no table on the port.
    pub fn schema(&self, port: &str) -> Result<Schema> {
        schema(&self.inputs, port).cloned()
    }

    /// Returns the field of a column without reading the column.
    ///
    /// # Errors
    /// When there is no such column; the error names the param.
    pub fn field(&self, port: &str, column: &str, param: &str) -> Result<Field> {
        let schema = schema(&self.inputs, port)?;
        let field = schema.field_with_name(column);
        field.cloned().map_err(|_| unknown(port, column, schema).in_param(param))
    }

    /// Declares that the step reads a column. It can see no others.
    ///
    /// # Errors
    /// When there is no such column, or it is of another kind; the error names
    /// the param.
    pub fn read(&mut self, port: &str, column: &str, kind: Kind, param: &str) -> Result<Field> {
        let field = self.field(port, column, param)?;
        let found = field.data_type();
        let (fits, needed) = match kind {
            Kind::Any => (true, ""),
            Kind::Text => (*found == DataType::Utf8, "text"),
            Kind::Number => (found.is_numeric() || *found == DataType::Boolean, "a number"),
        };
        if !fits {
            let message = format!("column `{column}` is {}, but {needed} is needed", type_name(found));
            return Err(Error::new(message).in_param(param));
        }
        let index = match self.reads.iter().position(|(name, _)| name == port) {
            Some(index) => index,
            None => {
                self.reads.push((port.to_owned(), Vec::new()));
                self.reads.len() - 1
            }
        };
        let columns = &mut self.reads[index].1;
        if !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
        Ok(field)
    }

    /// Starts the schema of an output table.
    pub fn output(&mut self, port: &str) -> &mut Output {
        self.outputs.push(Output { port: port.to_owned(), fields: Some(Vec::new()), inputs: self.inputs.clone() });
        let last = self.outputs.len() - 1;
        &mut self.outputs[last]
    }

    /// Declares that an output's schema is known only at run time: the step calls
    /// [`crate::Task::declare_replacing`].
    pub fn output_at_run_time(&mut self, port: &str) {
        self.outputs.push(Output { port: port.to_owned(), fields: None, inputs: Vec::new() });
    }

    /// Reads the columns that a param lists, and collects all errors.
    pub fn read_all(&mut self, port: &str, columns: &[String], kind: Kind, param: &str) {
        self.unique(param, columns);
        for (i, name) in columns.iter().enumerate() {
            let read = self.read(port, name, kind, &format!("{param}[{i}]"));
            self.keep(read);
        }
    }

    /// Reports an error for each column that a list names twice.
    pub fn unique(&mut self, param: &str, names: &[String]) {
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                let error = Error::new(format!("`{name}` is named twice")).in_param(format!("{param}[{i}]"));
                self.errors.push(error);
            }
        }
    }

    /// Chooses a mode other than the default.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = Some(mode);
    }

    /// Collects an error and continues, so that all of them are reported together.
    pub fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }
}

/// The name of a type as it is written in a pipeline file.
pub fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float32 => "float32",
        DataType::Float64 => "float64",
        DataType::Utf8 => "utf8",
        DataType::Binary => "binary",
        DataType::Date32 => "date32",
        DataType::Timestamp(..) => "timestamp",
        _ => "a type that a column cannot have",
    }
}

impl Output {
    fn push(&mut self, field: Field, source: Option<(String, String)>) {
        self.fields.get_or_insert_default().push(OutputField { field, source });
    }

    /// Passes all columns of an input through.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn pass_all(&mut self, port: &str) -> Result<&mut Self> {
        let fields = schema(&self.inputs, port)?.fields().clone();
        for field in &fields {
            self.push(field.as_ref().clone(), Some((port.to_owned(), field.name().clone())));
        }
        Ok(self)
    }

    /// Passes a column of an input through, under this name.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn pass(&mut self, port: &str, column: &str, name: &str) -> Result<&mut Self> {
        let schema = schema(&self.inputs, port)?;
        let field = schema.field_with_name(column).map_err(|_| unknown(port, column, schema))?;
        let field = field.clone().with_name(name);
        self.push(field, Some((port.to_owned(), column.to_owned())));
        Ok(self)
    }

    /// Leaves out a column that was passed through.
    pub fn without(&mut self, name: &str) -> &mut Self {
        self.fields.get_or_insert_default().retain(|known| known.field.name() != name);
        self
    }

    /// Adds a computed column; an existing column of this name is replaced at its index.
    pub fn add(&mut self, name: &str, data_type: DataType) -> &mut Self {
        let field = OutputField { field: Field::new(name, data_type, true), source: None };
        let fields = self.fields.get_or_insert_default();
        match fields.iter_mut().find(|known| known.field.name() == name) {
            Some(known) => *known = field,
            None => fields.push(field),
        }
        self
    }
}
