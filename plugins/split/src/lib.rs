//! `std:split` splits rows into `train` and `test` by a seeded hash of a key, so
//! that a row stays on its side when others come, go or move.
//!
//! ```toml
//! [steps.split]
//! uses = "std:split"
//! input = "features"
//! params = { key = "customer", by = "churn", test = 0.2, seed = 7 }
//! ```
//!
//! Without `by` each part is split by itself, and the share of test rows is
//! about `test`. With `by`, all parts are seen together: of the rows of each
//! value of that column, ordered by hash, the last `test` share is the test.
//! Within a value of that column, rows of one key stay together; values with too
//! few rows for both sides are taken as one.

use std::collections::BTreeMap;

use millrace_sdk::kernels::{hash, hash_int};
use millrace_sdk::prelude::*;

/// Params of `std:split`.
#[derive(Params)]
pub struct Split {
    /// The column that tells one row from another.
    key: String,
    /// The column whose values shall have the same share in train and test.
    by: Option<String>,
    /// Share of the rows that go to the test.
    #[param(default = 0.2, min = 0.0, max = 1.0)]
    test: f64,
    /// Another seed, another split.
    #[param(default = 0u64)]
    seed: u64,
}

impl Step for Split {
    fn ports() -> Ports {
        Ports::new()
            .mapped("input", "a table")
            .table("train", "the rows to learn from")
            .table("test", "the rows to measure with")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read("input", &self.key, Kind::Any, "key")?;
        if let Some(by) = &self.by {
            plan.read("input", by, Kind::Any, "by")?;
            plan.set_mode(millrace_sdk::Mode::Whole);
        }
        plan.output("train").pass_all("input")?;
        plan.output("test").pass_all("input")?;
        Ok(())
    }
}

/// The values of a column as bytes, one for each row; a missing one has none.
fn each_value(part: &Part, name: &str, mut each: impl FnMut(&[u8])) -> Result<()> {
    let field = part.fields().iter().find(|field| field.name() == name);
    let data_type = field.map_or(DataType::Null, |field| field.data_type().clone());
    if data_type == DataType::Utf8 {
        for text in part.text(name)?.iter() {
            each(text.unwrap_or_default().as_bytes());
        }
    } else if data_type.is_floating() {
        for value in part.f64(name)?.iter() {
            each(&value.map_or([0; 8], f64::to_le_bytes));
        }
    } else {
        let int = part.i64(name)?;
        for value in int.iter() {
            each(&value.map_or([0; 8], i64::to_le_bytes));
        }
    }
    Ok(())
}

impl Split {
    fn hashes(&self, part: &Part) -> Result<Vec<u64>> {
        let field = part.fields().iter().find(|field| *field.name() == self.key);
        if field.is_some_and(|field| field.data_type().is_integer())
            && let Ok(keys) = part.i64(&self.key)
        {
            let seed = self.seed;
            let hash = |key: Option<i64>| key.map_or_else(|| hash(seed, &[]), |key| hash_int(seed, key));
            return Ok(match keys.null_count() {
                0 => keys.values().iter().map(|key| hash_int(seed, *key)).collect(),
                _ => keys.iter().map(hash).collect(),
            });
        }
        let mut hashes = Vec::with_capacity(part.rows());
        each_value(part, &self.key, |value| hashes.push(hash(self.seed, value)))?;
        Ok(hashes)
    }

    fn emit(&self, task: &Task, test: Vec<bool>) -> Result<()> {
        let train = BooleanArray::new(test.iter().map(|test| !test).collect(), None);
        let test = BooleanArray::new(test.into(), None);
        task.metric("train_rows", train.true_count() as f64);
        task.metric("test_rows", test.true_count() as f64);
        task.mask("train", "input", &train, vec![])?;
        task.mask("test", "input", &test, vec![])
    }
}

impl Map for Split {
    fn map(&self, task: &Task) -> Result<()> {
        let hashes = self.hashes(&task.part("input")?)?;
        // The upper 53 bits are a float in [0, 1).
        let share = |hash: u64| (hash >> 11) as f64 / 9_007_199_254_740_992.0;
        self.emit(task, hashes.into_iter().map(|hash| share(hash) >= 1.0 - self.test).collect())
    }
}

/// The least hash of the test, when the `train` rows with the least hashes are for
/// training; rows of equal keys go to the side where most of them would be.
fn first_of_test(group: &mut [(u64, u32, u32)], train: usize) -> Option<u64> {
    if train >= group.len() {
        return None;
    }
    let (below, (hash, ..), above) = group.select_nth_unstable(train);
    let hash = *hash;
    let equal_below = below.iter().filter(|(other, ..)| *other == hash).count();
    let equal_above = above.iter().filter(|(other, ..)| *other == hash).count() + 1;
    if equal_below <= equal_above {
        return Some(hash);
    }
    above.iter().map(|(other, ..)| *other).filter(|other| *other > hash).min()
}

