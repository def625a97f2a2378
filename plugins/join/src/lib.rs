//! `std:join` puts the columns of another table beside the rows that agree with
//! it in the columns of `on`. The step looks at keys only; the host moves the rest.
//!
//! ```toml
//! [steps.with_user]
//! uses = "std:join"
//! inputs = { input = "events", table = "users" }
//! params = { on = ["user"] }
//! ```
//!
//! - `left`, as usual: every row of `input` stays, with missing values where the
//!   table has no such key.
//! - `inner`: only rows with a partner.
//!
//! A key that the table has several times gives a row for each. Rows come in the
//! order of `input`, then of the table. A missing key has no partner.

use std::collections::BTreeMap;

use millrace_sdk::kernels::KeyMap;
use millrace_sdk::keys::Numbering;
use millrace_sdk::prelude::*;

/// Which rows stay.
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
    /// The columns that must agree, called the same on both sides.
    on: Vec<String>,
    /// The columns of the table to add; without, all but the keys.
    columns: Option<Vec<String>>,
    /// `left` or `inner`.
    #[param(default = How::Left)]
    how: How,
    /// Most rows that one row may become: more is usually a wrong key.
    #[param(default = 1000u32, min = 1)]
    max: u32,
}

/// What a key column is compared as.
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
            .mapped("input", "the rows to look up for")
            .input_table("table", "the rows to look in")
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
                let message =
                    format!("`{name}` is {a} here and {b} in the table, and keys are both integers, text or booleans");
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
            // One that is not there was reported above.
            let _ = output.pass("table", name, name);
        }
        Ok(())
    }
}

/// For each row its key; none where a part of it is missing.
fn keys(part: &Part, on: &[String]) -> Result<Vec<Option<Vec<Key>>>> {
    let mut keys: Vec<Option<Vec<Key>>> = vec![Some(Vec::with_capacity(on.len())); part.rows()];
    for name in on {
        let is_text = part.fields().iter().any(|field| field.name() == name && *field.data_type() == DataType::Utf8);
        let values: Vec<Option<Key>> = if is_text {
            part.text(name)?.iter().map(|text| Some(Key::Text(text?.to_owned()))).collect()
        } else {
            part.i64(name)?.iter().map(|int| int.map(Key::Int)).collect()
        };
        for (key, value) in keys.iter_mut().zip(values) {
            match value {
                Some(value) => key.iter_mut().for_each(|key| key.push(value.clone())),
                None => *key = None,
            }
        }
    }
    Ok(keys)
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Int(i64),
    Text(String),
}

/// No further row.
const END: u32 = u32::MAX;

impl Join {
    /// Rows and their partners, from the number of the key of each row on both
    /// sides; none for a key without a number.
    fn pairs(
        &self,
        left: impl Iterator<Item = Option<u32>>,
        right: impl Iterator<Item = Option<u32>>,
    ) -> Result<(Vec<u32>, Vec<Option<u32>>)> {
        let mut ends: Vec<(u32, u32)> = Vec::new();
        // Of each row of the table the next one of the same key.
        let mut next: Vec<u32> = Vec::new();
        for (row, key) in (0u32..).zip(right) {
            next.push(END);
            match key.map(|key| key as usize) {
                None => {}
                // Numbers come in order, so a new one is the next.
                Some(key) if key == ends.len() => ends.push((row, row)),
                Some(key) => {
                    let (_, last) = &mut ends[key];
                    next[*last as usize] = row;
                    *last = row;
                }
            }
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
                    let message = format!("a row has more than {} partners; raise `max` if that is meant", self.max);
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
            let mut known: KeyMap<Vec<Key>, u32> = KeyMap::default();
            let mut right = Vec::new();
            for part in table.parts() {
                for key in keys(&part, &self.on)? {
                    let next = known.len() as u32;
                    right.push(key.map(|key| *known.entry(key).or_insert(next)));
                }
            }
            let left = keys(&part, &self.on)?;
            self.pairs(left.iter().map(|key| known.get(key.as_ref()?).copied()), right.into_iter())?
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
    fn an_inner_join_on_two_columns_keeps_what_agrees_in_both() {
        let out = join(json!({ "on": ["user", "kind"], "how": "inner" })).run().unwrap();
        assert_eq!(out.text("output", "name"), [Some("Bea".to_owned())]);
    }

    #[test]
    fn mistakes_are_found_before_anything_runs() {
        let problems = join(json!({ "on": ["user"] })).problems();
        assert!(problems[0].message.contains("both sides have a column `kind`"), "{problems:?}");
        assert_eq!(join(json!({ "on": ["usr"], "columns": ["name"] })).problems()[0].missing.as_deref(), Some("usr"));
        let error = join(json!({ "on": ["user"], "columns": ["name"], "max": 1 })).run().unwrap_err();
        assert!(error.message.contains("more than 1 partners"));
    }
}
