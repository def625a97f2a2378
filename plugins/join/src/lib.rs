//! `std:join` adds the columns of another table to the rows that agree with it in the columns
//! of `on`. The step reads only the keys; the host moves the rest.
//!
//! ```toml
//! [steps.with_user]
//! uses = "std:join"
//! inputs = { input = "events", table = "users" }
//! params = { on = ["user"] }
//! ```
//!
//! - `left`, the default: every row of `input` is kept, with missing values where the table has
//!   no such key.
//! - `inner`: only rows with a partner.
//!
//! A key that occurs several times in the table gives a row for each occurrence. Rows are in
//! the order of `input`, then of the table. A missing key has no partner.

use std::collections::BTreeMap;

use millrace_sdk::key_rows::{KeyRows, KeyValues};
use millrace_sdk::keys::Numbering;
use millrace_sdk::prelude::*;

/// The rows that are kept.
#[derive(Clone, Copy, PartialEq, Eq, Choice)]
pub enum How {
    /// All rows of `input`.
    Left,
    /// Rows with a partner.
    Inner,
}

/// Params of `std:join`.
#[derive(Params)]
pub struct Join {
    /// The columns that must agree, with the same names on both sides.
    on: Vec<String>,
    /// The columns of the table to add; by default, all but the keys.
    columns: Option<Vec<String>>,
    /// `left` or `inner`.
    #[param(default = How::Left)]
    how: How,
    /// The maximum number of rows that one row may become: more usually means a wrong key.
    #[param(default = 1000u32, min = 1)]
    max: u32,
}

/// The type as which a key column is compared.
fn comparable(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Utf8 => Some("text"),
        DataType::Boolean => Some("boolean"),
        DataType::UInt64 => None,
        other => other.is_integer().then_some("integer"),
    }
}

impl Step for Join {
    fn ports() -> Ports {
        Ports::new()
            .mapped("input", "the rows to find partners for")
            .input_table("table", "the rows to find partners in")
            .table("output", "the rows with the columns of their partners")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.unique("on", &self.on);
        if self.on.is_empty() {
            return Err(Error::new("name at least one column to join on").in_param("on"));
        }
        for (i, name) in self.on.iter().enumerate() {
            let param = format!("on[{i}]");
            let (left, right) =
                (plan.read("input", name, Kind::Any, &param), plan.read("table", name, Kind::Any, &param));
            let (Some(left), Some(right)) = (plan.keep(left), plan.keep(right)) else { continue };
            let (a, b) = (comparable(left.data_type()), comparable(right.data_type()));
            if a.is_none() || a != b {
                let (a, b) = (millrace_sdk::type_name(left.data_type()), millrace_sdk::type_name(right.data_type()));
                let message = format!(
                    "`{name}` is {a} here and {b} in the table, but keys must both be integers, text or booleans"
                );
                plan.keep::<()>(Err(Error::new(message).in_param(param)));
            }
        }
        let left = plan.schema("input")?.clone();
        let right = plan.schema("table")?.clone();
        let added: Vec<String> = match &self.columns {
            Some(columns) => columns.clone(),
            None => {
                right.fields().iter().map(|field| field.name().clone()).filter(|name| !self.on.contains(name)).collect()
            }
        };
        plan.unique("columns", &added);
        for (i, name) in added.iter().enumerate() {
            let param = format!("columns[{i}]");
            let found = plan.field("table", name, &param);
            plan.keep(found);
            if left.field_with_name(name).is_ok() {
                let message = format!("both sides have a column `{name}`: rename one with `std:select`");
                let param = if self.columns.is_some() { param } else { "on".to_owned() };
                plan.keep::<()>(Err(Error::new(message).in_param(param)));
            }
        }
        let output = plan.output("output").pass_all("input")?;
        for name in &added {
            // A missing column was reported above.
            let _ = output.pass("table", name, name);
        }
        Ok(())
    }
}

/// Marks the end of a chain of rows.
const END: u32 = u32::MAX;

impl Join {
    /// The number of the key of each row on both sides. A row of the input has none where a
    /// column of its key is missing, or the table does not have the key; so rows of the table
    /// with a missing column are never found.
    fn numbers(&self, part: &Part, table: &Table) -> Result<(Vec<Option<u32>>, Vec<Option<u32>>)> {
        let is_text = |name: &String| {
            part.fields().iter().any(|field| field.name() == name && *field.data_type() == DataType::Utf8)
        };
        let mut values: Vec<KeyValues> = self.on.iter().map(|name| KeyValues::new(is_text(name))).collect();
        let mut right = vec![Vec::new(); self.on.len()];
        for part in table.parts() {
            for ((name, values), codes) in self.on.iter().zip(&mut values).zip(&mut right) {
                codes.extend(values.codes(&part, name)?);
            }
        }
        let radices: Vec<u64> = values.iter().map(|values| values.len() as u64 + 1).collect();
        let mut rows = KeyRows::new(&radices, right.first().map_or(0, Vec::len));
        let of_table = rows.numbers(&right).into_iter().map(Some).collect();
        let left = self.on.iter().zip(&values).map(|(name, values)| values.find(part, name));
        let left = left.collect::<Result<Vec<_>>>()?;
        Ok((complete(rows.find(&left), &left), of_table))
    }

