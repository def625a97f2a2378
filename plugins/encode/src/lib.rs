//! `std:encode` turns the categories of text columns into numbers, using the categories that
//! `std:encode-fit` collected.
//!
//! ```toml
//! [steps.encoded]
//! uses = "std:encode"
//! inputs = { input = "customers", categories = "categories" }
//! params = { columns = ["contract", "payment_method"], method = "one-hot" }
//! ```
//!
//! - `codes`: the column becomes `int32`, the index of its category from 0.
//! - `one-hot`: the column is replaced by a column `NAME=CATEGORY` for each category but the
//!   first (`drop_first = false` keeps it), 0.0 or 1.0. The names are known when the categories
//!   are, so later steps are checked at run time.

use millrace_sdk::prelude::*;
use millrace_sdk::texts::{NONE, Texts};

/// How a column is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Choice)]
pub enum Method {
    /// Integers.
    Codes,
    /// Indicator columns.
    OneHot,
}

/// How a value that was not seen when fitting, and a missing value, is handled.
#[derive(Clone, Copy, PartialEq, Eq, Choice)]
pub enum Unknown {
    /// Stop with the value and its row.
    Error,
    /// A missing code, or 0.0 in all indicators.
    Ignore,
}

/// Params of `std:encode`.
#[derive(Params)]
pub struct Encode {
    /// The text columns to encode.
    columns: Vec<String>,
    /// `codes` or `one-hot`.
    #[param(default = Method::Codes)]
    method: Method,
    /// What to do with a category that was not seen: `error` or `ignore`.
    #[param(default = Unknown::Error)]
    unknown: Unknown,
    /// Whether `one-hot` leaves out the first category.
    #[param(default = true)]
    drop_first: bool,
}

impl Step for Encode {
    fn ports() -> Ports {
        Ports::new()
            .mapped("input", "a table")
            .input_blob("categories", "the categories from `encode-fit`")
            .table("output", "the table with those columns encoded")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read_all("input", &self.columns, Kind::Text, "columns");
        match self.method {
            Method::OneHot => plan.output_at_run_time("output"),
            Method::Codes => {
                let output = plan.output("output").pass_all("input")?;
                for name in &self.columns {
                    output.add(name, DataType::Int32);
                }
            }
        }
        Ok(())
    }
}

impl Encode {
    /// Returns the code of each row; [`NONE`] where there is none.
    fn codes(&self, name: &str, categories: &[String], part: &Part) -> Result<Vec<u32>> {
        let mut index = Texts::default();
        if let Some(twice) = (0..).zip(categories).find(|(code, category)| index.number(category) != *code) {
            return Err(Error::new(format!("`categories` has `{}` twice", twice.1)).in_column(name));
        }
        let mut all = Vec::with_capacity(part.rows());
        for block in part.blocks() {
            let column = block.text(name)?;
            let codes = index.find_all(&column);
            let is_unknown = |(row, code): (usize, &u32)| *code == NONE && column.is_valid(row);
            if self.unknown != Unknown::Ignore
                && let Some(row) = codes.iter().enumerate().position(is_unknown)
            {
                let (text, all) = (column.value(row), categories.len());
                let message = format!("`{text}` was not among the {all} categories");
                return Err(Error::new(message).in_column(name).at_row(block.row(row)));
            }
            all.extend(codes);
        }
        Ok(all)
    }
}

/// The categories that `encode-fit` found in a column.
fn categories_of(fitted: &Value, name: &str) -> Result<Vec<String>> {
    match fitted["columns"][name].as_array() {
        Some(found) => Ok(found.iter().filter_map(|category| Some(category.as_str()?.to_owned())).collect()),
        None => Err(Error::new(format!("`categories` has no column `{name}`")).in_column(name)),
    }
}

/// A column of codes, without nulls if all rows have a code, as usual.
fn column(codes: Vec<u32>) -> Column {
    if codes.contains(&NONE) {
        let codes = codes.into_iter().map(|code| (code != NONE).then_some(code as i32));
        return codes.collect::<Int32Array>().into();
    }
    Int32Array::from_iter_values(codes.into_iter().map(|code| code as i32)).into()
}

