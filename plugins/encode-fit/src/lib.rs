//! `std:encode-fit` collects the categories of text columns, part by part, for `std:encode`. They
//! are sorted by their bytes, independent of the order of rows.
//!
//! ```toml
//! [steps.categories]
//! uses = "std:encode-fit"
//! input = "customers"
//! params = { columns = ["contract", "payment_method"] }
//! ```
//!
//! The blob `categories` is JSON: `{"columns":{"contract":["Month-to-month","One year"]}}`.

use std::collections::BTreeSet;

use millrace_sdk::prelude::*;
use millrace_sdk::texts::Texts;

/// Params of `std:encode-fit`.
#[derive(Params)]
pub struct EncodeFit {
    /// The text columns to collect categories from.
    columns: Vec<String>,
    /// More categories than this are an error: a name is not a category.
    #[param(default = 1000u32, min = 1)]
    max: u32,
}

impl EncodeFit {
    fn check(&self, name: &str, found: usize) -> Result<()> {
        if found > self.max as usize {
            let message =
                format!("column `{name}` has more than {} categories; raise `max` if that is intended", self.max);
            return Err(Error::new(message).in_column(name));
        }
        Ok(())
    }
}

impl Step for EncodeFit {
    fn ports() -> Ports {
        Ports::new().mapped("input", "the rows to collect from").blob("categories", "the categories of each column")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read_all("input", &self.columns, Kind::Text, "columns");
        Ok(())
    }
}

impl Fold for EncodeFit {
    type Partial = Vec<BTreeSet<String>>;

    fn partial(&self, task: &Task) -> Result<Self::Partial> {
        let part = task.part("input")?;
        let mut all = Vec::new();
        for name in &self.columns {
            let mut texts = Texts::default();
            for block in part.blocks() {
                texts.number_all(&block.text(name)?, self.max as usize);
                self.check(name, texts.len())?;
            }
            all.push(texts.iter().map(str::to_owned).collect());
        }
        Ok(all)
    }

    fn merge(&self, partials: Partials<Self::Partial>, task: &Task) -> Result<()> {
        let mut found = vec![BTreeSet::new(); self.columns.len()];
        for partial in partials.iter() {
            found.iter_mut().zip(partial?).for_each(|(found, values)| found.extend(values));
        }
        let mut columns = millrace_sdk::json::Map::new();
        for (name, all) in self.columns.iter().zip(found) {
            self.check(name, all.len())?;
            columns.insert(name.clone(), json!(all));
        }
        task.emit_blob("categories", json!({ "columns": columns }).to_string().as_bytes())
    }
}

millrace_sdk::register!(EncodeFit: fold);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    fn fit(max: u32) -> Result<String> {
        let part = |values: Vec<Option<&str>>| table(vec![("c", Arc::new(StringArray::from(values)) as ArrayRef)]);
        let parts = vec![part(vec![Some("b"), None]), part(vec![Some("a"), Some("b")])];
        let out = Harness::<EncodeFit>::new(json!({ "columns": ["c"], "max": max })).parts("input", parts).run()?;
        Ok(String::from_utf8(out.blob("categories").to_vec()).unwrap())
    }

    #[test]
    fn categories_are_sorted_over_all_parts() {
        assert_eq!(fit(10).unwrap(), r#"{"columns":{"c":["a","b"]}}"#);
    }

    #[test]
    fn too_many_categories_are_an_error() {
        assert!(fit(1).unwrap_err().message.contains("more than 1 categories"));
    }
}
