//! `std:group` combines all rows that agree in the columns of `by` into one, with aggregates of the
//! others. The output is sorted by key, independent of the order of rows.
//!
//! ```toml
//! [steps.users]
//! uses = "std:group"
//! input = "events"
//! params.by = ["user"]
//! params.columns = { events = "count()", spent = "sum(price)", last = "max(time)" }
//! ```
//!
//! | aggregate | |
//! | --- | --- |
//! | `count()` | rows, `int64` |
//! | `count(x)` | rows with a value |
//! | `sum(x)` `mean(x)` | `float64`; the sum of nothing is 0, the mean of nothing is missing |
//! | `min(x)` `max(x)` | `float64`, or `int64` of integers |
//!
//! Keys are integers, text or booleans; a missing key is a key of its own, and comes first.
//! Missing values are ignored, and NaN counts only in sums and means.

use std::collections::BTreeMap;

use millrace_sdk::grouped;
use millrace_sdk::prelude::*;

mod keys;
mod states;

use keys::Merging;
pub use keys::{KeyColumn, KeyKind, Keys, Values};
use states::Function;
pub use states::States;

/// Params of `std:group`.
#[derive(Params)]
pub struct Group {
    /// The columns whose values define the groups.
    by: Vec<String>,
    /// The aggregate of each new column, by its name.
    columns: BTreeMap<String, String>,
}

struct Aggregate {
    function: Function,
    column: Option<String>,
}

/// Parses `sum(price)` and the like.
fn aggregate(text: &str) -> Option<Aggregate> {
    let (function, rest) = text.trim().split_once('(')?;
    let column = rest.strip_suffix(')')?.trim();
    let column = column.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or(column);
    let column = (!column.is_empty()).then(|| column.to_owned());
    let function = match function.trim() {
        "count" => Function::Count,
        "sum" => Function::Sum,
        "mean" => Function::Mean,
        "min" => Function::Min,
        "max" => Function::Max,
        _ => return None,
    };
    (column.is_some() || function == Function::Count).then_some(Aggregate { function, column })
}

/// Groups of a part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Groups {
    keys: Keys,
    /// The states of each aggregate.
    states: Vec<States>,
    /// The type of each key column.
    kinds: Vec<KeyKind>,
    /// Whether each aggregate is of integers.
    integers: Vec<bool>,
}

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer() && *data_type != DataType::UInt64
}

impl Group {
    fn aggregates(&self) -> Vec<(&str, Aggregate)> {
        self.columns.iter().filter_map(|(name, text)| Some((name.as_str(), aggregate(text)?))).collect()
    }

    fn output_type(aggregate: &Aggregate, field: Option<&Field>) -> DataType {
        match aggregate.function {
            Function::Count => DataType::Int64,
            Function::Min | Function::Max if field.is_some_and(|field| is_integer(field.data_type())) => {
                DataType::Int64
            }
            _ => DataType::Float64,
        }
    }
}

impl Step for Group {
    fn ports() -> Ports {
        Ports::new().mapped("input", "the rows to group").table("output", "a row for each group")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.unique("by", &self.by);
        if self.by.is_empty() {
            return Err(Error::new("name at least one column to group by").in_param("by"));
        }
        let mut fields = Vec::new();
        for (i, name) in self.by.iter().enumerate() {
            let param = format!("by[{i}]");
            let Some(field) = ({
                let read = plan.read("input", name, Kind::Any, &param);
                plan.keep(read)
            }) else {
                continue;
            };
            let data_type = match field.data_type() {
                DataType::Utf8 => DataType::Utf8,
                DataType::Boolean => DataType::Boolean,
                integer if is_integer(integer) => DataType::Int64,
                other => {
                    let found = millrace_sdk::type_name(other);
                    let message = format!("`{name}` is {found}, but keys must be integers, text or booleans");
                    plan.keep::<()>(Err(Error::new(message).in_param(param)));
                    continue;
                }
            };
            fields.push((name.clone(), data_type));
        }
        for (name, text) in &self.columns {
            let param = format!("columns.{name}");
            if self.by.contains(name) {
                plan.keep::<()>(Err(Error::new(format!("`{name}` is already a key")).in_param(&param)));
            }
            let Some(aggregate) = aggregate(text) else {
                let message =
                    format!("`{text}` is not an aggregate: count(), count(x), sum(x), mean(x), min(x) or max(x)");
                plan.keep::<()>(Err(Error::new(message).in_param(param)));
                continue;
            };
            let field = match &aggregate.column {
                None => None,
                Some(column) => {
                    let kind = if aggregate.function == Function::Count { Kind::Any } else { Kind::Number };
                    let read = plan.read("input", column, kind, &param);
                    match plan.keep(read) {
                        Some(field) => Some(field),
                        None => continue,
                    }
                }
            };
            fields.push((name.clone(), Self::output_type(&aggregate, field.as_ref())));
        }
        let output = plan.output("output");
        for (name, data_type) in fields {
            output.add(&name, data_type);
        }
        Ok(())
    }
}