    /// Returns rows and their partners, from the number of the key of each row on both sides; a
    /// key without a number has no partner.
    fn pairs(
        &self,
        left: impl Iterator<Item = Option<u32>>,
        right: impl Iterator<Item = Option<u32>>,
    ) -> Result<(Vec<u32>, Vec<Option<u32>>)> {
        let mut ends: Vec<(u32, u32)> = Vec::new();
        // For each row of the table, the next one with the same key.
        let mut next: Vec<u32> = Vec::new();
        for (row, key) in (0u32..).zip(right) {
            next.push(END);
            let Some(key) = key else { continue };
            if ends.len() <= key as usize {
                ends.resize(key as usize + 1, (END, END));
            }
            let (first, last) = &mut ends[key as usize];
            match *last {
                END => *first = row,
                last => next[last as usize] = row,
            }
            *last = row;
        }
        let (mut rows, mut partners) = (Vec::with_capacity(left.size_hint().0), Vec::with_capacity(left.size_hint().0));
        for (row, key) in (0u32..).zip(left) {
            let Some(key) = key else {
                if self.how == How::Left {
                    rows.push(row);
                    partners.push(None);
                }
                continue;
            };
            let (mut partner, mut count) = (ends[key as usize].0, 0);
            while partner != END {
                count += 1;
                if count > self.max {
                    let message = format!("a row has more than {} partners; raise `max` if that is intended", self.max);
                    return Err(Error::new(message).at_row(row as usize));
                }
                rows.push(row);
                partners.push(Some(partner));
                partner = next[partner as usize];
            }
        }
        Ok((rows, partners))
    }
}

/// The numbers, without those of rows in which a column is missing.
fn complete(mut numbers: Vec<Option<u32>>, columns: &[Vec<u32>]) -> Vec<Option<u32>> {
    for codes in columns {
        numbers.iter_mut().zip(codes).filter(|(_, code)| **code == 0).for_each(|(number, _)| *number = None);
    }
    numbers
}

impl Map for Join {
    fn map(&self, task: &Task) -> Result<()> {
        let part = task.part("input")?;
        let table = task.table("table")?;
        let integers = |fields: &[Field]| {
            fields.iter().all(|field| !self.on.contains(field.name()) || *field.data_type() != DataType::Utf8)
        };
        let (rows, partners) = if let [name] = self.on.as_slice()
            && integers(part.fields())
        {
            let left = part.i64(name)?;
            let right = table.parts().map(|part| part.i64(name)).collect::<Result<Vec<_>>>()?;
            let mut numbering = Numbering::of(&right);
            let right: Vec<Option<u32>> =
                right.iter().flatten().map(|key| key.map(|key| numbering.number(key))).collect();
            self.pairs(left.iter().map(|key| numbering.find(key?)), right.into_iter())?
        } else {
            let (left, right) = self.numbers(&part, &table)?;
            self.pairs(left.into_iter(), right.into_iter())?
        };
        let found = partners.iter().filter(|partner| partner.is_some()).count();
        let metrics: BTreeMap<&str, usize> =
            [("rows_in", part.rows()), ("rows_out", rows.len()), ("rows_with_partner", found)].into();
        metrics.iter().for_each(|(name, value)| task.metric(name, *value as f64));
        let rows = UInt32Array::from(rows);
        let partners: UInt32Array = if found == partners.len() {
            partners.into_iter().flatten().collect::<Vec<u32>>().into()
        } else {
            partners.into_iter().collect()
        };
        task.take("output", &[("input", &rows), ("table", &partners)], vec![])
    }
}

