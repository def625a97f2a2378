//! `std:normalise` shifts and scales columns with the values that `std:normalise-fit` measured: `(x
//! - mean) / std`, and 0 for a column without spread. A missing value becomes the mean, which is 0.
//!
//! ```toml
//! [steps.scaled]
//! uses = "std:normalise"
//! inputs = { input = "split.test", scaling = "scale" }
//! params = { columns = ["tenure", "monthly_charges"] }
//! ```

use millrace_sdk::prelude::*;

/// Params of `std:normalise`.
#[derive(Params)]
pub struct Normalise {
    /// The columns to scale: all or some of those that were measured.
    columns: Vec<String>,
}

impl Step for Normalise {
    fn ports() -> Ports {
        Ports::new()
            .mapped("input", "a table")
            .input_blob("scaling", "the scaling from `normalise-fit`")
            .table("output", "the table with those columns scaled")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read_all("input", &self.columns, Kind::Number, "columns");
        let output = plan.output("output").pass_all("input")?;
        for name in &self.columns {
            output.add(name, DataType::Float64);
        }
        Ok(())
    }
}

impl Map for Normalise {
    fn map(&self, task: &Task) -> Result<()> {
        let scaling: Value = task.json("scaling")?;
        let part = task.part("input")?;
        let scaled = |name: &String| {
            let fitted = &scaling["columns"][name];
            let (Some(mean), Some(std)) = (fitted["mean"].as_f64(), fitted["std"].as_f64()) else {
                return Err(Error::new(format!("`scaling` has no column `{name}`")).in_column(name));
            };
            let scale = if std > 0.0 { 1.0 / std } else { 0.0 };
            let mut scaled: Vec<f64> = Vec::with_capacity(part.rows());
            for block in part.blocks() {
                let column = block.f64(name)?;
                let from = scaled.len();
                scaled.extend(column.values().iter().map(|x| (x - mean) * scale));
                if let Some(nulls) = column.nulls() {
                    scaled[from..].iter_mut().zip(nulls).filter(|(_, is_valid)| !is_valid).for_each(|(x, _)| *x = 0.0);
                }
            }
            Ok((name.clone(), Column::from(scaled)))
        };
        task.same_rows_each("output", "input", self.columns.iter().map(scaled))
    }
}

millrace_sdk::register!(Normalise: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    #[test]
    fn columns_are_scaled_in_place() {
        let input = table(vec![
            ("t", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
            ("x", Arc::new(Int64Array::from(vec![Some(1), None, Some(5)]))),
            ("flat", Arc::new(Float64Array::from(vec![2.0, 2.0, 2.0]))),
        ]);
        let scaling = r#"{"columns":{"x":{"mean":3,"std":2},"flat":{"mean":2,"std":0}}}"#;
        let harness = |columns: Value| {
            Harness::<Normalise>::new(json!({ "columns": columns }))
                .table("input", input.clone())
                .blob("scaling", scaling)
        };
        let out = harness(json!(["x", "flat"])).run().unwrap();
        assert_eq!(out.columns("output"), ["t", "x", "flat"]);
        assert_eq!(out.numbers("output", "x"), [Some(-1.0), Some(0.0), Some(1.0)]);
        assert_eq!(out.numbers("output", "flat"), [Some(0.0); 3]);
        assert_eq!(harness(json!(["t"])).problems()[0].message, "column `t` is utf8, but a number is needed");
    }
}
