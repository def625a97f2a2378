//! `std:bins` puts numbers into the bins whose edges `std:bins-fit` found: the
//! new column `NAME_bin`, `int32`, has the number of edges that are not above the
//! value, from 0. A missing value and NaN have no bin.
//!
//! ```toml
//! [steps.binned]
//! uses = "std:bins"
//! inputs = { input = "customers", edges = "edges" }
//! params = { columns = ["tenure"] }
//! ```

use millrace_sdk::kernels;
use millrace_sdk::prelude::*;

/// Params of `std:bins`.
#[derive(Params)]
pub struct Bins {
    /// The columns to bin: all or some of those that `bins-fit` found edges for.
    columns: Vec<String>,
}

impl Step for Bins {
    fn ports() -> Ports {
        Ports::new()
            .mapped("input", "a table")
            .input_blob("edges", "the edges from `bins-fit`")
            .table("output", "the table with the bin of each value")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read_all("input", &self.columns, Kind::Number, "columns");
        let output = plan.output("output").pass_all("input")?;
        for name in &self.columns {
            output.add(&format!("{name}_bin"), DataType::Int32);
        }
        Ok(())
    }
}

/// The code of a missing bin.
const NONE: i32 = -1;

impl Map for Bins {
    fn map(&self, task: &Task) -> Result<()> {
        let fitted = task.json("edges")?;
        let part = task.part("input")?;
        let binned = |name: &String| {
            let Some(edges) = fitted["columns"][name].as_array() else {
                return Err(Error::new(format!("`edges` has no column `{name}`")).in_column(name));
            };
            let edges: Vec<f64> = edges.iter().filter_map(Value::as_f64).collect();
            let mut bins: Vec<i32> = Vec::with_capacity(part.rows());
            for block in part.blocks() {
                let column = block.f64(name)?;
                if column.null_count() == 0 && !kernels::any(column.values(), f64::is_nan) {
                    bins.extend(kernels::bins(column.values(), &edges));
                } else {
                    let bin = |x: f64| edges.partition_point(|edge| *edge <= x) as i32;
                    bins.extend(column.iter().map(|x| x.filter(|x| !x.is_nan()).map_or(NONE, bin)));
                }
            }
            let binned: Int32Array = match bins.contains(&NONE) {
                true => bins.into_iter().map(|bin| (bin != NONE).then_some(bin)).collect(),
                false => bins.into(),
            };
            Ok((format!("{name}_bin"), Column::from(binned)))
        };
        task.same_rows_each("output", "input", self.columns.iter().map(binned))
    }
}

millrace_sdk::register!(Bins: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    #[test]
    fn a_value_on_an_edge_is_in_the_upper_bin() {
        let values = vec![Some(-1.0), Some(0.0), Some(0.5), Some(1.0), Some(9.0), None, Some(f64::NAN)];
        let expected = [Some(0.0), Some(1.0), Some(1.0), Some(2.0), Some(2.0), None, None];
        let bins = |values: Vec<Option<f64>>, edges: &str| {
            let input = table(vec![("x", Arc::new(Float64Array::from(values)) as ArrayRef)]);
            let harness = Harness::<Bins>::new(json!({ "columns": ["x"] })).table("input", input).blob("edges", edges);
            harness.run().unwrap().numbers("output", "x_bin")
        };
        let edges = r#"{"columns":{"x":[0.0,1.0]}}"#;
        assert_eq!(bins(values.clone(), edges), expected);
        assert_eq!(bins(values[..5].to_vec(), edges), expected[..5]);
        // More values than are counted at a time.
        let many: Vec<Option<f64>> = (0..45).map(|i| Some(f64::from(i) / 30.0 - 0.2)).collect();
        let counted: Vec<Option<f64>> =
            (0..45).map(|i| Some(f64::from(i32::from(i >= 6) + i32::from(i >= 36)))).collect();
        assert_eq!(bins(many, edges), counted);
        let many: Vec<f64> = (0..50).map(f64::from).collect();
        let found = bins(vec![Some(10.5), Some(60.0)], &json!({ "columns": { "x": many } }).to_string());
        assert_eq!(found, [Some(11.0), Some(50.0)]);
    }
}
