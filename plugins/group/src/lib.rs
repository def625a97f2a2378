//! `std:group` makes one row of all rows that agree in the columns of `by`, with
//! aggregates of the others. Rows come out sorted by key, whatever their order.
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
//! Keys are integers, text or booleans; a missing key is a key of its own, and
//! comes first. Missing values do not count, and NaN does in sums and means only.

use std::collections::BTreeMap;

use millrace_sdk::grouped;
use millrace_sdk::kernels::KeyMap;
use millrace_sdk::keys::{Numbering, Packed};
use millrace_sdk::prelude::*;

mod states;

use states::Function;
pub use states::States;

/// Params of `std:group`.
#[derive(Params)]
pub struct Group {
    /// The columns whose values tell groups apart.
    by: Vec<String>,
    /// The aggregate of each new column, by its name.
    columns: BTreeMap<String, String>,
}

struct Aggregate {
    function: Function,
    column: Option<String>,
}

/// `sum(price)` and the like.
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

/// A value of a key. Declared in the order in which keys are sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// Missing.
    Null,
    /// An integer or a boolean.
    Int(i64),
    /// Text.
    Text(String),
}

/// The keys of the groups of a part.
#[derive(Debug, Serialize, Deserialize)]
pub enum Keys {
    /// One column of integers; which group has the missing key.
    Ints(Packed<i64>, Option<u32>),
    /// Anything else.
    Rows(Vec<Vec<Key>>),
}

impl Keys {
    fn len(&self) -> usize {
        match self {
            Self::Ints(keys, _) => keys.0.len(),
            Self::Rows(keys) => keys.len(),
        }
    }
}

/// Groups of a part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Groups {
    keys: Keys,
    /// For each aggregate.
    states: Vec<States>,
    /// Of each column of the key.
    kinds: Vec<KeyKind>,
    /// Of each aggregate: whether it is of integers.
    integers: Vec<bool>,
}

