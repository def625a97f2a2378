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

use millrace_sdk::kernels::KeyMap;
use millrace_sdk::prelude::*;

/// Params of `std:group`.
#[derive(Params)]
pub struct Group {
    /// The columns whose values tell groups apart.
    by: Vec<String>,
    /// The aggregate of each new column, by its name.
    columns: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Count,
    Sum,
    Mean,
    Min,
    Max,
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

/// What is known of one aggregate, for each group.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct States {
    /// Values: of `count` and `mean`, and of the bounds of integers.
    counts: Vec<u64>,
    /// Of `sum` and `mean`.
    sums: Vec<f64>,
    /// Of `min` and `max`; NaN where there is none.
    floats: Vec<f64>,
    /// The same of integers.
    ints: Vec<i64>,
}

impl States {
    fn new(aggregate: &Aggregate, integers: bool, groups: usize) -> Self {
        let mut states = Self::default();
        match aggregate.function {
            Function::Count => states.counts = vec![0; groups],
            Function::Sum => states.sums = vec![0.0; groups],
            Function::Mean => {
                states.counts = vec![0; groups];
                states.sums = vec![0.0; groups];
            }
            Function::Min | Function::Max if integers => {
                states.counts = vec![0; groups];
                states.ints = vec![0; groups];
            }
            Function::Min | Function::Max => states.floats = vec![f64::NAN; groups],
        }
        states
    }

    fn float(&mut self, function: Function, group: usize, x: f64) {
        // Whatever compares with NaN, which is nothing yet, is taken.
        match function {
            Function::Min if !(x >= self.floats[group]) && !x.is_nan() => self.floats[group] = x,
            Function::Max if !(x <= self.floats[group]) && !x.is_nan() => self.floats[group] = x,
            Function::Sum | Function::Mean => self.sums[group] += x,
            _ => {}
        }
    }

    fn int(&mut self, function: Function, group: usize, x: i64) {
        let known = self.ints[group];
        let better = if function == Function::Min { x < known } else { x > known };
        if better || self.counts[group] == 0 {
            self.ints[group] = x;
        }
        self.counts[group] += 1;
    }

    /// Adds the states of a group of another part.
    fn merge(&mut self, function: Function, group: usize, other: &Self, from: usize) {
        if let Some(x) = other.ints.get(from) {
            if other.counts[from] > 0 {
                self.int(function, group, *x);
            }
            return;
        }
        if let Some(count) = other.counts.get(from) {
            self.counts[group] += count;
        }
        if let Some(x) = other.sums.get(from).or(other.floats.get(from)) {
            self.float(function, group, *x);
        }
    }
}

/// The keys of the groups of a part.
#[derive(Debug, Serialize, Deserialize)]
pub enum Keys {
    /// One column of integers; which group has the missing key.
    Ints(Vec<i64>, Option<u32>),
    /// Anything else.
    Rows(Vec<Vec<Key>>),
}

