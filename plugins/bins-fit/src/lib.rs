//! `std:bins-fit` finds the edges of bins with equally many values, for `std:bins`: the
//! quantiles `1/n … (n-1)/n` of each column, by linear interpolation between the two nearest
//! values (type 7 of Hyndman and Fan, 1996, which numpy and Polars call `linear`). Missing
//! values and NaN are ignored.
//!
//! ```toml
//! [steps.edges]
//! uses = "std:bins-fit"
//! input = "customers"
//! params = { columns = ["tenure"], bins = 10 }
//! ```
//!
//! The blob `edges` is JSON: `{"columns":{"tenure":[1.0,6.0,12.0]}}`.

use millrace_sdk::kernels::{any, sort};
use millrace_sdk::keys::{Packed, PackedRef};
use millrace_sdk::prelude::*;

/// Params of `std:bins-fit`.
#[derive(Params)]
pub struct BinsFit {
    /// The numeric columns to find edges for.
    columns: Vec<String>,
    /// The number of bins.
    #[param(default = 10u32, min = 2, max = 100_000)]
    bins: u32,
}

impl Step for BinsFit {
    fn ports() -> Ports {
        Ports::new()
            .mapped("input", "the rows to find edges for")
            .blob("edges", "the edges between the bins of each column")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read_all("input", &self.columns, Kind::Number, "columns");
        Ok(())
    }
}

/// The bits of a float as an integer with the same order as the float: integers compare and sort
/// faster.
fn ordered(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn number(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered })
}

/// Of every `STRIDE` values of a sorted run, the last one is sampled in the first pass.
const STRIDE: usize = 64;

/// Sorted runs after one pass: the number of their values, and samples of them.
#[derive(Default)]
struct Sketch {
    runs: usize,
    values: usize,
    /// The last of every `STRIDE` values of each run.
    samples: Vec<u64>,
}

/// The bounds of a value that is searched for: greater than the first, at most the second.
type Bounds = (Option<u64>, Option<u64>);

impl Sketch {
    fn add(&mut self, run: &PackedRef<u64>) {
        self.runs += 1;
        self.values += run.len();
        self.samples.extend((1..=run.len() / STRIDE).map(|chunk| run.get(chunk * STRIDE - 1)));
    }

    /// The certain bounds of the value at an index of all runs merged. There are at least as
    /// many values up to a sample as the samples up to it represent, and in each run fewer than
    /// `STRIDE` more.
    fn bounds(&self, index: usize) -> Bounds {
        let more = self.runs * (STRIDE - 1);
        // Samples with equal values count the same.
        let below = (index + 1).saturating_sub(more + 1) / STRIDE;
        let before = |count: usize| {
            let last = *self.samples.get(count.checked_sub(1)?)?;
            let next = self.samples.get(count);
            // All samples up to a value, or none of them.
            if next.is_none_or(|next| *next > last) {
                return Some(last);
            }
            let first = self.samples.partition_point(|sample| *sample < last);
            self.samples.get(first.checked_sub(1)?).copied()
        };
        (before(below), self.samples.get(index / STRIDE).copied())
    }
}

/// Values of all runs between two bounds, with the number of occurrences of each.
#[derive(Default)]
struct Window {
    bounds: Bounds,
    below: usize,
    values: Vec<(u64, usize)>,
}

impl Window {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    fn add(&mut self, run: &PackedRef<u64>) {
        let up_to = |bound: u64| run.partition_point(|value| value <= bound);
        let from = self.bounds.0.map_or(0, up_to);
        let to = self.bounds.1.map_or(run.len(), up_to);
        self.below += from;
        for value in run.slice(from..to.max(from)).iter() {
            match self.values.last_mut() {
                Some((last, count)) if *last == value => *count += 1,
                _ => self.values.push((value, 1)),
            }
        }
    }

    /// The value at an index of all runs merged.
    fn at(&self, index: usize) -> f64 {
        let mut seen = self.below;
        let found = self.values.iter().find(|(_, count)| {
            seen += count;
            seen > index
        });
        found.or(self.values.last()).map_or(f64::NAN, |(value, _)| number(*value))
    }
}

impl Fold for BinsFit {
    type Partial = Vec<Packed<u64>>;

    /// Returns the sorted values of each column.
    fn partial(&self, task: &Task) -> Result<Self::Partial> {
        let part = task.part("input")?;
        let sorted = |name: &String| -> Result<Packed<u64>> {
            let mut values: Vec<u64> = Vec::with_capacity(part.rows());
            for block in part.blocks() {
                let column = block.f64(name)?;
                match column.null_count() {
                    0 if !any(column.values(), f64::is_nan) => {
                        values.extend(column.values().iter().map(|value| ordered(*value)));
                    }
                    _ => values.extend(column.iter().flatten().filter(|value| !value.is_nan()).map(ordered)),
                }
            }
            sort(&mut values);
            Ok(Packed(values))
        };
        self.columns.iter().map(sorted).collect()
    }