impl Map for Encode {
    fn map(&self, task: &Task) -> Result<()> {
        let fitted: Value = task.json("categories")?;
        let part = task.part("input")?;
        let categories = self.columns.iter().map(|name| categories_of(&fitted, name)).collect::<Result<Vec<_>>>()?;
        let columns = || self.columns.iter().zip(&categories);
        let codes = |name: &str, categories: &[String]| self.codes(name, categories, &part);
        if self.method == Method::Codes {
            let coded = columns().map(|(name, categories)| Ok((name.as_str(), column(codes(name, categories)?))));
            return task.same_rows_each("output", "input", coded);
        }
        let left_out = usize::from(self.drop_first);
        for (name, categories) in columns().filter(|(_, categories)| categories.len() <= left_out) {
            // It adds no column, but an unknown category in it must be reported.
            codes(name, categories)?;
        }
        let indicators = columns().flat_map(|(name, categories)| {
            let kept = (0u32..).zip(categories).skip(left_out);
            kept.map(move |(code, category)| (name, categories, code, format!("{name}={category}")))
        });
        let fields: Vec<Field> =
            indicators.clone().map(|(.., name)| Field::new(name, DataType::Float64, true)).collect();
        task.declare_replacing("output", "input", &self.columns, &fields)?;
        let mut of_rows: Option<(String, Vec<u32>)> = None;
        let indicator = |(name, categories, code, added): (&String, &Vec<String>, u32, String)| {
            let found = match of_rows.take() {
                Some((known, found)) if known == *name => found,
                _ => codes(name, categories)?,
            };
            let values: Vec<f64> = found.iter().map(|found| f64::from(u8::from(*found == code))).collect();
            of_rows = Some((name.clone(), found));
            Ok((added, values.into()))
        };
        task.same_rows_each("output", "input", indicators.map(indicator))
    }
}

millrace_sdk::register!(Encode: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn encode(params: Value) -> Harness<Encode> {
        let input = table(vec![
            ("c", Arc::new(StringArray::from(vec![Some("b"), None, Some("z")])) as ArrayRef),
            ("x", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ]);
        Harness::new(params).table("input", input).blob("categories", r#"{"columns":{"c":["a","b","c"]}}"#)
    }

    #[test]
    fn codes_are_indices_of_the_categories() {
        let out = encode(json!({ "columns": ["c"], "unknown": "ignore" })).run().unwrap();
        assert_eq!(out.numbers("output", "c"), [Some(1.0), None, None]);
        assert_eq!(out.columns("output"), ["c", "x"]);
    }

    #[test]
    fn one_hot_gives_a_column_for_each_category_but_the_first() {
        let out = encode(json!({ "columns": ["c"], "unknown": "ignore", "method": "one-hot" })).run().unwrap();
        assert_eq!(out.columns("output"), ["x", "c=b", "c=c"]);
        assert_eq!(out.numbers("output", "c=b"), [Some(1.0), Some(0.0), Some(0.0)]);
    }

    #[test]
    fn one_hot_encodes_several_columns() {
        let input = table(vec![
            ("c", Arc::new(StringArray::from(vec!["b", "a", "b"])) as ArrayRef),
            ("d", Arc::new(StringArray::from(vec!["v", "u", "w"]))),
        ]);
        let categories = r#"{"columns":{"c":["a","b"],"d":["u","v","w"]}}"#;
        let params = json!({ "columns": ["d", "c"], "method": "one-hot", "drop_first": false });
        let out = Harness::<Encode>::new(params).table("input", input).blob("categories", categories).run().unwrap();
        assert_eq!(out.columns("output"), ["d=u", "d=v", "d=w", "c=a", "c=b"]);
        assert_eq!(out.numbers("output", "d=v"), [Some(1.0), Some(0.0), Some(0.0)]);
        assert_eq!(out.numbers("output", "d=w"), [Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!(out.numbers("output", "c=b"), [Some(1.0), Some(0.0), Some(1.0)]);
    }

    #[test]
    fn an_unknown_category_is_reported_even_if_no_column_is_added() {
        let params = json!({ "columns": ["c"], "method": "one-hot" });
        let input = table(vec![("c", Arc::new(StringArray::from(vec!["a", "z"])) as ArrayRef)]);
        let only =
            Harness::<Encode>::new(params).table("input", input).blob("categories", r#"{"columns":{"c":["a"]}}"#);
        assert_eq!(only.run().unwrap_err().message, "`z` was not among the 1 categories");
    }

    #[test]
    fn an_unknown_category_names_its_row() {
        let error = encode(json!({ "columns": ["c"] })).run().unwrap_err();
        assert_eq!(
            (error.message.as_str(), error.column.as_deref(), error.row),
            ("`z` was not among the 3 categories", Some("c"), Some(2))
        );
        // In a later block, too.
        let texts: StringArray = (0..40_000).map(|row| Some(if row == 39_999 { "z" } else { "a" })).collect();
        let far = Harness::<Encode>::new(json!({ "columns": ["c"] }))
            .table("input", table(vec![("c", Arc::new(texts) as ArrayRef)]))
            .blob("categories", r#"{"columns":{"c":["a"]}}"#);
        assert_eq!(far.run().unwrap_err().row, Some(39_999));
    }
}
