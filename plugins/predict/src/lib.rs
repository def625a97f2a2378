//! `std:predict` computes the probability that a model gives for each row.
//!
//! ```toml
//! [steps.predict]
//! uses = "std:predict"
//! inputs = { table = "split.test", model = "train.model" }
//! ```
//!
//! The columns that a model needs are known only when there is a model, so without `features`
//! the step may read all numeric columns.

use millrace_sdk::kernels::{add_products, sigmoids};
use millrace_sdk::prelude::*;

/// Params of `std:predict`.
#[derive(Params)]
pub struct Predict {
    /// The columns that the model may need; by default, all numeric columns.
    features: Option<Vec<String>>,
    /// Columns that it does not need.
    #[param(default = Vec::new())]
    exclude: Vec<String>,
    /// Name of the new column.
    #[param(default = "probability")]
    output: String,
}

impl Step for Predict {
    fn ports() -> Ports {
        Ports::new()
            .mapped("table", "the rows to predict for")
            .input_blob("model", "a model from `std:train-logistic`")
            .table("output", "the table with the probability of each row")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        let schema = plan.schema("table")?;
        for (i, name) in self.exclude.iter().enumerate() {
            let found = plan.field("table", name, &format!("exclude[{i}]"));
            plan.keep(found);
        }
        match &self.features {
            Some(features) => plan.read_all("table", features, Kind::Number, "features"),
            None => {
                let number = |field: &Field| field.data_type().is_numeric() || *field.data_type() == DataType::Boolean;
                let fields =
                    schema.fields().iter().filter(|field| number(field) && !self.exclude.contains(field.name()));
                for field in fields {
                    plan.read("table", field.name(), Kind::Number, "features")?;
                }
            }
        }
        plan.output("output").pass_all("table")?.add(&self.output, DataType::Float64);
        Ok(())
    }
}

/// Returns a column that the model needs, which must have a value in every row.
fn complete(block: &Part, name: &str) -> Result<Float64Array> {
    let column = block.f64(name).map_err(|_| {
        Error::new(format!("the model needs the column `{name}`, but the table does not have it among its features"))
            .in_column(name)
    })?;
    if column.null_count() == 0 {
        return Ok(column);
    }
    let row = column.iter().position(|value| value.is_none()).unwrap_or_default();
    let message = format!("column `{name}` has a missing value; fill it with `std:missing`");
    Err(Error::new(message).in_column(name).at_row(block.row(row)))
}

impl Map for Predict {
    fn map(&self, task: &Task) -> Result<()> {
        let model: Value = task.json("model")?;
        let (Some("logistic"), Some(intercept), Some(features)) =
            (model["kind"].as_str(), model["intercept"].as_f64(), model["features"].as_array())
        else {
            return Err(Error::new("the blob on `model` is not a model that this step knows"));
        };
        let part = task.part("table")?;
        let mut z = vec![intercept; part.rows()];
        // A few at a time, so that few columns are in memory: as many as are added together.
        for features in features.chunks(4) {
            let (mut weights, mut names) = (Vec::new(), Vec::new());
            for feature in features {
                let (Some(name), Some(weight)) = (feature["name"].as_str(), feature["weight"].as_f64()) else {
                    return Err(Error::new("the model has a feature without name or weight"));
                };
                weights.push(weight);
                names.push(name);
            }
            let mut rest = &mut z[..];
            for block in part.blocks() {
                let columns = names.iter().map(|name| complete(&block, name)).collect::<Result<Vec<_>>>()?;
                let columns: Vec<&[f64]> = columns.iter().map(|column| &column.values()[..]).collect();
                let of_block;
                (of_block, rest) = rest.split_at_mut(block.rows());
                add_products(of_block, &weights, &columns);
            }
        }
        for category in model["categories"].as_array().into_iter().flatten() {
            let (Some(name), Some(weights)) = (category["name"].as_str(), category["weights"].as_array()) else {
                return Err(Error::new("the model has categories without name or weights"));
            };
            let weights: Vec<f64> = weights.iter().filter_map(Value::as_f64).collect();
            for (z, code) in z.iter_mut().zip(part.f64(name)?.iter()) {
                // A code that was not seen in training has no weight.
                let index = code.filter(|code| *code >= 0.0).map(|code| code as usize);
                *z += index.and_then(|index| weights.get(index)).unwrap_or(&0.0);
            }
        }
        let mut probabilities = z;
        sigmoids(&mut probabilities);
        task.same_rows("output", "table", vec![(self.output.as_str(), probabilities.into())])
    }
}

millrace_sdk::register!(Predict: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    const MODEL: &str = r#"{"kind":"logistic","intercept":1.0,"features":[{"name":"x","weight":-0.5}]}"#;

    fn predict(params: Value, model: &str) -> Harness<Predict> {
        let input = table(vec![
            ("x", Arc::new(Int64Array::from(vec![2, 0])) as ArrayRef),
            ("t", Arc::new(StringArray::from(vec!["a", "b"]))),
        ]);
        Harness::new(params).table("table", input).blob("model", model)
    }

    #[test]
    fn probabilities_follow_the_weights() {
        let out = predict(json!({}), MODEL).run().unwrap();
        assert_eq!(out.columns("output"), ["x", "t", "probability"]);
        let found = out.numbers("output", "probability");
        assert_eq!(found[0], Some(0.5));
        assert!((found[1].unwrap() - 0.731_058_578_630_004_9).abs() < 1e-15);
    }

    #[test]
    fn rows_of_later_blocks_have_their_index_in_the_part() {
        let rows = |missing: Option<i64>| {
            let x: Int64Array = (0..40_000).map(|row| (Some(row) != missing).then_some(row % 7)).collect();
            Harness::<Predict>::new(json!({})).table("table", table(vec![("x", Arc::new(x) as ArrayRef)]))
        };
        let found = rows(None).blob("model", MODEL).run().unwrap().numbers("output", "probability");
        assert!(found.len() == 40_000 && found.iter().enumerate().all(|(row, p)| *p == found[row % 7]));
        assert_eq!(rows(Some(35_000)).blob("model", MODEL).run().unwrap_err().row, Some(35_000));
    }

    #[test]
    fn a_model_that_does_not_fit_is_an_error() {
        assert!(
            predict(json!({ "exclude": ["x"] }), MODEL).run().unwrap_err().message.contains("needs the column `x`")
        );
        assert!(predict(json!({}), "{}").run().unwrap_err().message.contains("not a model"));
        assert_eq!(
            predict(json!({ "features": ["t"] }), MODEL).problems()[0].message,
            "column `t` is utf8, but a number is needed"
        );
    }
}
