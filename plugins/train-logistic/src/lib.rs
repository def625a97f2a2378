//! `std:train-logistic` trains a logistic regression by full-batch gradient
//! descent, on all processors, and with the same bits on every machine.
//!
//! ```toml
//! [steps.train]
//! uses = "std:train-logistic"
//! input = "split.train"
//! matrix = { learning_rate = [0.1, 0.5], l2 = [0.0, 0.01] }
//! params = { label = "churned", learning_rate = "${matrix.learning_rate}", l2 = "${matrix.l2}" }
//! ```
//!
//! Minimises the mean log-loss plus `l2 / 2 · |w|²`, intercept not penalised, from zero. A
//! share of the rows (`validation`, chosen by a hash of their index) is held out: training
//! stops when their loss has not improved for `patience` epochs, and the best weights so far
//! are the model. Scale the features first.
//!
//! The blob `model` is JSON: `{"kind":"logistic","label":…,"intercept":…,"features":[{"name":…,"weight":…}],
//! "categories":[{"name":…,"weights":[…]}]}`.

use std::ops::Range;

use millrace_sdk::arrow_buffer::ScalarBuffer;
use millrace_sdk::float_text;
use millrace_sdk::kernels::{add_dots, add_products, fetch, hash, sigmoids, sum};
use millrace_sdk::prelude::*;

/// Params of `std:train-logistic`.
#[derive(Params)]
pub struct TrainLogistic {
    /// The column to predict: 0 or 1, or a boolean.
    label: String,
    /// The columns to predict from; by default, all numeric columns but the label and `exclude`.
    features: Option<Vec<String>>,
    /// Columns that are not features.
    #[param(default = Vec::new())]
    exclude: Vec<String>,
    /// Columns of codes from 0, with a weight for each code instead of one times
    /// the code.
    #[param(default = Vec::new())]
    categories: Vec<String>,
    /// Size of a gradient step.
    #[param(default = 0.5, min = 0.0)]
    learning_rate: f64,
    /// Strength of the penalty on large weights.
    #[param(default = 0.0, min = 0.0)]
    l2: f64,
    /// The maximum number of passes over the data.
    #[param(default = 500u32, min = 1)]
    epochs: u32,
    /// Share of the rows that decides when to stop; 0 trains to the last epoch.
    #[param(default = 0.1, min = 0.0, max = 0.9)]
    validation: f64,
    /// The number of epochs without improvement after which training stops.
    #[param(default = 20u32, min = 1)]
    patience: u32,
    /// The seed that selects the rows for validation.
    #[param(default = 0u64)]
    seed: u64,
}

impl TrainLogistic {
    fn is_feature(&self, field: &Field) -> bool {
        if let Some(features) = &self.features {
            return features.contains(field.name());
        }
        let number = field.data_type().is_numeric() || *field.data_type() == DataType::Boolean;
        let is_other = *field.name() == self.label || self.categories.contains(field.name());
        number && !is_other && !self.exclude.contains(field.name())
    }
}

impl Step for TrainLogistic {
    fn ports() -> Ports {
        Ports::new().mapped("input", "the rows to learn from").blob("model", "the weights")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        let label = plan.read("input", &self.label, Kind::Number, "label");
        plan.keep(label);
        for (i, name) in self.exclude.iter().enumerate() {
            let found = plan.field("input", name, &format!("exclude[{i}]"));
            plan.keep(found);
        }
        plan.read_all("input", &self.categories, Kind::Number, "categories");
        match &self.features {
            Some(features) => plan.read_all("input", features, Kind::Number, "features"),
            None => {
                let schema = plan.schema("input")?;
                for field in schema.fields().iter().filter(|field| self.is_feature(field)) {
                    plan.read("input", field.name(), Kind::Number, "features")?;
                }
            }
        }
        Ok(())
    }
}

/// Rows per block: the columns of one block stay in the cache from the product to the gradient.
const BLOCK: usize = 2048;

/// The rows of one part, by column.
struct Rows {
    columns: Vec<ScalarBuffer<f64>>,
    codes: Vec<Vec<u32>>,
    labels: ScalarBuffer<f64>,
}

impl Rows {
    /// The rows whose bit in the mask is `want`.
    fn pick(&self, mask: &[bool], want: bool) -> Self {
        fn picked<T: Copy>(values: &[T], mask: &[bool], want: bool) -> Vec<T> {
            values.iter().zip(mask).filter(|(_, is)| **is == want).map(|(value, _)| *value).collect()
        }
        Self {
            columns: self.columns.iter().map(|column| picked(column, mask, want).into()).collect(),
            codes: self.codes.iter().map(|codes| picked(codes, mask, want)).collect(),
            labels: picked(&self.labels, mask, want).into(),
        }
    }