impl Fold for Group {
    type Partial = Groups;

    fn partial(&self, task: &Task) -> Result<Groups> {
        let part = task.part("input")?;
        let type_of = |name: &str| part.fields().iter().find(|field| field.name() == name).map(Field::data_type);
        let kind = |name: &String| match type_of(name) {
            Some(DataType::Utf8) => KeyKind::Text,
            Some(DataType::Boolean) => KeyKind::Bool,
            _ => KeyKind::Int,
        };
        let kinds: Vec<KeyKind> = self.by.iter().map(kind).collect();
        let (of_rows, keys) = Keys::of(&part, &self.by, &kinds)?;
        let is_of_integers = |name: &String| type_of(name).is_some_and(is_integer);
        let (mut all, mut integers) = (Vec::new(), Vec::new());
        for (_, aggregate) in self.aggregates() {
            let of_integers = aggregate.column.as_ref().is_some_and(is_of_integers);
            let function = aggregate.function;
            let mut states = States::default();
            states.resize(function, of_integers, keys.count());
            if let Some(name) = &aggregate.column {
                states.add(function, &part, name, of_integers, &of_rows)?;
            } else {
                grouped::count(&mut states.counts.0, &of_rows);
            }
            all.push(states);
            integers.push(of_integers);
        }
        Ok(Groups { keys, states: all, kinds, integers })
    }

    fn merge(&self, partials: Partials<Groups>, task: &Task) -> Result<()> {
        let aggregates = self.aggregates();
        let mut so_far: Option<Merging> = None;
        let mut all = vec![States::default(); aggregates.len()];
        let (mut kinds, mut integers) = (Vec::new(), Vec::new());
        for partial in partials.iter() {
            let partial = partial?;
            let merging = so_far.get_or_insert_with(|| Merging::new(&partial.kinds));
            let numbers = merging.numbers(&partial.keys);
            for (i, (_, aggregate)) in aggregates.iter().enumerate() {
                all[i].resize(aggregate.function, partial.integers[i], merging.count());
                all[i].merge(aggregate.function, &partial.states[i], &numbers);
            }
            (kinds, integers) = (partial.kinds, partial.integers);
        }
        // Without parts there are no rows, and there is no output.
        let Some(merging) = so_far else { return Ok(()) };
        let (order, keys) = merging.done(&kinds);
        let count = order.len();
        let mut columns: Vec<(&str, Column)> = self.by.iter().map(String::as_str).zip(keys).collect();
        for (i, ((name, aggregate), all)) in aggregates.iter().zip(all).enumerate() {
            let function = aggregate.function;
            let States { counts, sums, floats, ints } = all;
            let groups = order.iter().map(|group| *group as usize);
            let column = match function {
                Function::Count => groups.map(|group| counts.0[group] as i64).collect::<Vec<_>>().into(),
                Function::Sum => groups.map(|group| sums.0[group]).collect::<Vec<f64>>().into(),
                Function::Mean => {
                    let mean = |group: usize| (counts.0[group] > 0).then(|| sums.0[group] / counts.0[group] as f64);
                    groups.map(mean).collect::<Float64Array>().into()
                }
                Function::Min | Function::Max if integers[i] => {
                    let bound = |group: usize| (counts.0[group] > 0).then(|| ints.0[group]);
                    groups.map(bound).collect::<Int64Array>().into()
                }
                Function::Min | Function::Max => {
                    let bound = |group: usize| Some(floats.0[group]).filter(|x| !x.is_nan());
                    groups.map(bound).collect::<Float64Array>().into()
                }
            };
            columns.push((name, column));
        }
        task.metric("groups", count as f64);
        task.rows("output", count, columns)
    }
}