    /// Reads the values twice, part by part: first to find roughly where the edges are, then to
    /// collect the values there. So only few of them are held in memory.
    fn merge(&self, partials: Partials<Self::Partial>, task: &Task) -> Result<()> {
        let mut sketches: Vec<Sketch> = self.columns.iter().map(|_| Sketch::default()).collect();
        for partial in partials.kept() {
            let runs: Vec<PackedRef<u64>> = partial.read()?;
            sketches.iter_mut().zip(&runs).for_each(|(sketch, run)| sketch.add(run));
        }
        let mut windows = Vec::with_capacity(sketches.len());
        for (name, sketch) in self.columns.iter().zip(&mut sketches) {
            if sketch.values == 0 {
                return Err(Error::new(format!("column `{name}` has no values")).in_column(name));
            }
            sort(&mut sketch.samples);
            let window = |k| {
                let (below, _) = self.position(k, sketch.values);
                let (low, high) = (sketch.bounds(below), sketch.bounds((below + 1).min(sketch.values - 1)));
                Window::new((low.0, high.1))
            };
            windows.push((1..self.bins).map(window).collect::<Vec<_>>());
        }
        for partial in partials.kept() {
            let runs: Vec<PackedRef<u64>> = partial.read()?;
            for (windows, run) in windows.iter_mut().zip(&runs) {
                windows.iter_mut().for_each(|window| window.add(run));
            }
        }
        let mut columns = millrace_sdk::json::Map::new();
        for ((name, windows), sketch) in self.columns.iter().zip(&mut windows).zip(&sketches) {
            let edge = |(k, window): (u32, &mut Window)| {
                window.values.sort_unstable();
                let (below, between) = self.position(k, sketch.values);
                let low = window.at(below);
                let high = window.at((below + 1).min(sketch.values - 1));
                between_two(low, high, between)
            };
            let edges: Vec<f64> = (1..).zip(windows).map(edge).collect();
            if let Some(index) = edges.iter().position(|edge| !edge.is_finite()) {
                let message = format!(
                    "edge {} of {} of the column `{name}` is infinite, which an edge cannot be: \
                     replace infinite values first, for instance with `derive`",
                    index + 1,
                    edges.len()
                );
                return Err(Error::new(message).in_column(name));
            }
            columns.insert(name.clone(), json!(edges));
        }
        task.emit_blob("edges", json!({ "columns": columns }).to_string().as_bytes())
    }
}

/// Interpolates between two values, at the fraction `between` of the way from the first.
fn between_two(low: f64, high: f64, between: f64) -> f64 {
    let range = high - low;
    if range.is_finite() {
        low + range * between
    } else if between == 0.0 {
        low
    } else {
        low * (1.0 - between) + high * between
    }
}

impl BinsFit {
    /// The position of the edge `k` among `values` sorted values: the index before it, and the
    /// fraction of the way to the next.
    fn position(&self, k: u32, values: usize) -> (usize, f64) {
        let position = (values - 1) as f64 * f64::from(k) / f64::from(self.bins);
        (position as usize, position - (position as usize) as f64)
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

    /// Long runs, short runs and frequent values: the same edges as those of one sorted run, to
    /// the bit.
    #[test]
    fn edges_are_those_of_all_values_sorted() {
        let mut state = 1u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for distinct in [1, 2, 5, 1000, 1 << 30] {
            for bins in [2, 3, 10, 97] {
                let parts: Vec<Vec<f64>> = (0..1 + random(12))
                    .map(|_| {
                        let rows = [1, 60, 64, 65, 700, 3000][random(6) as usize];
                        let heavy = random(4) == 0;
                        let value = |x: u64| if heavy && x.is_multiple_of(3) { 1.0 } else { x as f64 - 400.0 };
                        (0..rows).map(|_| value(random(distinct))).collect()
                    })
                    .collect();
                let mut all = parts.concat();
                all.sort_unstable_by(f64::total_cmp);
                let expected = (1..bins).map(|k| {
                    let position = (all.len() - 1) as f64 * f64::from(k) / f64::from(bins);
                    let (low, high) = (all[position as usize], all[(position as usize + 1).min(all.len() - 1)]);
                    low + (high - low) * (position - (position as usize) as f64)
                });
                let parts: Vec<&[f64]> = parts.iter().map(Vec::as_slice).collect();
                assert_eq!(edges(&parts, bins), expected.collect::<Vec<_>>(), "{distinct} {bins} {}", parts.len());
            }
        }
    }

    /// An infinity is a value like any other, as long as no edge falls on it.
    #[test]
    fn an_infinite_edge_is_an_error() {
        let big = f64::MAX;
        assert_eq!(edges(&[&[-big, big]], 2), [0.0]);
        assert_eq!(edges(&[&[1.0, 2.0, f64::INFINITY]], 2), [2.0]);
        for values in [vec![1.0, f64::INFINITY], vec![f64::NEG_INFINITY, f64::INFINITY], vec![f64::INFINITY]] {
            let part = table(vec![("x", Arc::new(Float64Array::from(values)) as ArrayRef)]);
            let harness = Harness::<BinsFit>::new(json!({ "columns": ["x"], "bins": 2 }));
            let error = harness.parts("input", vec![part]).run().err().unwrap();
            assert!(error.to_string().contains("edge 1 of 1 of the column `x` is infinite"), "{error}");
        }
    }

    #[test]
    fn edges_do_not_depend_on_parts_or_nan() {
        let whole: Vec<f64> = (0..1000).map(|i| f64::from((i * 7919) % 1000) - 500.0).collect();
        let expected = edges(&[&whole], 10);
        assert_eq!(edges(&[&whole[..3], &[f64::NAN], &[], &whole[3..700], &whole[700..]], 10), expected);
        assert_eq!(edges(&[&[5.0, 5.0, 5.0]], 3), [5.0, 5.0]);
    }
}