    /// Calls `each` with every block: the values of its columns, its range of rows, and their
    /// probabilities.
    fn blocks(&self, model: &Model, each: &mut dyn FnMut(&[&[f64]], Range<usize>, &mut [f64])) {
        let mut z = vec![0.0; BLOCK];
        for start in (0..self.labels.len()).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(self.labels.len());
            let z = &mut z[..rows.len()];
            let columns: Vec<&[f64]> = self.columns.iter().map(|column| &column[rows.clone()]).collect();
            fetch(&columns);
            z.fill(model.intercept());
            add_products(z, model.features(), &columns);
            for (i, codes) in self.codes.iter().enumerate() {
                let weights = model.of_codes(i);
                for (z, code) in z.iter_mut().zip(&codes[rows.clone()]) {
                    *z += weights[*code as usize];
                }
            }
            sigmoids(z);
            each(&columns, rows, z);
        }
    }
}

fn count(parts: &[Rows]) -> f64 {
    parts.iter().map(|rows| rows.labels.len()).sum::<usize>() as f64
}

/// The gradient of the log-loss, summed over these rows.
fn gradient(parts: &[Rows], model: &Model) -> Vec<f64> {
    let mut gradient = vec![0.0; model.weights.len()];
    for part in parts {
        part.blocks(model, &mut |columns, rows, residuals| {
            for (residual, label) in residuals.iter_mut().zip(&part.labels[rows.clone()]) {
                *residual -= label;
            }
            add_dots(&mut gradient[..columns.len()], columns, residuals);
            for (start, codes) in model.starts.iter().zip(&part.codes) {
                let gradient = &mut gradient[*start..];
                for (residual, code) in residuals.iter().zip(&codes[rows.clone()]) {
                    gradient[*code as usize] += residual;
                }
            }
            gradient[model.weights.len() - 1] += sum(residuals);
        });
    }
    gradient
}

/// The mean log-loss over all guests, which have `rows` rows together.
fn loss(task: &Task, parts: &[Rows], model: &Model, rows: f64) -> Result<f64> {
    let mut loss = [0.0];
    for part in parts {
        part.blocks(model, &mut |_, rows, probabilities| {
            for (p, label) in probabilities.iter_mut().zip(&part.labels[rows]) {
                let right = if *label > 0.5 { *p } else { 1.0 - *p };
                *p = -millrace_sdk::expr_math::ln_normal(right.max(1e-15));
            }
            loss[0] += sum(probabilities);
        });
    }
    task.all_reduce(Reduction::Sum, &mut loss)?;
    Ok(loss[0] / rows)
}

/// The codes of a column, as indices of weights.
fn codes(column: &Float64Array, name: &str) -> Result<Vec<u32>> {
    let code = |(row, code): (usize, Option<f64>)| {
        // Codes are small: a float represents them exactly.
        let found = code.map(|code| (code, code as u32)).filter(|(code, found)| f64::from(*found) == *code);
        found.map(|(_, found)| found).filter(|found| *found < MAX_CODES).ok_or_else(|| {
            let found = code.map_or_else(|| "missing".to_owned(), float_text);
            let message = format!("the code is {found}, but must be from 0 to {}", MAX_CODES - 1);
            Error::new(message).in_column(name).at_row(row)
        })
    };
    column.iter().enumerate().map(code).collect()
}

/// More codes than this are an error: a key is not a category.
const MAX_CODES: u32 = 1 << 24;

fn finite(values: &Float64Array, name: &str) -> Result<ScalarBuffer<f64>> {
    // All values at once, without a branch: a value that is neither NaN nor infinite has
    // another exponent.
    const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
    let is_odd = |odd, value: &f64| odd | (value.to_bits() & EXPONENT == EXPONENT);
    if values.null_count() == 0 && !values.values().iter().fold(false, is_odd) {
        return Ok(values.values().clone());
    }
    let row = values.iter().position(|value| !value.is_some_and(f64::is_finite)).unwrap_or_default();
    let message = format!("column `{name}` has a value that is missing, NaN or infinite; fill or filter it");
    Err(Error::new(message).in_column(name).at_row(row))
}

