//! `std:train-logistic` trains a logistic regression by full-batch gradient
//! descent, the same bits on every machine.
//!
//! ```toml
//! [steps.train]
//! uses = "std:train-logistic"
//! input = "split.train"
//! matrix = { learning_rate = [0.1, 0.5], l2 = [0.0, 0.01] }
//! params = { label = "churned", learning_rate = "${matrix.learning_rate}", l2 = "${matrix.l2}" }
//! ```
//!
//! Minimises the mean log-loss plus `l2 / 2 · |w|²`, intercept not penalised,
//! from zero. A share of the rows (`validation`, chosen by a hash of their place)
//! is held out: training stops when their loss has not improved for `patience`
//! epochs, and the best weights so far are the model. Scale the features first.
//!
//! The blob `model` is JSON: `{"kind":"logistic","label":…,"intercept":…,"features":[{"name":…,"weight":…}]}`.

use millrace_sdk::kernels::{add_scaled, hash, sigmoid, sum};
use millrace_sdk::prelude::*;

/// Params of `std:train-logistic`.
#[derive(Params)]
pub struct TrainLogistic {
    /// The column to predict: 0 or 1, or a boolean.
    label: String,
    /// The columns to predict from; without, all numbers but label and `exclude`.
    features: Option<Vec<String>>,
    /// Columns that are no features.
    #[param(default = Vec::new())]
    exclude: Vec<String>,
    /// Size of a gradient step.
    #[param(default = 0.5, min = 0.0)]
    learning_rate: f64,
    /// Strength of the penalty on large weights.
    #[param(default = 0.0, min = 0.0)]
    l2: f64,
    /// Most passes over the data.
    #[param(default = 500u32, min = 1)]
    epochs: u32,
    /// Share of the rows that decides when to stop; 0 trains to the last epoch.
    #[param(default = 0.1, min = 0.0, max = 0.9)]
    validation: f64,
    /// Epochs without improvement before it stops.
    #[param(default = 20u32, min = 1)]
    patience: u32,
    /// Another seed, other rows for validation.
    #[param(default = 0u64)]
    seed: u64,
}

