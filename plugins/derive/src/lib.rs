//! `std:derive` computes new columns from expressions. A new column may replace
//! an old one of its name; expressions see the columns of the input only.
//!
//! ```toml
//! [steps.features]
//! uses = "std:derive"
//! input = "customers"
//! params.columns = { log_charges = "log1p(monthly_charges)", churned = "churn = 'Yes'" }
//! ```

use std::collections::BTreeMap;

use millrace_sdk::expr::{Checked, parse};
use millrace_sdk::prelude::*;

/// Params of `std:derive`.
#[derive(Params)]
pub struct Derive {
    /// The expression of each new column, by its name.
    columns: BTreeMap<String, String>,
    /// Whether to keep the columns of the input.
    #[param(default = true)]
    keep: bool,
}

fn check(name: &str, text: &str, fields: Vec<Field>) -> Result<Checked> {
    let schema = millrace_sdk::arrow_schema::Schema::new(fields);
    let checked = parse(text).and_then(|expr| expr.check(&schema));
    checked.map_err(|error| Error::expression(error, format!("columns.{name}")))
}

impl Step for Derive {
    fn ports() -> Ports {
        Ports::new().mapped("input", "a table").table("output", "the table and the new columns")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        let fields: Vec<Field> = plan.schema("input")?.fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut types = Vec::new();
        for (name, text) in &self.columns {
            let Some(checked) = plan.keep(check(name, text, fields.clone())) else { continue };
            for column in checked.columns() {
                plan.read("input", column, Kind::Any, &format!("columns.{name}"))?;
            }
            types.push((name, checked.data_type()));
        }
        let output = plan.output("output");
        if self.keep {
            output.pass_all("input")?;
        }
        for (name, data_type) in types {
            output.add(name, data_type);
        }
        Ok(())
    }
}

impl Map for Derive {
    fn map(&self, task: &Task) -> Result<()> {
        let part = task.part("input")?;
        let derived = |(name, text): (&String, &String)| {
            let checked = check(name, text, part.fields().to_vec())?;
            let inputs = checked.columns().iter().map(|column| part.column(column)).collect::<Result<Vec<_>>>()?;
            let array = checked.column(&inputs, part.rows());
            let array = array.map_err(|error| Error::expression(error, format!("columns.{name}")).in_column(name))?;
            Ok((name.clone(), array))
        };
        task.same_rows_each("output", "input", self.columns.iter().map(derived))
    }
}

millrace_sdk::register!(Derive: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn derive(params: Value) -> Harness<Derive> {
        let input = table(vec![
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MAX)]))),
            ("b", Arc::new(Float64Array::from(vec![2.0, 0.5, 1.0]))),
        ]);
        Harness::new(params).table("input", input)
    }

    #[test]
    fn columns_are_added_and_replaced() {
        let out = derive(json!({ "columns": { "c": "a / b", "b": "b * 10" } })).run().unwrap();
        assert_eq!(out.columns("output"), ["a", "b", "c"]);
        assert_eq!(out.numbers("output", "c")[..2], [Some(0.5), None]);
        assert_eq!(out.numbers("output", "b"), [Some(20.0), Some(5.0), Some(10.0)]);
        assert_eq!(derive(json!({ "columns": { "c": "b" }, "keep": false })).run().unwrap().columns("output"), ["c"]);
    }

    #[test]
    fn every_bad_expression_is_reported() {
        let problems = derive(json!({ "columns": { "c": "x + 1", "d": "a +", "e": "lnn(b)" } })).problems();
        let text: Vec<String> = problems
            .iter()
            .map(|p| format!("{} {:?} {}", p.param.as_deref().unwrap(), p.span.unwrap(), p.message))
            .collect();
        assert_eq!(
            text,
            [
                "columns.c (0, 1) there is no column `x`",
                "columns.d (3, 3) the expression ends where a value should stand",
                "columns.e (0, 6) there is no function `lnn`",
            ]
        );
    }

    #[test]
    fn overflow_is_an_error_with_its_row() {
        let error = derive(json!({ "columns": { "c": "a + 1" } })).run().unwrap_err();
        assert_eq!((error.column.as_deref(), error.row), (Some("c"), Some(2)));
    }
}