impl Rounds for TrainLogistic {
    fn rounds(&self, task: &Task) -> Result<()> {
        let table = task.table("input")?;
        let features = table.fields().iter().filter(|field| self.is_feature(field));
        let features: Vec<&String> = features.map(Field::name).collect();
        let (mut train, mut held_out) = (Vec::new(), Vec::new());
        let mut before = [table.rows() as f64];
        task.all_reduce(Reduction::Before, &mut before)?;
        // The first guest reports what all of them found.
        let is_first = before[0] == 0.0;
        let mut index = before[0] as u64;
        for part in table.parts() {
            let labels = finite(&part.f64(&self.label)?, &self.label)?;
            if let Some(row) = labels.iter().position(|label| *label != 0.0 && *label != 1.0) {
                let message = format!("the label is {}, but must be 0 or 1", float_text(labels[row]));
                return Err(Error::new(message).in_column(&self.label).at_row(row));
            }
            let columns = features.iter().map(|name| finite(&part.f64(name)?, name)).collect::<Result<_>>()?;
            let codes = self.categories.iter().map(|name| codes(&part.f64(name)?, name)).collect::<Result<_>>()?;
            let rows = Rows { columns, codes, labels };
            if self.validation == 0.0 {
                train.push(rows);
                continue;
            }
            let share = |index: u64| (hash(self.seed, &index.to_le_bytes()) >> 11) as f64 / 9_007_199_254_740_992.0;
            let held: Vec<bool> = (index..).take(part.rows()).map(|index| share(index) < self.validation).collect();
            index += part.rows() as u64;
            train.push(rows.pick(&held, false));
            held_out.push(rows.pick(&held, true));
        }
        let model = self.descend(task, features.len(), &train, &held_out)?;
        if !is_first {
            return Ok(());
        }
        let weights = features.iter().zip(model.features());
        let weights: Vec<Value> = weights.map(|(name, weight)| named(name, "weight", json!(weight))).collect();
        let categories = self.categories.iter().enumerate();
        let categories: Vec<Value> =
            categories.map(|(i, name)| named(name, "weights", json!(model.of_codes(i)))).collect();
        let blob = json!({
            "kind": "logistic", "label": self.label, "intercept": model.intercept(), "features": weights,
            "categories": categories,
        });
        task.emit_blob("model", blob.to_string().as_bytes())
    }
}

fn named(name: &str, key: &str, value: Value) -> Value {
    json!({ "name": name, (key): value })
}

/// The weights of the features, of the codes of each code column, and the intercept, which is
/// the last.
struct Model {
    weights: Vec<f64>,
    /// The index at which the weights of each code column start, and that of the intercept.
    starts: Vec<usize>,
}

impl Model {
    /// All weights are zero. `codes` has the number of codes of each code column.
    fn zero(features: usize, codes: &[f64]) -> Self {
        let mut starts = vec![features];
        for codes in codes {
            starts.push(starts[starts.len() - 1] + *codes as usize);
        }
        Self { weights: vec![0.0; starts[starts.len() - 1] + 1], starts }
    }

    fn features(&self) -> &[f64] {
        &self.weights[..self.starts[0]]
    }

    fn of_codes(&self, column: usize) -> &[f64] {
        &self.weights[self.starts[column]..self.starts[column + 1]]
    }

    fn intercept(&self) -> f64 {
        self.weights[self.weights.len() - 1]
    }
}

impl TrainLogistic {
    fn descend(&self, task: &Task, features: usize, train: &[Rows], held_out: &[Rows]) -> Result<Model> {
        let mut counts = [count(train), count(held_out)];
        task.all_reduce(Reduction::Sum, &mut counts)?;
        let [rows, watched] = counts;
        if rows == 0.0 {
            return Err(Error::new("there are no rows to learn from, except those held out"));
        }
        let watches = watched > 0.0;
        let size = |i: usize| {
            let all = train.iter().chain(held_out).flat_map(|rows| &rows.codes[i]);
            all.max().map_or(0.0, |code| f64::from(*code) + 1.0)
        };
        let mut sizes: Vec<f64> = (0..self.categories.len()).map(size).collect();
        task.all_reduce(Reduction::Max, &mut sizes)?;
        let mut model = Model::zero(features, &sizes);
        let mut best = (f64::INFINITY, 0, Vec::new());
        let mut epochs = 0;
        for epoch in 1..=self.epochs {
            let mut gradient = gradient(train, &model);
            task.all_reduce(Reduction::Sum, &mut gradient)?;
            let last = gradient.len() - 1;
            for (i, (weight, gradient)) in model.weights.iter_mut().zip(gradient).enumerate() {
                let penalty = if i == last { 0.0 } else { self.l2 * *weight };
                *weight -= self.learning_rate * (gradient / rows + penalty);
            }
            if !model.weights.iter().all(|weight| weight.is_finite()) {
                let message = format!(
                    "the weights diverged in epoch {epoch}: use a smaller learning_rate, or scale the features"
                );
                return Err(Error::new(message));
            }
            epochs = epoch;
            if watches {
                let loss = loss(task, held_out, &model, watched)?;
                if loss < best.0 - 1e-7 {
                    best = (loss, epoch, model.weights.clone());
                } else if epoch - best.1 >= self.patience {
                    break;
                }
            }
            if epoch % 10 == 0 {
                task.progress(u64::from(epoch), u64::from(self.epochs));
            }
        }
        if !best.2.is_empty() {
            model.weights = best.2;
        }
        task.metric("epochs", f64::from(epochs));
        task.metric("train_loss", loss(task, train, &model, rows)?);
        if watches {
            task.metric("validation_loss", best.0);
        }
        Ok(model)
    }
}

