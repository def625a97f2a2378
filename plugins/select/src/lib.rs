//! `std:select` chooses, renames and casts columns. Columns that are not cast
//! are passed through: they never enter the sandbox.
//!
//! ```toml
//! [steps.narrow]
//! uses = "std:select"
//! input = "customers"
//! params = { columns = ["customer", "tenure"], rename = { tenure = "months" }, cast = { customer = "utf8" } }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use millrace_sdk::expr::{Checked, parse};
use millrace_sdk::prelude::*;

/// Params of `std:select`.
#[derive(Params)]
pub struct Select {
    /// The columns to keep, in this order; by default, all.
    columns: Option<Vec<String>>,
    /// Columns to leave out.
    #[param(default = Vec::new())]
    drop: Vec<String>,
    /// New names, by old name.
    #[param(default = BTreeMap::new())]
    rename: BTreeMap<String, String>,
    /// New types, by old name: boolean, int64, float64, utf8, date32, timestamp.
    #[param(default = BTreeMap::new())]
    cast: BTreeMap<String, String>,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Select {
    fn new_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.rename.get(name).map_or(name, String::as_str)
    }

    fn cast_of(&self, name: &str, field: &Field) -> Result<Checked> {
        let text = format!("cast({} as {})", quoted(name), self.cast[name]);
        let schema = millrace_sdk::arrow_schema::Schema::new(vec![field.clone()]);
        parse(&text).and_then(|expr| expr.check(&schema)).map_err(|error| {
            // The expression is generated: its spans mean nothing to the user.
            Error { span: None, ..Error::expression(error, format!("cast.{name}")) }
        })
    }
}

impl Step for Select {
    fn ports() -> Ports {
        Ports::new().mapped("input", "a table").table("output", "the chosen columns")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        let schema = plan.schema("input")?;
        let kept: Vec<String> = match &self.columns {
            Some(columns) => columns.clone(),
            None => schema.fields().iter().map(|field| field.name().clone()).collect(),
        };
        for (i, name) in self.columns.iter().flatten().enumerate() {
            let found = plan.field("input", name, &format!("columns[{i}]"));
            plan.keep(found);
        }
        for (i, name) in self.drop.iter().enumerate() {
            let found = plan.field("input", name, &format!("drop[{i}]"));
            plan.keep(found);
        }
        for name in self.rename.keys() {
            let found = plan.field("input", name, &format!("rename.{name}"));
            plan.keep(found);
        }
        let mut types = BTreeMap::new();
        for name in self.cast.keys() {
            let read = plan.read("input", name, Kind::Any, &format!("cast.{name}"));
            let cast = read.and_then(|field| self.cast_of(name, &field));
            if let Some(cast) = plan.keep(cast) {
                types.insert(name.as_str(), cast.data_type());
            }
        }
        let mut seen = BTreeSet::new();
        let kept: Vec<&String> = kept.iter().filter(|name| !self.drop.contains(name)).collect();
        if let Some(twice) = kept.iter().map(|name| self.new_name(name)).find(|name| !seen.insert(*name)) {
            let path = if self.rename.values().any(|new| new == twice) { "rename" } else { "columns" };
            plan.keep::<()>(Err(Error::new(format!("two columns would be called `{twice}`")).in_param(path)));
        }
        let output = plan.output("output");
        for name in kept {
            match types.get(name.as_str()) {
                Some(data_type) => {
                    output.add(self.new_name(name), data_type.clone());
                }
                // A missing column was reported above.
                None => drop(output.pass("input", name, self.new_name(name))),
            }
        }
        Ok(())
    }
}

impl Map for Select {
    fn map(&self, task: &Task) -> Result<()> {
        let part = task.part("input")?;
        let is_kept = |name: &&String| {
            self.columns.as_ref().is_none_or(|columns| columns.contains(name)) && !self.drop.contains(name)
        };
        let cast = |name: &String| {
            let column = part.column(name)?;
            let field = Field::new(name, column.data_type().clone(), true);
            let cast = self.cast_of(name, &field)?.column(&[column], part.rows());
            let cast = cast.map_err(|error| Error::expression(error, format!("cast.{name}")).in_column(name))?;
            Ok((self.new_name(name).to_owned(), cast))
        };
        task.same_rows_each("output", "input", self.cast.keys().filter(is_kept).map(cast))
    }
}

millrace_sdk::register!(Select: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn people() -> millrace_sdk::arrow_array::RecordBatch {
        table(vec![
            ("name", Arc::new(StringArray::from(vec!["Ada", "Bob"]))),
            ("age", Arc::new(Int64Array::from(vec![36, 41]))),
            ("code", Arc::new(StringArray::from(vec![Some("7"), None]))),
        ])
    }

    fn select(params: Value) -> Harness<Select> {
        Harness::new(params).table("input", people())
    }

    #[test]
    fn columns_are_chosen_renamed_and_cast() {
        let out =
            select(json!({ "columns": ["code", "name"], "rename": { "name": "who" }, "cast": { "code": "int64" } }));
        let out = out.run().unwrap();
        assert_eq!(out.columns("output"), ["code", "who"]);
        assert_eq!(out.numbers("output", "code"), [Some(7.0), None]);
        assert_eq!(select(json!({ "drop": ["age"] })).run().unwrap().columns("output"), ["name", "code"]);
    }

    #[test]
    fn errors_are_reported_together() {
        let problems =
            select(json!({ "columns": ["nam"], "rename": { "age": "name" }, "cast": { "name": "color" } })).problems();
        let text: Vec<String> =
            problems.iter().map(|p| format!("{:?}: {}", p.param.as_deref().unwrap_or(""), p.message)).collect();
        assert_eq!(text, [r#""columns[0]": `input` has no column `nam`"#, r#""cast.name": there is no type `color`"#]);
        let twice = select(json!({ "rename": { "age": "name" } })).problems();
        assert_eq!(twice[0].message, "two columns would be called `name`");
    }

    #[test]
    fn a_value_that_cannot_be_cast_names_its_row() {
        let error = select(json!({ "cast": { "name": "float64" } })).run().unwrap_err();
        assert_eq!((error.message.as_str(), error.row), ("the text `Ada` is not a float", Some(0)));
    }
}