/// What a column of the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// Integers.
    Int,
    /// Booleans.
    Bool,
    /// Text.
    Text,
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
                    let message = format!("`{name}` is {found}, and keys are integers, text or booleans");
                    plan.keep::<()>(Err(Error::new(message).in_param(param)));
                    continue;
                }
            };
            fields.push((name.clone(), data_type));
        }
        for (name, text) in &self.columns {
            let param = format!("columns.{name}");
            if self.by.contains(name) {
                plan.keep::<()>(Err(Error::new(format!("`{name}` is a key already")).in_param(&param)));
            }
            let Some(aggregate) = aggregate(text) else {
                let message = format!("`{text}` is no aggregate: count(), count(x), sum(x), mean(x), min(x) or max(x)");
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

/// Rows as keys, numbered in the order in which they come.
#[derive(Default)]
struct Rows {
    known: KeyMap<Vec<Key>, u32>,
    keys: Vec<Vec<Key>>,
}

impl Rows {
    fn number(&mut self, key: Vec<Key>) -> u32 {
        let next = self.keys.len() as u32;
        *self.known.entry(key).or_insert_with_key(|key| {
            self.keys.push(key.clone());
            next
        })
    }
}

/// For each row the number of its group, and the key of each group.
fn groups(part: &Part, by: &[String]) -> Result<(Vec<u32>, Keys)> {
    let is_int = |name: &str| {
        let number = |field: &Field| is_integer(field.data_type()) || *field.data_type() == DataType::Boolean;
        part.fields().iter().any(|field| field.name() == name && number(field))
    };
    if let [name] = by
        && is_int(name)
    {
        // As a whole: it is looked at twice.
        let column = part.i64(name)?;
        let mut numbering = Numbering::of([&column]);
        let numbers = match column.null_count() {
            0 => numbering.numbers(column.values()),
            _ => {
                let number = |key| match key {
                    Some(key) => numbering.number(key),
                    None => numbering.missing(),
                };
                column.iter().map(number).collect()
            }
        };
        let (keys, missing) = numbering.into_keys();
        return Ok((numbers, Keys::Ints(Packed(keys), missing)));
    }
    let mut columns: Vec<Vec<Key>> = Vec::new();
    for name in by {
        let mut keys = Vec::with_capacity(part.rows());
        for block in part.blocks() {
            if is_int(name) {
                keys.extend(block.i64(name)?.iter().map(|key| key.map_or(Key::Null, Key::Int)));
            } else {
                let text = |key: &str| Key::Text(key.to_owned());
                keys.extend(block.text(name)?.iter().map(|key| key.map_or(Key::Null, text)));
            }
        }
        columns.push(keys);
    }
    let mut rows = Rows::default();
    let of_rows = (0..part.rows()).map(|row| rows.number(columns.iter().map(|column| column[row].clone()).collect()));
    let of_rows = of_rows.collect();
    Ok((of_rows, Keys::Rows(rows.keys)))
}

/// The groups of the parts so far.
#[derive(Default)]
struct Merging {
    integers: Numbering,
    rows: Rows,
}

impl Merging {
    /// The numbers that the groups of one more part have among all.
    fn numbers(&mut self, keys: &Keys) -> Vec<u32> {
        match keys {
            Keys::Ints(Packed(keys), missing) => {
                self.integers.expect(keys);
                let number = |(place, key): (u32, &i64)| match missing {
                    Some(missing) if *missing == place => self.integers.missing(),
                    _ => self.integers.number(*key),
                };
                match missing {
                    None => self.integers.numbers(keys),
                    Some(_) => (0..).zip(keys).map(number).collect(),
                }
            }
            Keys::Rows(keys) => keys.iter().map(|key| self.rows.number(key.clone())).collect(),
        }
    }

    fn len(&self) -> usize {
        self.integers.keys().len() + self.rows.keys.len()
    }

    /// The keys, and the order in which they come out.
    fn done(self) -> Merged {
        if !self.rows.keys.is_empty() {
            let keys = self.rows.keys;
            let mut order: Vec<u32> = (0..keys.len() as u32).collect();
            order.sort_unstable_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
            return Merged { keys: Keys::Rows(keys), order };
        }
        let order = self.integers.sorted();
        let (keys, missing) = self.integers.into_keys();
        Merged { keys: Keys::Ints(Packed(keys), missing), order }
    }
}

/// The groups of all parts.
struct Merged {
    keys: Keys,
    order: Vec<u32>,
}

impl Merged {
    /// A column of the key, in order.
    fn column(&self, i: usize, kind: KeyKind) -> Column {
        let int = |group: &u32| match &self.keys {
            Keys::Ints(keys, missing) => (*missing != Some(*group)).then(|| keys.0[*group as usize]),
            Keys::Rows(keys) => match &keys[*group as usize][i] {
                Key::Int(int) => Some(*int),
                _ => None,
            },
        };
        let text = |group: &u32| match &self.keys {
            Keys::Ints(..) => None,
            Keys::Rows(keys) => match &keys[*group as usize][i] {
                Key::Text(text) => Some(text.as_str()),
                _ => None,
            },
        };
        let order = self.order.iter();
        match kind {
            KeyKind::Text => order.map(text).collect::<StringArray>().into(),
            KeyKind::Bool => order.map(|group| int(group).map(|int| int != 0)).collect::<BooleanArray>().into(),
            KeyKind::Int => order.map(int).collect::<Int64Array>().into(),
        }
    }
}

impl Fold for Group {
    type Partial = Groups;

    fn partial(&self, task: &Task) -> Result<Groups> {
        let part = task.part("input")?;
        let (of_rows, keys) = groups(&part, &self.by)?;
        let type_of = |name: &str| part.fields().iter().find(|field| field.name() == name).map(Field::data_type);
        let kind = |name: &String| match type_of(name) {
            Some(DataType::Utf8) => KeyKind::Text,
            Some(DataType::Boolean) => KeyKind::Bool,
            _ => KeyKind::Int,
        };
        let kinds = self.by.iter().map(kind).collect();
        let is_of_integers = |name: &String| type_of(name).is_some_and(is_integer);
        let (mut all, mut integers) = (Vec::new(), Vec::new());
        for (_, aggregate) in self.aggregates() {
            let of_integers = aggregate.column.as_ref().is_some_and(is_of_integers);
            let function = aggregate.function;
            let mut states = States::default();
            states.resize(function, of_integers, keys.len());
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
        let mut merging = Merging::default();
        let mut all = vec![States::default(); aggregates.len()];
        let (mut kinds, mut integers) = (Vec::new(), Vec::new());
        for partial in partials.iter() {
            let partial = partial?;
            let numbers = merging.numbers(&partial.keys);
            for (i, (_, aggregate)) in aggregates.iter().enumerate() {
                all[i].resize(aggregate.function, partial.integers[i], merging.len());
                all[i].merge(aggregate.function, &partial.states[i], &numbers);
            }
            (kinds, integers) = (partial.kinds, partial.integers);
        }
        if kinds.is_empty() {
            // Without parts there are no rows, and none come out.
            return Ok(());
        }
        let merged = merging.done();
        let count = merged.keys.len();
        let mut columns: Vec<(&str, Column)> =
            self.by.iter().enumerate().map(|(i, name)| (name.as_str(), merged.column(i, kinds[i]))).collect();
        for (i, ((name, aggregate), all)) in aggregates.iter().zip(all).enumerate() {
            let function = aggregate.function;
            let States { counts, sums, floats, ints } = all;
            let groups = merged.order.iter().map(|group| *group as usize);
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
    fn rows_of_a_key_become_one_sorted_by_key() {
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

    /// A part in which a group has no value says nothing of its bounds.
    #[test]
    fn what_a_part_does_not_know_does_not_count() {
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
    fn several_columns_make_a_key() {
        let out = group(json!({ "by": ["name", "user"], "columns": { "n": "count()" } })).run().unwrap();
        let names = ["a", "a", "b", "b"].map(|name| Some(name.to_owned()));
        assert_eq!(out.text("output", "name"), names);
        assert_eq!(out.numbers("output", "user"), [None, Some(7.0), Some(2.0), Some(7.0)]);
        assert_eq!(out.numbers("output", "n"), [Some(1.0), Some(1.0), Some(1.0), Some(2.0)]);
    }

    #[test]
    fn mistakes_are_found_before_anything_runs() {
        let problems =
            group(json!({ "by": ["price", "usr"], "columns": { "n": "median(x)", "m": "sum(name)" } })).problems();
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages.len(), 4, "{messages:?}");
        assert!(messages[0].contains("keys are integers, text or booleans"));
        assert_eq!(problems[1].missing.as_deref(), Some("usr"));
    }
}
