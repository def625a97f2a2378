//! `std:derive` computes new columns from expressions. A new column may replace an existing one
//! of the same name; expressions see only the columns of the input.
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
        Ports::new().mapped("input", "a table").table("output", "the table with the new columns")
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
            let column = part.computed(&checked, &format!("columns.{name}"));
            Ok((name.clone(), column.map_err(|error| error.in_column(name))?))
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
    fn every_invalid_expression_is_reported() {
        let problems = derive(json!({ "columns": { "c": "x + 1", "d": "a +", "e": "lnn(b)" } })).problems();
        let text: Vec<String> = problems
            .iter()
            .map(|p| format!("{} {:?} {}", p.param.as_deref().unwrap(), p.span.unwrap(), p.message))
            .collect();
        assert_eq!(
            text,
            [
                "columns.c (0, 1) there is no column `x`",
                "columns.d (3, 3) expected a value, but the expression ends",
                "columns.e (0, 6) there is no function `lnn`",
            ]
        );
    }

    /// Computing block by block gives the same as computing each row.
    #[test]
    fn long_columns_of_all_types_are_computed_block_by_block() {
        let rows = 40_000i64;
        let valid = |row: i64| (row % 7 != 3 && !(17_000..33_000).contains(&row)).then_some(row);
        let input = table(vec![
            ("a", Arc::new((0..rows).map(valid).collect::<Int64Array>())),
            ("t", Arc::new((0..rows).map(|row| valid(row).map(|row| format!("t{row}"))).collect::<StringArray>())),
        ]);
        let columns = json!({ "columns": {
            "sum": "a + 1", "half": "a / 2", "odd": "a % 2 = 1", "text": "concat(t, '!')", "any": "coalesce(a, -1)",
            "none": "nullif(1, 1)", "same": "'x'", "day": "cast(if(a > 39000, '2026-11-26', null) as date32)",
        } });
        let out = Harness::<Derive>::new(columns).table("input", input.clone()).run().unwrap();
        let numbers = |f: fn(i64) -> f64| (0..rows).map(|row| valid(row).map(f)).collect::<Vec<_>>();
        assert_eq!(out.numbers("output", "sum"), numbers(|a| a as f64 + 1.0));
        assert_eq!(out.numbers("output", "half"), numbers(|a| a as f64 / 2.0));
        assert_eq!(out.numbers("output", "odd"), numbers(|a| (a % 2) as f64));
        let texts: Vec<Option<String>> = (0..rows).map(|row| valid(row).map(|row| format!("t{row}!"))).collect();
        assert_eq!(out.text("output", "text"), texts);
        assert_eq!(
            out.numbers("output", "any"),
            (0..rows).map(|r| Some(valid(r).unwrap_or(-1) as f64)).collect::<Vec<_>>()
        );
        assert_eq!(out.column("output", "none").null_count(), rows as usize);
        assert_eq!(out.text("output", "same")[39_999], Some("x".to_owned()));
        let days = (39_001..rows).filter(|row| valid(*row).is_some()).count();
        assert_eq!(out.column("output", "day").null_count(), rows as usize - days);
        let wrong = json!({ "columns": { "c": "cast(if(a = 39998, 'x', '1') as int64)" } });
        let error = Harness::<Derive>::new(wrong).table("input", input).run().unwrap_err();
        assert_eq!(error.row, Some(39_998), "{error}");
    }

    #[test]
    fn overflow_is_an_error_with_its_row() {
        let error = derive(json!({ "columns": { "c": "a + 1" } })).run().unwrap_err();
        assert_eq!((error.column.as_deref(), error.row), (Some("c"), Some(2)));
    }
}