impl TrainLogistic {
    fn is_feature(&self, field: &Field) -> bool {
        let number = field.data_type().is_numeric() || *field.data_type() == DataType::Boolean;
        number && *field.name() != self.label && !self.exclude.contains(field.name())
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
        match &self.features {
            Some(features) => {
                for (i, name) in features.iter().enumerate() {
                    let read = plan.read("input", name, Kind::Number, &format!("features[{i}]"));
                    plan.keep(read);
                }
            }
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

/// Rows by column.
struct Rows {
    columns: Vec<Vec<f64>>,
    labels: Vec<f64>,
}

impl Rows {
    fn new(width: usize) -> Self {
        Self { columns: vec![Vec::new(); width], labels: Vec::new() }
    }

    fn probabilities(&self, weights: &[f64], intercept: f64) -> Vec<f64> {
        let mut z = vec![intercept; self.labels.len()];
        for (column, weight) in self.columns.iter().zip(weights) {
            add_scaled(&mut z, *weight, column);
        }
        z.iter().map(|z| sigmoid(*z)).collect()
    }

    fn loss(&self, probabilities: &[f64]) -> f64 {
        let term =
            |(p, y): (&f64, &f64)| -millrace_sdk::expr_math::ln((if *y > 0.5 { *p } else { 1.0 - *p }).max(1e-15));
        let terms: Vec<f64> = probabilities.iter().zip(&self.labels).map(term).collect();
        sum(&terms) / self.labels.len().max(1) as f64
    }
}

fn finite(values: &Float64Array, name: &str) -> Result<Vec<f64>> {
    match values.iter().position(|value| !value.is_some_and(f64::is_finite)) {
        None => Ok(values.values().to_vec()),
        Some(row) => {
            let message = format!("column `{name}` has a value that is missing, NaN or infinite; fill or filter it");
            Err(Error::new(message).in_column(name).at_row(row))
        }
    }
}

impl Whole for TrainLogistic {
    fn whole(&self, task: &Task) -> Result<()> {
        let table = task.table("input")?;
        let features: Vec<String> = match &self.features {
            Some(features) => features.clone(),
            None => {
                table.fields().iter().filter(|field| self.is_feature(field)).map(|field| field.name().clone()).collect()
            }
        };
        let mut train = Rows::new(features.len());
        let mut held_out = Rows::new(features.len());
        let mut place = 0u64;
        for part in table.parts() {
            let labels = finite(&part.f64(&self.label)?, &self.label)?;
            if let Some(row) = labels.iter().position(|label| *label != 0.0 && *label != 1.0) {
                let message = format!("the label is {}, and must be 0 or 1", labels[row]);
                return Err(Error::new(message).in_column(&self.label).at_row(row));
            }
            let share = |place: u64| (hash(self.seed, &place.to_le_bytes()) >> 11) as f64 / 9_007_199_254_740_992.0;
            let held: Vec<bool> = (place..).take(labels.len()).map(|place| share(place) < self.validation).collect();
            place += labels.len() as u64;
            let pick = |from: &[f64], want: bool, into: &mut Vec<f64>| {
                into.extend(from.iter().zip(&held).filter(|(_, held)| **held == want).map(|(value, _)| *value));
            };
            pick(&labels, false, &mut train.labels);
            pick(&labels, true, &mut held_out.labels);
            for (i, name) in features.iter().enumerate() {
                let values = finite(&part.f64(name)?, name)?;
                pick(&values, false, &mut train.columns[i]);
                pick(&values, true, &mut held_out.columns[i]);
            }
        }
        if train.labels.is_empty() {
            return Err(Error::new("there are no rows to learn from"));
        }
        let model = self.descend(task, &train, &held_out)?;
        let weights: Vec<Value> = features
            .iter()
            .zip(&model.weights)
            .map(|(name, weight)| json!({ "name": name, "weight": weight }))
            .collect();
        let blob =
            json!({ "kind": "logistic", "label": self.label, "intercept": model.intercept, "features": weights });
        task.emit_blob("model", blob.to_string().as_bytes())
    }
}

#[derive(Clone)]
struct Model {
    weights: Vec<f64>,
    intercept: f64,
}

impl TrainLogistic {
    fn descend(&self, task: &Task, train: &Rows, held_out: &Rows) -> Result<Model> {
        let rows = train.labels.len() as f64;
        let watches = !held_out.labels.is_empty();
        let mut model = Model { weights: vec![0.0; train.columns.len()], intercept: 0.0 };
        let mut best = (f64::INFINITY, 0, model.clone());
        let mut epochs = 0;
        for epoch in 1..=self.epochs {
            let probabilities = train.probabilities(&model.weights, model.intercept);
            let residuals: Vec<f64> = probabilities.iter().zip(&train.labels).map(|(p, y)| p - y).collect();
            for (weight, column) in model.weights.iter_mut().zip(&train.columns) {
                let gradient = millrace_sdk::kernels::dot(column, &residuals) / rows + self.l2 * *weight;
                *weight -= self.learning_rate * gradient;
            }
            model.intercept -= self.learning_rate * sum(&residuals) / rows;
            if !model.intercept.is_finite() || model.weights.iter().any(|weight| !weight.is_finite()) {
                let message = format!(
                    "the weights grew beyond all bounds in epoch {epoch}: use a smaller learning_rate, or scale the features"
                );
                return Err(Error::new(message));
            }
            epochs = epoch;
            let watched = if watches { held_out } else { train };
            let loss = watched.loss(&watched.probabilities(&model.weights, model.intercept));
            if loss < best.0 - 1e-7 {
                best = (loss, epoch, model.clone());
            } else if watches && epoch - best.1 >= self.patience {
                break;
            }
            if epoch % 50 == 0 {
                task.progress(u64::from(epoch), u64::from(self.epochs));
            }
        }
        let model = if watches { best.2 } else { model };
        task.metric("epochs", f64::from(epochs));
        task.metric("train_loss", train.loss(&train.probabilities(&model.weights, model.intercept)));
        if watches {
            task.metric("validation_loss", best.0);
        }
        Ok(model)
    }
}

millrace_sdk::register!(TrainLogistic: whole);

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
    fn it_learns_and_gives_the_same_bits_each_time() {
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
    fn training_stops_when_it_no_longer_helps() {
        let out =
            train(json!({ "label": "y", "features": ["x"], "epochs": 100_000, "learning_rate": 5 })).run().unwrap();
        assert!(out.metrics["epochs"] < 100_000.0);
    }

    #[test]
    fn bad_data_is_named() {
        let error = train(json!({ "label": "id" })).run().unwrap_err();
        assert_eq!((error.message.as_str(), error.row), ("the label is 2, and must be 0 or 1", Some(2)));
        assert_eq!(
            train(json!({ "label": "name" })).problems()[0].message,
            "column `name` is utf8, and a number is needed"
        );
        assert!(
            train(json!({ "label": "y", "learning_rate": 1e200, "l2": 1 }))
                .run()
                .unwrap_err()
                .message
                .contains("beyond all bounds")
        );
    }
}