impl Whole for Split {
    fn whole(&self, task: &Task) -> Result<()> {
        let table = task.table("input")?;
        let by = self.by.as_deref().unwrap_or(&self.key);
        let mut groups: BTreeMap<Vec<u8>, Vec<(u64, u32, u32)>> = BTreeMap::new();
        let mut sides = Vec::new();
        for (index, part) in table.parts().enumerate() {
            let hashes = self.hashes(&part)?;
            sides.push(vec![false; hashes.len()]);
            let mut row = 0;
            each_value(&part, by, |value| {
                let entry = (hashes[row], index as u32, row as u32);
                match groups.get_mut(value) {
                    Some(group) => group.push(entry),
                    None => drop(groups.insert(value.to_vec(), vec![entry])),
                }
                row += 1;
            })?;
        }
        // A group that is too small to have a row on each side is split with the
        // others of its kind: rounding it by itself would put all of them on one.
        let smallest = (1.0 / self.test.min(1.0 - self.test).max(1e-9)).ceil() as usize;
        let (mut rest, mut of_groups) = (Vec::new(), Vec::new());
        for group in groups.into_values() {
            if group.len() < smallest { rest.extend(group) } else { of_groups.push(group) }
        }
        of_groups.push(rest);
        for mut group in of_groups {
            let train = ((1.0 - self.test) * group.len() as f64 + 1e-9) as usize;
            let Some(first) = first_of_test(&mut group, train) else { continue };
            for (hash, part, row) in &group {
                sides[*part as usize][*row as usize] = *hash >= first;
            }
        }
        sides.into_iter().try_for_each(|test| self.emit(task, test))
    }
}

millrace_sdk::register!(Split: map, whole);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn rows(ids: impl Iterator<Item = i64> + Clone) -> millrace_sdk::arrow_array::RecordBatch {
        let labels: StringArray = ids.clone().map(|id| Some(if id % 4 == 0 { "yes" } else { "no" })).collect();
        table(vec![("id", Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef), ("label", Arc::new(labels))])
    }

    fn test_ids(parts: Vec<millrace_sdk::arrow_array::RecordBatch>, params: Value) -> BTreeSet<i64> {
        let out = Harness::<Split>::new(params).parts("input", parts).run().unwrap();
        let ids = |port| out.numbers(port, "id").into_iter().map(|id| id.unwrap() as i64).collect::<BTreeSet<_>>();
        let (train, test) = (ids("train"), ids("test"));
        assert!(train.is_disjoint(&test));
        assert_eq!(out.metrics["test_rows"] as usize, test.len());
        test
    }

    #[test]
    fn a_row_stays_on_its_side_whatever_the_others_do() {
        let params = || json!({ "key": "id", "test": 0.3, "seed": 7 });
        let all = test_ids(vec![rows(0..2000)], params());
        assert!((500..700).contains(&all.len()), "{}", all.len());
        let cut = test_ids(vec![rows((0..1000).rev()), rows(1000..1500)], params());
        assert_eq!(cut, all.iter().copied().filter(|id| *id < 1500).collect());
        assert_ne!(all, test_ids(vec![rows(0..2000)], json!({ "key": "id", "test": 0.3, "seed": 8 })));
    }

    #[test]
    fn stratified_shares_are_exact_and_parts_do_not_matter() {
        let params = || json!({ "key": "id", "by": "label", "test": 0.2 });
        let one = test_ids(vec![rows(0..1000)], params());
        assert_eq!(one.iter().filter(|id| *id % 4 == 0).count(), 50);
        assert_eq!(one.len(), 200);
        assert_eq!(one, test_ids(vec![rows(0..1), rows(1..600), rows(600..1000)], params()));
    }

    /// With as many groups as rows, rounding each by itself would leave no train.
    #[test]
    fn small_groups_share_the_rounding_and_equal_keys_stay_together() {
        let ids_of = |column: &str, label: &str, test: f64| {
            let keys = Int64Array::from_iter_values((0..1000).map(|row| row / 4));
            let rows = Int64Array::from_iter_values(0..1000);
            let input = table(vec![("key", Arc::new(keys) as ArrayRef), ("row", Arc::new(rows))]);
            let params = json!({ "key": column, "by": label, "test": test });
            let out = Harness::<Split>::new(params).table("input", input).run().unwrap();
            let keys = |port| out.numbers(port, "key").into_iter().map(|key| key.unwrap() as i64).collect::<Vec<_>>();
            (keys("train"), keys("test"))
        };
        assert_eq!(ids_of("row", "row", 0.2).1.len(), 200);
        // A key has four rows: one that the boundary would tear goes where most of it is.
        assert_eq!(ids_of("key", "key", 0.201).0.len(), 800);
        assert_eq!(ids_of("key", "key", 0.203).0.len(), 796);
        let (train, test) = ids_of("key", "key", 0.2);
        assert_eq!(train.iter().find(|key| test.contains(key)), None);
        assert_eq!(train.len() + test.len(), 1000);
    }
}
