//! `std:split` splits rows into `train` and `test` by a seeded hash of a key, so that a row
//! stays on its side when other rows are added, removed or moved.
//!
//! ```toml
//! [steps.split]
//! uses = "std:split"
//! input = "features"
//! params = { key = "customer", by = "churn", test = 0.2, seed = 7 }
//! ```
//!
//! Without `by` each part is split on its own, and the share of test rows is about `test`. With
//! `by`, all parts are split together: of the rows of each value of that column, ordered by
//! hash, the last `test` share goes to the test. Within a value of that column, rows with the
//! same key stay together; values with too few rows for both sides are treated as one.

use std::ops::RangeInclusive;

use millrace_sdk::expr_math::sqrt;
use millrace_sdk::kernels::{KeyMap, hash, hash_int};
use millrace_sdk::keys::Numbering;
use millrace_sdk::prelude::*;

/// Params of `std:split`.
#[derive(Params)]
pub struct Split {
    /// The column that identifies a row.
    key: String,
    /// The column whose values have the same share in train and test.
    by: Option<String>,
    /// The share of the rows that goes to the test.
    #[param(default = 0.2, min = 0.0, max = 1.0)]
    test: f64,
    /// The seed of the split: another seed gives another split.
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

/// Calls `each` with the value of each row of a column as bytes; a missing value has none.
fn each_value(part: &Part, name: &str, mut each: impl FnMut(Option<&[u8]>)) -> Result<()> {
    let field = part.fields().iter().find(|field| field.name() == name);
    let is_text = field.is_some_and(|field| *field.data_type() == DataType::Utf8);
    for block in part.blocks() {
        if is_text {
            block.text(name)?.iter().for_each(|text| each(text.map(str::as_bytes)));
        } else {
            let bytes = |value: Option<f64>| each(value.map(f64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
            block.f64(name)?.iter().for_each(bytes);
        }
    }
    Ok(())
}

/// Whether a column is of integers or booleans.
fn is_of_integers(part: &Part, name: &str) -> bool {
    let integers = |field: &Field| {
        let data_type = field.data_type();
        *data_type == DataType::Boolean || (data_type.is_integer() && *data_type != DataType::UInt64)
    };
    part.fields().iter().any(|field| field.name() == name && integers(field))
}

impl Split {
    fn hashes(&self, part: &Part) -> Result<Vec<u64>> {
        let seed = self.seed;
        let mut hashes = Vec::with_capacity(part.rows());
        if is_of_integers(part, &self.key) {
            let hash = |key: Option<i64>| key.map_or_else(|| hash(seed, &[]), |key| hash_int(seed, key));
            for block in part.blocks() {
                let keys = block.i64(&self.key)?;
                match keys.null_count() {
                    0 => hashes.extend(keys.values().iter().map(|key| hash_int(seed, *key))),
                    _ => hashes.extend(keys.iter().map(hash)),
                }
            }
            return Ok(hashes);
        }
        each_value(part, &self.key, |value| hashes.push(hash(seed, value.unwrap_or_default())))?;
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

/// The values of `by`, numbered; missing is one of them.
#[derive(Default)]
struct Strata {
    integers: Numbering,
    others: KeyMap<Vec<u8>, u32>,
    missing: Option<u32>,
}

impl Strata {
    /// For each row of a part the number of its value.
    fn numbers(&mut self, part: &Part, by: &str) -> Result<Vec<u32>> {
        let mut numbers = Vec::with_capacity(part.rows());
        if is_of_integers(part, by) {
            let column = part.i64(by)?;
            self.integers.expect(column.values());
            numbers.extend(column.iter().map(|key| match key {
                Some(key) => self.integers.number(key),
                None => self.integers.missing(),
            }));
            return Ok(numbers);
        }
        each_value(part, by, |value| {
            let next = self.others.len() as u32 + u32::from(self.missing.is_some());
            numbers.push(match value.map(|value| (value, self.others.get(value))) {
                None => *self.missing.get_or_insert(next),
                Some((_, Some(known))) => *known,
                Some((value, None)) => *self.others.entry(value.to_vec()).or_insert(next),
            });
        })?;
        Ok(numbers)
    }
}

/// Rows of which a share goes to the test, by their hashes. All rows are read more than once, but
/// only the hashes near the start of the test are held.
struct Group {
    rows: usize,
    /// The number of rows for training: those with the lowest hashes.
    train: usize,
    /// The range of hashes that are held.
    near: RangeInclusive<u64>,
    /// The number of rows with a hash below that range.
    below: usize,
    kept: Vec<u64>,
    /// The lowest hash of the test, once it is known; `Some(None)` when there is no test.
    first: Option<Option<u64>>,
}

/// All hashes of groups with no more rows than this are held.
const FEW: usize = 4096;

impl Group {
    fn new(rows: usize, test: f64) -> Self {
        let train = ((1.0 - test) * rows as f64 + 1e-9) as usize;
        let first = (train >= rows).then_some(None);
        Self { rows, train, near: Self::near(rows, train), below: 0, kept: Vec::new(), first }
    }

    /// Hashes are spread evenly: the one at an index is near its share of all hashes, within
    /// eight standard deviations, except for frequent keys, or once in 10^15.
    fn near(rows: usize, train: usize) -> RangeInclusive<u64> {
        if rows <= FEW {
            return 0..=u64::MAX;
        }
        const ALL: f64 = 18_446_744_073_709_551_616.0;
        let (rows, share) = (rows as f64, train as f64 / rows as f64);
        let width = 8.0 * sqrt(share * (1.0 - share) / rows) + 8.0 / rows;
        // Casts saturate at the bounds of the type.
        ((share - width) * ALL) as u64..=((share + width) * ALL) as u64
    }

    fn add(&mut self, hash: u64) {
        if self.first.is_none() {
            self.below += usize::from(hash < *self.near.start());
            if self.near.contains(&hash) {
                self.kept.push(hash);
            }
        }
    }

    /// Decides where the test starts, if it starts among the hashes that are held. Rows with
    /// equal keys go to the side where most of them would be.
    fn decide(&mut self) {
        self.kept.sort_unstable();
        let seen = self.below + self.kept.len();
        if self.first.is_some() || self.below > self.train || seen <= self.train {
            return;
        }
        let hash = self.kept[self.train - self.below];
        let (from, to) = (self.kept.partition_point(|h| *h < hash), self.kept.partition_point(|h| *h <= hash));
        let (equal_below, equal_above) = (self.train - self.below - from, self.below + to - self.train);
        self.first = match self.kept.get(to) {
            _ if equal_below <= equal_above => Some(Some(hash)),
            Some(next) => Some(Some(*next)),
            None if seen == self.rows => Some(None),
            None => None,
        };
    }

    /// Holds all hashes, if those in the range were too few.
    fn keep_all(&mut self) {
        (self.near, self.below) = (0..=u64::MAX, 0);
        self.kept.clear();
    }
}

impl Split {
    /// Adds the hash of each row of all parts to the group of the row.
    fn fill(&self, table: &Table, by: &str, strata: &mut Strata, of: &[usize], groups: &mut [Group]) -> Result<()> {
        for part in table.parts() {
            let numbers = strata.numbers(&part, by)?;
            for (hash, number) in self.hashes(&part)?.into_iter().zip(numbers) {
                groups[of[number as usize]].add(hash);
            }
        }
        Ok(())
    }
}

impl Whole for Split {
    fn whole(&self, task: &Task) -> Result<()> {
        let table = task.table("input")?;
        let by = self.by.as_deref().unwrap_or(&self.key);
        let mut strata = Strata::default();
        let mut counts: Vec<usize> = Vec::new();
        for part in table.parts() {
            for number in strata.numbers(&part, by)? {
                if counts.len() <= number as usize {
                    counts.resize(number as usize + 1, 0);
                }
                counts[number as usize] += 1;
            }
        }
        // A value with too few rows to have one on each side is split together with the other
        // such values: rounding it on its own would put all of its rows on one side.
        let smallest = (1.0 / self.test.min(1.0 - self.test).max(1e-9)).ceil() as usize;
        let rest = counts.iter().filter(|count| **count < smallest).sum();
        let mut groups = vec![Group::new(rest, self.test)];
        let group = |count: usize| {
            if count < smallest {
                return 0;
            }
            groups.push(Group::new(count, self.test));
            groups.len() - 1
        };
        let of: Vec<usize> = counts.into_iter().map(group).collect();
        self.fill(&table, by, &mut strata, &of, &mut groups)?;
        groups.iter_mut().for_each(Group::decide);
        if groups.iter().any(|group| group.first.is_none()) {
            groups.iter_mut().for_each(Group::keep_all);
            self.fill(&table, by, &mut strata, &of, &mut groups)?;
            groups.iter_mut().for_each(Group::decide);
        }
        let firsts: Vec<Option<u64>> = of.iter().map(|group| groups[*group].first.flatten()).collect();
        drop(groups);
        for part in table.parts() {
            let numbers = strata.numbers(&part, by)?;
            let is_test = |(hash, number): (u64, u32)| firsts[number as usize].is_some_and(|first| hash >= first);
            self.emit(task, self.hashes(&part)?.into_iter().zip(numbers).map(is_test).collect())?;
        }
        Ok(())
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
    fn a_row_stays_on_its_side_when_other_rows_change() {
        let params = || json!({ "key": "id", "test": 0.3, "seed": 7 });
        let all = test_ids(vec![rows(0..2000)], params());
        assert!((500..700).contains(&all.len()), "{}", all.len());
        let fewer = test_ids(vec![rows((0..1000).rev()), rows(1000..1500)], params());
        assert_eq!(fewer, all.iter().copied().filter(|id| *id < 1500).collect());
        assert_ne!(all, test_ids(vec![rows(0..2000)], json!({ "key": "id", "test": 0.3, "seed": 8 })));
    }

    #[test]
    fn stratified_shares_are_exact_and_independent_of_parts() {
        let params = || json!({ "key": "id", "by": "label", "test": 0.2 });
        let one = test_ids(vec![rows(0..1000)], params());
        assert_eq!(one.iter().filter(|id| *id % 4 == 0).count(), 50);
        assert_eq!(one.len(), 200);
        assert_eq!(one, test_ids(vec![rows(0..1), rows(1..600), rows(600..1000)], params()));
    }

    /// The same as sorting all rows of each value by hash, if keys occur once, often, or in half of
    /// all rows, so that the hashes in the range do not suffice.
    #[test]
    fn the_test_starts_at_the_same_hash_as_in_sorted_rows() {
        let often = (1..40).map(|keys| (keys, 30_000));
        for (keys, rows) in often.chain([(97, 30_000), (1 << 40, 30_000), (1 << 40, FEW as i64)]) {
            let key = |row: i64| (row.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()) >> 3).rem_euclid(keys);
            let keys_of = Int64Array::from_iter_values((0..rows).map(key));
            let label = Int64Array::from_iter((0..rows).map(|row| (row % 7 > 0).then_some(row % 3 / 2)));
            let input = table(vec![
                ("key", Arc::new(keys_of) as ArrayRef),
                ("label", Arc::new(label)),
                ("row", Arc::new(Int64Array::from_iter_values(0..rows))),
            ]);
            let half = rows as usize / 2;
            let ends = [0, half, half + 1, rows as usize];
            let parts = ends.windows(2).map(|ends| input.slice(ends[0], ends[1] - ends[0]));
            let params = json!({ "key": "key", "by": "label", "test": 0.3, "seed": 5 });
            let found = Harness::<Split>::new(params).parts("input", parts.collect()).run().unwrap();
            let found: BTreeSet<i64> =
                found.numbers("test", "row").into_iter().map(|row| row.unwrap() as i64).collect();
            let mut expected = BTreeSet::new();
            for label in [None, Some(0), Some(1)] {
                let of_label = |row: &i64| (row % 7 > 0).then_some(row % 3 / 2) == label;
                let mut all: Vec<(u64, i64)> =
                    (0..rows).filter(of_label).map(|row| (hash_int(5, key(row)), row)).collect();
                all.sort_unstable();
                let train = (0.7 * all.len() as f64 + 1e-9) as usize;
                let hash = all[train].0;
                let equal = all.iter().filter(|(other, _)| *other == hash).count();
                let below = all[..train].iter().filter(|(other, _)| *other == hash).count();
                let is_test = |other: u64| if 2 * below <= equal { other >= hash } else { other > hash };
                expected.extend(all.into_iter().filter(|(hash, _)| is_test(*hash)).map(|(_, row)| row));
            }
            assert_eq!(found, expected, "{keys} keys, {rows} rows");
        }
    }

    /// With as many groups as rows, rounding each on its own would leave no training rows.
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
        // A key has four rows: one that the boundary would split goes where most of its rows are.
        assert_eq!(ids_of("key", "key", 0.201).0.len(), 800);
        assert_eq!(ids_of("key", "key", 0.203).0.len(), 796);
        let (train, test) = ids_of("key", "key", 0.2);
        assert_eq!(train.iter().find(|key| test.contains(key)), None);
        assert_eq!(train.len() + test.len(), 1000);
    }
}