millrace_sdk::register!(Group: fold);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn parts() -> Vec<millrace_sdk::arrow_array::RecordBatch> {
        let part = |users: Vec<Option<i64>>, names: Vec<&str>, prices: Vec<Option<f64>>, times: Vec<i64>| {
            table(vec![
                ("user", Arc::new(Int64Array::from(users)) as ArrayRef),
                ("name", Arc::new(StringArray::from(names))),
                ("price", Arc::new(Float64Array::from(prices))),
                ("time", Arc::new(Int64Array::from(times))),
            ])
        };
        vec![
            part(vec![Some(7), None, Some(2)], vec!["b", "a", "b"], vec![Some(1.5), Some(1.0), None], vec![5, 6, 7]),
            part(vec![Some(7), Some(7)], vec!["a", "b"], vec![Some(2.0), Some(-1.0)], vec![9, 1]),
        ]
    }

    fn group(params: Value) -> Harness<Group> {
        Harness::new(params).parts("input", parts())
    }

    #[test]
    fn rows_with_the_same_key_become_one_and_are_sorted_by_key() {
        let out = group(json!({ "by": ["user"], "columns": {
            "n": "count()", "priced": "count(price)", "sum": "sum(price)", "mean": "mean(price)",
            "least": "min(price)", "last": "max(time)",
        } }))
        .run()
        .unwrap();
        assert_eq!(out.columns("output"), ["user", "last", "least", "mean", "n", "priced", "sum"]);
        assert_eq!(out.numbers("output", "user"), [None, Some(2.0), Some(7.0)]);
        assert_eq!(out.numbers("output", "n"), [Some(1.0), Some(1.0), Some(3.0)]);
        assert_eq!(out.numbers("output", "priced"), [Some(1.0), Some(0.0), Some(3.0)]);
        assert_eq!(out.numbers("output", "sum"), [Some(1.0), Some(0.0), Some(2.5)]);
        assert_eq!(out.numbers("output", "mean"), [Some(1.0), None, Some(2.5 / 3.0)]);
        assert_eq!(out.numbers("output", "least"), [Some(1.0), None, Some(-1.0)]);
        assert_eq!(out.numbers("output", "last"), [Some(6.0), Some(7.0), Some(9.0)]);
        assert_eq!(*out.column("output", "last").data_type(), DataType::Int64);
    }

    /// A part in which a group has no value does not affect the bounds of the group.
    #[test]
    fn a_part_without_values_does_not_affect_the_bounds() {
        let part = |x: Option<i64>| {
            let user = Int64Array::from(vec![Some(1)]);
            table(vec![("user", Arc::new(user) as ArrayRef), ("x", Arc::new(Int64Array::from(vec![x])))])
        };
        let params = json!({ "by": ["user"], "columns": { "least": "min(x)", "greatest": "max(x)" } });
        let bounds = |parts: Vec<Option<i64>>| {
            let harness = Harness::<Group>::new(params.clone()).parts("input", parts.into_iter().map(part).collect());
            let out = harness.run().unwrap();
            (out.numbers("output", "least"), out.numbers("output", "greatest"))
        };
        assert_eq!(bounds(vec![None, Some(5), None]), (vec![Some(5.0)], vec![Some(5.0)]));
        assert_eq!(bounds(vec![Some(-5), None]), (vec![Some(-5.0)], vec![Some(-5.0)]));
        assert_eq!(bounds(vec![None, None]), (vec![None], vec![None]));
    }

    #[test]
    fn a_key_may_have_several_columns() {
        let out = group(json!({ "by": ["name", "user"], "columns": { "n": "count()" } })).run().unwrap();
        let names = ["a", "a", "b", "b"].map(|name| Some(name.to_owned()));
        assert_eq!(out.text("output", "name"), names);
        assert_eq!(out.numbers("output", "user"), [None, Some(7.0), Some(2.0), Some(7.0)]);
        assert_eq!(out.numbers("output", "n"), [Some(1.0), Some(1.0), Some(1.0), Some(2.0)]);
    }

    /// Keys of all types, missing or not, in parts of several blocks, with few values and many:
    /// the groups are those of a map, in its order.
    #[test]
    fn keys_are_distinguished_and_sorted_by_their_values() {
        type Row = (Option<String>, Option<i64>, Option<bool>, Option<String>);
        let mut state = 7u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for (rows, distinct, missing) in [(0, 1, 9), (50, 3, 2), (40_000, 5, 9), (20_000, 9_000, 40), (3_000, 1, 1)] {
            let mut row = || -> Row {
                let mut is = || random(missing) > 0;
                let (a, b, c, d) = (is(), is(), is(), is());
                let text = ["", "a", "a\0", "eight by", "nine bytes", "ä"][random(6) as usize];
                (
                    a.then(|| format!("{text}{}", random(distinct))),
                    b.then(|| [i64::MIN, -3, 0, i64::MAX][random(4) as usize].wrapping_add(random(distinct) as i64)),
                    c.then(|| random(2) == 0),
                    d.then(|| text.to_owned()),
                )
            };
            let parts: Vec<Vec<Row>> = [rows, 0, rows / 3, 1].map(|rows| (0..rows).map(|_| row()).collect()).into();
            let batch = |rows: &Vec<Row>| {
                table(vec![
                    ("a", Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>()) as ArrayRef),
                    ("b", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
                    ("c", Arc::new(rows.iter().map(|row| row.2).collect::<BooleanArray>())),
                    ("d", Arc::new(rows.iter().map(|row| row.3.clone()).collect::<StringArray>())),
                ])
            };
            for by in [
                &["a"][..],
                &["d"],
                &["c"],
                &["a", "d"],
                &["b", "a"],
                &["c", "d"],
                &["d", "c", "b"],
                &["a", "b", "c", "d"],
            ] {
                // The value of each column as text that sorts the same way: missing values first.
                let key = |row: &Row| -> Vec<Option<String>> {
                    let column = |name: &&str| match *name {
                        "a" => row.0.clone(),
                        "b" => row.1.map(|int| format!("{:020}", i128::from(int) - i128::from(i64::MIN))),
                        "c" => row.2.map(|is| u8::from(is).to_string()),
                        _ => row.3.clone(),
                    };
                    by.iter().map(column).collect()
                };
                let mut expected: BTreeMap<Vec<Option<String>>, f64> = BTreeMap::new();
                parts.iter().flatten().for_each(|row| *expected.entry(key(row)).or_default() += 1.0);
                let params = json!({ "by": by, "columns": { "n": "count()" } });
                let out =
                    Harness::<Group>::new(params).parts("input", parts.iter().map(batch).collect()).run().unwrap();
                let counts: Vec<Option<f64>> = expected.values().map(|count| Some(*count)).collect();
                assert_eq!(out.numbers("output", "n"), counts, "{by:?} {rows}");
                for (i, name) in by.iter().enumerate() {
                    let found: Vec<Option<String>> = match *name {
                        "a" | "d" => out.text("output", name),
                        "b" => {
                            let ints = out.column("output", name);
                            let ints = ints.as_any().downcast_ref::<Int64Array>().unwrap();
                            ints.iter()
                                .map(|int| int.map(|int| format!("{:020}", i128::from(int) - i128::from(i64::MIN))))
                                .collect()
                        }
                        _ => {
                            let bools = out.column("output", name);
                            let bools = bools.as_any().downcast_ref::<BooleanArray>().unwrap();
                            bools.iter().map(|is| is.map(|is| u8::from(is).to_string())).collect()
                        }
                    };
                    assert!(found.iter().eq(expected.keys().map(|key| &key[i])), "{by:?} {name} {rows}");
                }
            }
        }
    }

    #[test]
    fn errors_are_found_before_anything_runs() {
        let problems =
            group(json!({ "by": ["price", "usr"], "columns": { "n": "median(x)", "m": "sum(name)" } })).problems();
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages.len(), 4, "{messages:?}");
        assert!(messages[0].contains("keys must be integers, text or booleans"));
        assert_eq!(problems[1].missing.as_deref(), Some("usr"));
    }
}
