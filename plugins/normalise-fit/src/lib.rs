//! `std:normalise-fit` measures the mean and spread of columns, part by part, for
//! `std:normalise`. Fit it on the training rows only.
//!
//! ```toml
//! [steps.scale]
//! uses = "std:normalise-fit"
//! input = "split.train"
//! params = { columns = ["tenure", "monthly_charges"] }
//! ```
//!
//! The blob `scaling` is JSON: `{"columns":{"tenure":{"mean":32.4,"std":24.6}}}`. Missing
//! values and NaN are ignored; the spread is that of the population.

use millrace_sdk::prelude::*;

/// Params of `std:normalise-fit`.
#[derive(Params)]
pub struct NormaliseFit {
    /// The numeric columns to measure.
    columns: Vec<String>,
}

/// Count, mean and sum of squared deviations of one column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let count = values.len() as f64;
        let mean = millrace_sdk::kernels::sum(values) / count;
        let squares = millrace_sdk::kernels::sum_of(values, |value| (value - mean) * (value - mean));
        Self { count, mean, squares }
    }

    /// Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for
    /// Computing Sample Variances, 1979.
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let delta = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + delta * (other.count / count),
            squares: self.squares + other.squares + delta * delta * (self.count * other.count / count),
        }
    }
}

impl Step for NormaliseFit {
    fn ports() -> Ports {
        Ports::new().mapped("input", "the rows to measure").blob("scaling", "mean and spread of each column")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read_all("input", &self.columns, Kind::Number, "columns");
        Ok(())
    }
}

impl Fold for NormaliseFit {
    type Partial = Vec<Moments>;

    fn partial(&self, task: &Task) -> Result<Vec<Moments>> {
        let part = task.part("input")?;
        let moments = |column: &Float64Array| {
            if column.null_count() == 0 {
                // Usually no value is missing, and a NaN shows in the mean.
                let all = Moments::of(column.values());
                if !all.mean.is_nan() {
                    return all;
                }
            }
            let values: Vec<f64> = column.iter().flatten().filter(|value| !value.is_nan()).collect();
            Moments::of(&values)
        };
        let of_part = |name: &String| {
            part.blocks().try_fold(Moments::default(), |all, block| Ok(all.merge(moments(&block.f64(name)?))))
        };
        self.columns.iter().map(of_part).collect()
    }

    fn merge(&self, partials: Partials<Self::Partial>, task: &Task) -> Result<()> {
        let mut all = vec![Moments::default(); self.columns.len()];
        for partial in partials.iter() {
            all.iter_mut().zip(partial?).for_each(|(all, moments)| *all = all.merge(moments));
        }
        let mut columns = millrace_sdk::json::Map::new();
        for (name, all) in self.columns.iter().zip(all) {
            if all.count == 0.0 {
                return Err(Error::new(format!("column `{name}` has no values to measure")).in_column(name));
            }
            let std = millrace_sdk::expr_math::sqrt(all.squares / all.count);
            if !(all.mean.is_finite() && std.is_finite()) {
                let message = format!("column `{name}` has values too large for a mean and a spread");
                return Err(Error::new(message).in_column(name));
            }
            columns.insert(name.clone(), json!({ "mean": all.mean, "std": std }));
        }
        task.emit_blob("scaling", json!({ "columns": columns }).to_string().as_bytes())
    }
}

millrace_sdk::register!(NormaliseFit: fold);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn fit(parts: &[&[Option<f64>]]) -> Result<Value> {
        let part =
            |values: &&[Option<f64>]| table(vec![("x", Arc::new(Float64Array::from(values.to_vec())) as ArrayRef)]);
        let harness =
            Harness::<NormaliseFit>::new(json!({ "columns": ["x"] })).parts("input", parts.iter().map(part).collect());
        Ok(millrace_sdk::json::from_slice(harness.run()?.blob("scaling")).unwrap())
    }

    #[test]
    fn parts_give_the_same_as_one_part() {
        let whole = fit(&[&[Some(1.0), None, Some(2.0), Some(6.0)]]).unwrap();
        assert_eq!(whole["columns"]["x"]["mean"], 3.0);
        let std = whole["columns"]["x"]["std"].as_f64().unwrap();
        assert!((std * std - 14.0 / 3.0).abs() < 1e-12);
        let parts = fit(&[&[Some(1.0)], &[None], &[Some(2.0), Some(6.0)]]).unwrap();
        assert!((parts["columns"]["x"]["std"].as_f64().unwrap() - std).abs() < 1e-12);
    }

    #[test]
    fn missing_values_and_nan_are_ignored() {
        let values =
            |with: &[Option<f64>]| fit(&[&[&[Some(1.0), Some(2.0)][..], with, &[Some(6.0)]].concat()]).unwrap();
        let plain = values(&[]);
        assert_eq!(values(&[None]), plain);
        assert_eq!(values(&[Some(f64::NAN)]), plain);
        assert_eq!(values(&[Some(f64::NAN), None]), plain);
    }

    #[test]
    fn a_column_without_values_is_an_error() {
        assert_eq!(fit(&[&[None]]).unwrap_err().message, "column `x` has no values to measure");
    }
}
