//! `std:filter` keeps the rows for which a condition holds. It reads only the columns of the
//! condition; the host moves the others.
//!
//! ```toml
//! [steps.active]
//! uses = "std:filter"
//! input = "customers"
//! params = { where = "tenure > 12 and contract in ('One year', 'Two year')" }
//! ```

use millrace_sdk::expr::{Checked, parse};
use millrace_sdk::prelude::*;

/// Params of `std:filter`.
#[derive(Params)]
pub struct Filter {
    /// The condition, as in SQL. A row for which it is null is dropped.
    r#where: String,
}

impl Filter {
    fn condition(&self, fields: Vec<Field>) -> Result<Checked> {
        let schema = millrace_sdk::arrow_schema::Schema::new(fields);
        let checked = parse(&self.r#where).and_then(|expr| expr.check(&schema));
        let checked = checked.map_err(|error| Error::expression(error, "where"))?;
        if checked.data_type() != DataType::Boolean {
            let message = format!("expected a condition, found {}", checked.ty());
            return Err(Error::new(message).in_param("where"));
        }
        Ok(checked)
    }
}

impl Step for Filter {
    fn ports() -> Ports {
        Ports::new().mapped("input", "a table").table("output", "the rows for which the condition holds")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        let schema = plan.schema("input")?;
        let condition = self.condition(schema.fields().iter().map(|field| field.as_ref().clone()).collect())?;
        for column in condition.columns() {
            plan.read("input", column, Kind::Any, "where")?;
        }
        plan.output("output").pass_all("input")?;
        Ok(())
    }
}

impl Map for Filter {
    fn map(&self, task: &Task) -> Result<()> {
        let part = task.part("input")?;
        let condition = self.condition(part.fields().to_vec())?;
        let mask = part.holds(&condition, "where")?;
        task.metric("rows_in", part.rows() as f64);
        task.metric("rows_out", mask.true_count() as f64);
        task.mask("output", "input", &mask, vec![])
    }
}

millrace_sdk::register!(Filter: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn filter(condition: &str) -> Harness<Filter> {
        let part = |ages: Vec<Option<i64>>, names: Vec<&str>| {
            table(vec![("age", Arc::new(Int64Array::from(ages))), ("name", Arc::new(StringArray::from(names)))])
        };
        let parts = vec![part(vec![Some(3), None, Some(9)], vec!["a", "b", "c"]), part(vec![Some(10)], vec!["d"])];
        Harness::new(json!({ "where": condition })).parts("input", parts)
    }

    #[test]
    fn rows_are_kept_part_by_part() {
        let out = filter("age > 5").run().unwrap();
        assert_eq!(out.text("output", "name"), [Some("c".to_owned()), Some("d".to_owned())]);
        assert_eq!((out.metrics["rows_in"], out.metrics["rows_out"]), (4.0, 2.0));
        assert_eq!(out.parts("output").len(), 2);
    }

    #[test]
    fn errors_are_found_before_anything_runs() {
        let problem = filter("agee > 5").problems().remove(0);
        assert_eq!(
            (problem.missing.as_deref(), problem.span, problem.param.as_deref()),
            (Some("agee"), Some((0, 4)), Some("where"))
        );
        assert_eq!(filter("age + 5").problems()[0].message, "expected a condition, found an integer");
    }
}