millrace_sdk::register!(Join: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn join(params: Value) -> Harness<Join> {
        let events = |users: Vec<Option<i64>>, kinds: Vec<&str>| {
            table(vec![
                ("user", Arc::new(Int64Array::from(users)) as ArrayRef),
                ("kind", Arc::new(StringArray::from(kinds))),
            ])
        };
        let users = table(vec![
            ("user", Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(2)])) as ArrayRef),
            ("kind", Arc::new(StringArray::from(vec!["a", "b", "a", "a"]))),
            ("name", Arc::new(StringArray::from(vec!["Ada", "Bob", "Nobody", "Bea"]))),
        ]);
        let parts = vec![events(vec![Some(2), Some(9), None], vec!["a", "a", "b"]), events(vec![Some(1)], vec!["b"])];
        Harness::new(params).parts("input", parts).table("table", users)
    }

    #[test]
    fn a_left_join_keeps_every_row_and_repeats_those_with_several_partners() {
        let out = join(json!({ "on": ["user"], "columns": ["name"] })).run().unwrap();
        assert_eq!(out.columns("output"), ["user", "kind", "name"]);
        assert_eq!(out.numbers("output", "user"), [Some(2.0), Some(2.0), Some(9.0), None, Some(1.0)]);
        let names = [Some("Bob"), Some("Bea"), None, None, Some("Ada")].map(|name| name.map(str::to_owned));
        assert_eq!(out.text("output", "name"), names);
        assert_eq!((out.metrics["rows_in"], out.metrics["rows_with_partner"]), (4.0, 3.0));
    }

    #[test]
    fn an_inner_join_on_two_columns_keeps_rows_that_agree_in_both() {
        let out = join(json!({ "on": ["user", "kind"], "how": "inner" })).run().unwrap();
        assert_eq!(out.text("output", "name"), [Some("Bea".to_owned())]);
    }

    /// Compared with two nested loops, for keys of all types, missing or not.
    #[test]
    fn partners_are_the_rows_that_agree_in_all_columns() {
        type Row = (Option<String>, Option<i64>, Option<bool>);
        let mut state = 3u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for (rows, distinct) in [(0, 1), (40, 3), (300, 40), (300, 1)] {
            let mut some = |rows: u64| -> Vec<Row> {
                let mut row = || {
                    let text = ["", "a", "a key of more bytes "][random(3) as usize];
                    let text = (random(9) > 0).then(|| format!("{text}{}", random(distinct)));
                    let int = [i64::MIN, 5, i64::MAX][random(3) as usize].wrapping_add(random(distinct) as i64);
                    (text, (random(9) > 0).then_some(int), (random(9) > 0).then_some(random(2) == 0))
                };
                (0..rows).map(|_| row()).collect()
            };
            let (parts, right) = ([some(rows), some(1), some(0)], [some(rows / 2), some(rows / 3)]);
            let keys = |rows: &[Row]| -> Vec<(&'static str, ArrayRef)> {
                vec![
                    ("a", Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>())),
                    ("b", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
                    ("c", Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>())),
                ]
            };
            let number = |from: usize, rows: &[Row]| -> ArrayRef {
                Arc::new((from..from + rows.len()).map(|row| row as i64).collect::<Int64Array>())
            };
            let table_parts = [(0, &right[0]), (right[0].len(), &right[1])]
                .map(|(from, rows)| table([keys(rows), vec![("row", number(from, rows))]].concat()));
            for on in [&["a"][..], &["c"], &["a", "b"], &["b", "a"], &["c", "a", "b"], &["c", "b"]] {
                let expected = parts.iter().flatten().flat_map(|left| {
                    let agrees = |name: &&str, row: &Row| match *name {
                        "a" => left.0.is_some() && left.0 == row.0,
                        "b" => left.1.is_some() && left.1 == row.1,
                        _ => left.2.is_some() && left.2 == row.2,
                    };
                    let is_partner = |(_, row): &(usize, &Row)| on.iter().all(|name| agrees(name, row));
                    let found = right.iter().flatten().enumerate().filter(is_partner).map(|(row, _)| Some(row as f64));
                    let found: Vec<Option<f64>> = found.collect();
                    if found.is_empty() { vec![None] } else { found }
                });
                let params = json!({ "on": on, "columns": ["row"], "max": 1000 });
                let harness =
                    Harness::<Join>::new(params).parts("input", parts.iter().map(|rows| table(keys(rows))).collect());
                let out = harness.parts("table", table_parts.to_vec()).run().unwrap();
                assert_eq!(out.numbers("output", "row"), expected.collect::<Vec<_>>(), "{on:?} {rows}");
            }
        }
    }

    #[test]
    fn errors_are_found_before_anything_runs() {
        let problems = join(json!({ "on": ["user"] })).problems();
        assert!(problems[0].message.contains("both sides have a column `kind`"), "{problems:?}");
        assert_eq!(join(json!({ "on": ["usr"], "columns": ["name"] })).problems()[0].missing.as_deref(), Some("usr"));
        let error = join(json!({ "on": ["user"], "columns": ["name"], "max": 1 })).run().unwrap_err();
        assert!(error.message.contains("more than 1 partners"));
    }
}