millrace_sdk::register!(TrainLogistic: rounds);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn data(rows: i64) -> millrace_sdk::arrow_array::RecordBatch {
        let x = |i: i64| ((i * 37) % 101) as f64 / 50.0 - 1.0;
        let noise = |i: i64| ((i * 53) % 97) as f64 / 97.0 - 0.5;
        let xs: Vec<f64> = (0..rows).map(x).collect();
        let ys: Vec<i64> = (0..rows).map(|i| i64::from(2.0 * x(i) + noise(i) > 0.0)).collect();
        table(vec![
            ("x", Arc::new(Float64Array::from(xs)) as ArrayRef),
            ("name", Arc::new(StringArray::from(vec!["n"; rows as usize]))),
            ("id", Arc::new(Int64Array::from_iter_values(0..rows))),
            ("y", Arc::new(Int64Array::from(ys))),
        ])
    }

    fn train(params: Value) -> Harness<TrainLogistic> {
        Harness::new(params).parts("input", vec![data(500), data(300)])
    }

    #[test]
    fn training_reduces_the_loss_and_gives_the_same_bits_each_time() {
        let harness = train(json!({ "label": "y", "exclude": ["id"] }));
        let out = harness.run().unwrap();
        let model: Value = millrace_sdk::json::from_slice(out.blob("model")).unwrap();
        assert_eq!(model["features"].as_array().unwrap().len(), 1);
        assert!(model["features"][0]["weight"].as_f64().unwrap() > 1.0);
        assert!(out.metrics["train_loss"] < 0.4);
        assert_eq!(harness.run().unwrap().blob("model"), out.blob("model"));
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        // One step from zero: w = -rate * mean((0.5 - y) * x).
        let out = train(json!({ "label": "y", "features": ["x"], "epochs": 1, "validation": 0, "learning_rate": 1 }))
            .run()
            .unwrap();
        let model: Value = millrace_sdk::json::from_slice(out.blob("model")).unwrap();
        let mut expected = 0.0;
        for rows in [500, 300] {
            let batch = data(rows);
            let x = batch.column(0).as_any().downcast_ref::<Float64Array>().unwrap().clone();
            let y = batch.column(3).as_any().downcast_ref::<Int64Array>().unwrap().clone();
            expected += x.values().iter().zip(y.values()).map(|(x, y)| (*y as f64 - 0.5) * x).sum::<f64>();
        }
        let weight = model["features"][0]["weight"].as_f64().unwrap();
        assert!((weight - expected / 800.0).abs() < 1e-12, "{weight}");
    }

    #[test]
    fn training_stops_when_the_loss_no_longer_improves() {
        let out =
            train(json!({ "label": "y", "features": ["x"], "epochs": 100_000, "learning_rate": 5 })).run().unwrap();
        assert!(out.metrics["epochs"] < 100_000.0);
    }

    #[test]
    fn invalid_data_is_an_error() {
        let error = train(json!({ "label": "id" })).run().unwrap_err();
        assert_eq!((error.message.as_str(), error.row), ("the label is 2, but must be 0 or 1", Some(2)));
        assert_eq!(
            train(json!({ "label": "name" })).problems()[0].message,
            "column `name` is utf8, but a number is needed"
        );
        assert!(
            train(json!({ "label": "y", "learning_rate": 1e200, "l2": 1 }))
                .run()
                .unwrap_err()
                .message
                .contains("diverged")
        );
    }
}