impl Keys {
    fn len(&self) -> usize {
        match self {
            Self::Ints(keys, _) => keys.len(),
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

/// Numbers keys in the order in which they come.
struct Numbered<K> {
    known: KeyMap<K, u32>,
    count: u32,
}

impl<K: std::hash::Hash + Eq> Numbered<K> {
    fn new() -> Self {
        Self { known: KeyMap::default(), count: 0 }
    }

    /// The number of a key, and whether it is new.
    fn number(&mut self, key: K) -> (u32, bool) {
        let next = self.count;
        let number = *self.known.entry(key).or_insert(next);
        self.count += u32::from(number == next);
        (number, number == next)
    }
}

/// For each row the number of its group, and the key of each group.
fn groups(part: &Part, by: &[String]) -> Result<(Vec<u32>, Keys)> {
    let is_int = |name: &str| {
        let number = |field: &Field| is_integer(field.data_type()) || *field.data_type() == DataType::Boolean;
        part.fields().iter().any(|field| field.name() == name && number(field))
    };
    let mut of_rows = Vec::with_capacity(part.rows());
    if let [name] = by
        && is_int(name)
    {
        let column = part.i64(name)?;
        let (mut numbered, mut keys, mut missing) = (Numbered::new(), Vec::new(), None);
        for (row, key) in column.values().iter().enumerate() {
            let key = column.is_valid(row).then_some(*key);
            let (group, is_new) = numbered.number(key);
            if is_new {
                keys.push(key.unwrap_or_default());
                missing = missing.or(key.is_none().then_some(group));
            }
            of_rows.push(group);
        }
        return Ok((of_rows, Keys::Ints(keys, missing)));
    }
    let mut columns: Vec<Vec<Key>> = Vec::new();
    for name in by {
        columns.push(if is_int(name) {
            part.i64(name)?.iter().map(|key| key.map_or(Key::Null, Key::Int)).collect()
        } else {
            part.text(name)?.iter().map(|key| key.map_or(Key::Null, |key| Key::Text(key.to_owned()))).collect()
        });
    }
    let (mut numbered, mut keys) = (Numbered::new(), Vec::new());
    for row in 0..part.rows() {
        let key: Vec<Key> = columns.iter().map(|column| column[row].clone()).collect();
        let (group, is_new) = numbered.number(key.clone());
        if is_new {
            keys.push(key);
        }
        of_rows.push(group);
    }
    Ok((of_rows, Keys::Rows(keys)))
}

/// The groups of all parts: the number of each part's groups among them, and the
/// keys as rows, with the order in which they come out.
struct Merged {
    numbers: Vec<Vec<u32>>,
    keys: Vec<Vec<Key>>,
    order: Vec<usize>,
}

fn merged(partials: &[Groups]) -> Merged {
    let row = |key: &Option<i64>| vec![key.map_or(Key::Null, Key::Int)];
    let mut numbers = Vec::with_capacity(partials.len());
    if partials.iter().all(|partial| matches!(partial.keys, Keys::Ints(..))) {
        let (mut numbered, mut keys) = (Numbered::new(), Vec::new());
        for partial in partials {
            let Keys::Ints(found, missing) = &partial.keys else { continue };
            let number = |(place, key): (u32, &i64)| {
                let key = (*missing != Some(place)).then_some(*key);
                let (number, is_new) = numbered.number(key);
                if is_new {
                    keys.push(key);
                }
                number
            };
            numbers.push((0u32..).zip(found).map(number).collect());
        }
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|group| keys[*group]);
        return Merged { numbers, keys: keys.iter().map(row).collect(), order };
    }
    let (mut numbered, mut keys) = (Numbered::new(), Vec::new());
    for partial in partials {
        let Keys::Rows(found) = &partial.keys else { continue };
        let number = |key: &Vec<Key>| {
            let (number, is_new) = numbered.number(key.clone());
            if is_new {
                keys.push(key.clone());
            }
            number
        };
        numbers.push(found.iter().map(number).collect());
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by(|a, b| keys[*a].cmp(&keys[*b]));
    Merged { numbers, keys, order }
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
            let mut states = States::new(&aggregate, of_integers, keys.len());
            let group = |row: usize| of_rows[row] as usize;
            if let Some(name) = &aggregate.column {
                let is_bound = matches!(function, Function::Min | Function::Max);
                if function == Function::Count || function == Function::Mean {
                    let column = part.column(name)?;
                    for row in (0..of_rows.len()).filter(|row| column.is_valid(*row)) {
                        states.counts[group(row)] += 1;
                    }
                }
                if of_integers && is_bound {
                    let column = part.i64(name)?;
                    for row in (0..of_rows.len()).filter(|row| column.is_valid(*row)) {
                        states.int(function, group(row), column.value(row));
                    }
                } else if function != Function::Count {
                    let column = part.f64(name)?;
                    for row in (0..of_rows.len()).filter(|row| column.is_valid(*row)) {
                        states.float(function, group(row), column.value(row));
                    }
                }
            } else {
                of_rows.iter().for_each(|group| states.counts[*group as usize] += 1);
            }
            all.push(states);
            integers.push(of_integers);
        }
        Ok(Groups { keys, states: all, kinds, integers })
    }

    fn merge(&self, partials: Vec<Groups>, task: &Task) -> Result<()> {
        // Without parts there are no rows, and none come out.
        let Some(Groups { kinds, integers, .. }) = partials.first() else { return Ok(()) };
        let Merged { numbers, keys, order } = merged(&partials);
        let mut columns: Vec<(&str, Column)> = Vec::new();
        for (i, name) in self.by.iter().enumerate() {
            let keys = order.iter().map(|group| &keys[*group][i]);
            let int = |key: &Key| match key {
                Key::Int(int) => Some(*int),
                _ => None,
            };
            let column = match kinds[i] {
                KeyKind::Text => {
                    let text = |key: &Key| match key {
                        Key::Text(text) => Some(text.clone()),
                        _ => None,
                    };
                    keys.map(text).collect::<StringArray>().into()
                }
                KeyKind::Bool => keys.map(|key| int(key).map(|int| int != 0)).collect::<BooleanArray>().into(),
                KeyKind::Int => keys.map(int).collect::<Int64Array>().into(),
            };
            columns.push((name.as_str(), column));
        }
        for (i, (name, aggregate)) in self.aggregates().iter().enumerate() {
            let function = aggregate.function;
            let mut all = States::new(aggregate, integers[i], keys.len());
            for (partial, numbers) in partials.iter().zip(&numbers) {
                for (from, group) in numbers.iter().enumerate() {
                    all.merge(function, *group as usize, &partial.states[i], from);
                }
            }
            let groups = order.iter().copied();
            let column = match function {
                Function::Count => groups.map(|group| Some(all.counts[group] as i64)).collect::<Int64Array>().into(),
                Function::Sum => groups.map(|group| Some(all.sums[group])).collect::<Float64Array>().into(),
                Function::Mean => {
                    let mean =
                        |group: usize| (all.counts[group] > 0).then(|| all.sums[group] / all.counts[group] as f64);
                    groups.map(mean).collect::<Float64Array>().into()
                }
                Function::Min | Function::Max if integers[i] => {
                    let bound = |group: usize| (all.counts[group] > 0).then(|| all.ints[group]);
                    groups.map(bound).collect::<Int64Array>().into()
                }
                Function::Min | Function::Max => {
                    let bound = |group: usize| Some(all.floats[group]).filter(|x| !x.is_nan());
                    groups.map(bound).collect::<Float64Array>().into()
                }
            };
            columns.push((name, column));
        }
        task.metric("groups", keys.len() as f64);
        task.rows("output", keys.len(), columns)
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
