//! The smallest step: reads a column of text, adds another.

use millrace_sdk::prelude::*;

/// The params of the step.
#[derive(Params)]
pub struct Greet {
    /// The column with the names.
    #[param(default = "name")]
    column: String,
    /// The greeting.
    #[param(default = "Hello")]
    greeting: String,
}

impl Step for Greet {
    fn ports() -> Ports {
        Ports::new().mapped("input", "the people").table("output", "the people, with `greeting`")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read("input", &self.column, Kind::Text, "column")?;
        plan.output("output").pass_all("input")?.add("greeting", DataType::Utf8);
        Ok(())
    }
}

impl Map for Greet {
    fn map(&self, task: &Task) -> Result<()> {
        let names = task.part("input")?.text(&self.column)?;
        let greetings: StringArray = names.iter().map(|name| Some(format!("{}, {}!", self.greeting, name?))).collect();
        task.same_rows("output", "input", vec![("greeting", greetings.into())])
    }
}

millrace_sdk::register!(Greet: map);

#[cfg(test)]
mod tests {
    use millrace_sdk::testing::{Harness, table};

    use super::*;

    #[test]
    fn every_name_is_greeted() {
        let people = table(vec![("name", Arc::new(StringArray::from(vec![Some("Ada"), None])))]);
        let out = Harness::<Greet>::new(json!({ "greeting": "Good day" })).table("input", people).run().unwrap();
        assert_eq!(out.text("output", "greeting"), [Some("Good day, Ada!".to_owned()), None]);
    }
}
