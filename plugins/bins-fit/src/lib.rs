//! `std:bins-fit` finds the edges of bins with equally many values, for
//! `std:bins`: the quantiles `1/n … (n-1)/n` of each column, by linear
//! interpolation between the two nearest values (type 7 of Hyndman and Fan, 1996,
//! which numpy and Polars call `linear`). Missing values and NaN do not count.
//!
//! ```toml
//! [steps.edges]
//! uses = "std:bins-fit"
//! input = "customers"
//! params = { columns = ["tenure"], bins = 10 }
//! ```
//!
//! The blob `edges` is JSON: `{"columns":{"tenure":[1.0,6.0,12.0]}}`.

use millrace_sdk::kernels::sort;
use millrace_sdk::keys::Packed;
use millrace_sdk::prelude::*;

/// Params of `std:bins-fit`.
#[derive(Params)]
pub struct BinsFit {
    /// The columns to look at, numbers.
    columns: Vec<String>,
    /// How many bins.
    #[param(default = 10u32, min = 2, max = 100_000)]
    bins: u32,
}

impl Step for BinsFit {
    fn ports() -> Ports {
        Ports::new().mapped("input", "the rows to look at").blob("edges", "the edges between the bins of each column")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read_all("input", &self.columns, Kind::Number, "columns");
        Ok(())
    }
}

/// The bits of a float in an order that is that of the numbers: integers compare
/// and sort faster.
fn ordered(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn number(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

/// The value at a place of sorted runs taken together, without merging them: the
/// least value that more than `place` values do not exceed.
fn select(runs: &[&[u64]], place: usize) -> f64 {
    let (mut least, mut greatest) = (0, u64::MAX);
    while least < greatest {
        let middle = least + (greatest - least) / 2;
        let up_to: usize = runs.iter().map(|run| run.partition_point(|value| *value <= middle)).sum();
        if up_to > place {
            greatest = middle;
        } else {
            least = middle + 1;
        }
    }
    number(least)
}

impl Fold for BinsFit {
    type Partial = Vec<Packed<u64>>;

    /// For each column its values, sorted.
    fn partial(&self, task: &Task) -> Result<Self::Partial> {
        let part = task.part("input")?;
        let sorted = |name: &String| -> Result<Packed<u64>> {
            let column = part.f64(name)?;
            let mut values: Vec<u64> = match column.null_count() {
                0 => column.values().iter().filter(|value| !value.is_nan()).map(|value| ordered(*value)).collect(),
                _ => column.iter().flatten().filter(|value| !value.is_nan()).map(ordered).collect(),
            };
            sort(&mut values);
            Ok(Packed(values))
        };
        self.columns.iter().map(sorted).collect()
    }

    fn merge(&self, partials: Vec<Self::Partial>, task: &Task) -> Result<()> {
        let mut columns = millrace_sdk::json::Map::new();
        for (i, name) in self.columns.iter().enumerate() {
            let runs: Vec<&[u64]> = partials.iter().map(|partial| partial[i].0.as_slice()).collect();
            let count: usize = runs.iter().map(|run| run.len()).sum();
            if count == 0 {
                return Err(Error::new(format!("column `{name}` has no value to look at")).in_column(name));
            }
            let edge = |k: u32| {
                let place = (count - 1) as f64 * f64::from(k) / f64::from(self.bins);
                let below = place as usize;
                let low = select(&runs, below);
                let high = select(&runs, (below + 1).min(count - 1));
                low + (high - low) * (place - below as f64)
            };
            columns.insert(name.clone(), json!((1..self.bins).map(edge).collect::<Vec<f64>>()));
        }
        task.emit_blob("edges", json!({ "columns": columns }).to_string().as_bytes())
    }
}

millrace_sdk::register!(BinsFit: fold);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn edges(parts: &[&[f64]], bins: u32) -> Vec<f64> {
        let part = |values: &&[f64]| table(vec![("x", Arc::new(Float64Array::from(values.to_vec())) as ArrayRef)]);
        let harness = Harness::<BinsFit>::new(json!({ "columns": ["x"], "bins": bins }));
        let out = harness.parts("input", parts.iter().map(part).collect()).run().unwrap();
        let edges: Value = millrace_sdk::json::from_slice(out.blob("edges")).unwrap();
        edges["columns"]["x"].as_array().unwrap().iter().map(|edge| edge.as_f64().unwrap()).collect()
    }

    /// `numpy.quantile(x, [0.25, 0.5, 0.75])` gives the same.
    #[test]
    fn edges_are_interpolated_between_the_nearest_values() {
        assert_eq!(edges(&[&[3.0, -1.0, 0.0, 10.0, 7.0]], 4), [0.0, 3.0, 7.0]);
        assert_eq!(edges(&[&[1.0, 2.0, 3.0, 4.0]], 4), [1.75, 2.5, 3.25]);
    }

    #[test]
    fn parts_and_nan_do_not_matter() {
        let whole: Vec<f64> = (0..1000).map(|i| f64::from((i * 7919) % 1000) - 500.0).collect();
        let expected = edges(&[&whole], 10);
        assert_eq!(edges(&[&whole[..3], &[f64::NAN], &[], &whole[3..700], &whole[700..]], 10), expected);
        assert_eq!(edges(&[&[5.0, 5.0, 5.0]], 3), [5.0, 5.0]);
    }
}
