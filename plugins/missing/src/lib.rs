//! `std:missing` fills missing values with constants, or drops the rows that
//! have them. (A mean or median is data: fit it with a step and fill from there.)
//!
//! ```toml
//! [steps.complete]
//! uses = "std:missing"
//! input = "customers"
//! params = { fill = { total_charges = 0.0, contract = "none" }, drop = ["tenure"] }
//! ```

use std::collections::BTreeMap;

use millrace_sdk::expr::{Checked, parse};
use millrace_sdk::prelude::*;

/// Params of `std:missing`.
#[derive(Params)]
pub struct Missing {
    /// The value to substitute for missing values, by column.
    #[param(default = BTreeMap::new())]
    fill: BTreeMap<String, Value>,
    /// Columns in which a missing value drops the row.
    #[param(default = Vec::new())]
    drop: Vec<String>,
}

impl Missing {
    fn filled(&self, field: &Field) -> Result<Checked> {
        let name = field.name();
        let value = &self.fill[name];
        let literal = match value {
            Value::String(text) => format!("'{}'", text.replace('\'', "''")),
            other => other.to_string(),
        };
        let text = format!("coalesce(\"{}\", {literal})", name.replace('"', "\"\""));
        let schema = millrace_sdk::arrow_schema::Schema::new(vec![field.clone()]);
        let checked = parse(&text).and_then(|expr| expr.check(&schema));
        let found = millrace_sdk::type_name(field.data_type());
        let param = format!("fill.{name}");
        let checked = checked
            .map_err(|_| Error::new(format!("column `{name}` is {found}, but {value} is not")).in_param(&param))?;
        if checked.data_type() == DataType::Float64 && field.data_type().is_integer() {
            return Err(
                Error::new(format!("column `{name}` is {found}, but {value} is not an integer")).in_param(param)
            );
        }
        Ok(checked)
    }
}

impl Step for Missing {
    fn ports() -> Ports {
        Ports::new().mapped("input", "a table").table("output", "the table without those missing values")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        let mut types = Vec::new();
        for name in self.fill.keys() {
            let read = plan.read("input", name, Kind::Any, &format!("fill.{name}"));
            let filled = read.and_then(|field| Ok((name, self.filled(&field)?.data_type())));
            types.extend(plan.keep(filled));
        }
        plan.read_all("input", &self.drop, Kind::Any, "drop");
        let output = plan.output("output").pass_all("input")?;
        for (name, data_type) in types {
            output.add(name, data_type);
        }
        Ok(())
    }
}

impl Map for Missing {
    fn map(&self, task: &Task) -> Result<()> {
        let part = task.part("input")?;
        let filled = std::cell::Cell::new(0);
        let fill = |name: &String| {
            let column = part.column(name)?;
            filled.set(filled.get() + column.null_count());
            let field = Field::new(name, column.data_type().clone(), true);
            Ok((name.clone(), self.filled(&field)?.column(&[column], part.rows())?))
        };
        let mut dropped = 0;
        if self.drop.is_empty() {
            task.same_rows_each("output", "input", self.fill.keys().map(fill))?;
        } else {
            let mut keep = vec![true; part.rows()];
            for name in &self.drop {
                let column = part.column(name)?;
                if column.null_count() > 0 {
                    for (row, keep) in keep.iter_mut().enumerate() {
                        *keep &= column.is_valid(row);
                    }
                }
            }
            let mask = BooleanArray::new(keep.into(), None);
            dropped = part.rows() - mask.true_count();
            let columns = self.fill.keys().map(fill).collect::<Result<Vec<_>>>()?;
            let columns = columns.iter().map(|(name, column)| (name.as_str(), column.filter(mask.values()))).collect();
            task.mask("output", "input", &mask, columns)?;
        }
        task.metric("values_filled", filled.get() as f64);
        task.metric("rows_dropped", dropped as f64);
        Ok(())
    }
}

millrace_sdk::register!(Missing: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn missing(params: Value) -> Harness<Missing> {
        Harness::new(params).table(
            "input",
            table(vec![
                ("x", Arc::new(Float64Array::from(vec![Some(1.0), None, None]))),
                ("n", Arc::new(Int64Array::from(vec![None, Some(2), Some(3)]))),
                ("t", Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]))),
            ]),
        )
    }

    #[test]
    fn missing_values_are_filled_in_place() {
        let out = missing(json!({ "fill": { "x": 0, "t": "it's" } })).run().unwrap();
        assert_eq!(out.columns("output"), ["x", "n", "t"]);
        assert_eq!(out.numbers("output", "x"), [Some(1.0), Some(0.0), Some(0.0)]);
        assert_eq!(out.text("output", "t")[1], Some("it's".to_owned()));
        assert_eq!(out.metrics["values_filled"], 3.0);
    }

    #[test]
    fn rows_are_dropped_after_filling() {
        let out = missing(json!({ "fill": { "x": 0.5 }, "drop": ["n"] })).run().unwrap();
        assert_eq!(out.numbers("output", "x"), [Some(0.5), Some(0.5)]);
        assert_eq!(out.text("output", "t"), [None, Some("c".to_owned())]);
        assert_eq!(out.metrics["rows_dropped"], 1.0);
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        let problems = missing(json!({ "fill": { "n": 0.5, "t": 1 }, "drop": ["m"] })).problems();
        let text: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(
            text,
            [
                "column `n` is int64, but 0.5 is not an integer",
                "column `t` is utf8, but 1 is not",
                "`input` has no column `m`"
            ]
        );
    }
}
