//! Write a Millrace step as a page of Rust.
//!
//! A step is a struct of params, a `plan` that declares its reads and its outputs, and a
//! function for its mode:
//!
//! ```
//! use millrace_sdk::prelude::*;
//!
//! /// Adds a greeting for each name in a column.
//! #[derive(Params)]
//! struct Greet {
//!     /// The column with the names.
//!     #[param(default = "name")]
//!     column: String,
//! }
//!
//! impl Step for Greet {
//!     fn ports() -> Ports {
//!         Ports::new().mapped("input", "the people").table("output", "the people, with `greeting`")
//!     }
//!
//!     fn plan(&self, plan: &mut Plan) -> Result<()> {
//!         plan.read("input", &self.column, Kind::Text, "column")?;
//!         plan.output("output").pass_all("input")?.add("greeting", DataType::Utf8);
//!         Ok(())
//!     }
//! }
//!
//! impl Map for Greet {
//!     fn map(&self, task: &Task) -> Result<()> {
//!         let part = task.part("input")?;
//!         let names = part.text(&self.column)?;
//!         let greetings: StringArray = names.iter().map(|name| Some(format!("Hello, {}!", name?))).collect();
//!         task.same_rows("output", "input", vec![("greeting", greetings.into())])
//!     }
//! }
//!
//! register!(Greet: map);
//!
//! // And its test, without any WebAssembly:
//! use millrace_sdk::testing::{Harness, table};
//! let people = table(vec![("name", Arc::new(StringArray::from(vec!["Ada"])))]);
//! let out = Harness::<Greet>::new(json!({})).table("input", people).run().unwrap();
//! assert_eq!(out.text("output", "greeting"), [Some("Hello, Ada!".to_owned())]);
//! ```
//!
//! The mode named in `register!` decides how the work may be divided:
//!
//! | mode | a task sees | for |
//! | --- | --- | --- |
//! | `map` ([`Map`]) | one part | work done row by row |
//! | `fold` ([`Fold`]) | one part, then the partials of all parts | sums, fits, metrics |
//! | `whole` ([`Whole`]) | all parts, in one guest | joins, sorts, work that cannot be divided |
//! | `rounds` ([`Rounds`]) | all parts, in guests that exchange numbers | training: repeated passes over the same rows |
//!
//! Columns are fetched on request, for a whole part or, faster and with less memory, for one
//! block of its rows at a time: see [`Part::blocks`], and [`Part::computed`] for expressions.
//!
//! The crate is a `cdylib`; `host plugin build`, `uses = "path:…"` in a pipeline and
//! `cargo xtask` build a component from it. The component's name, version and description are
//! those in `Cargo.toml`.

// The derives refer to the crate by the name that its users see, also in this crate.
extern crate self as millrace_sdk;

mod backend;
mod column;
mod error;
pub mod expr_math;
pub mod grouped;
pub mod kernels;
pub mod key_rows;
pub mod keys;
mod mode;
mod pair;
pub mod params;
mod partials;
mod plan;
mod step;
mod task;
pub mod texts;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use arrow_array;
pub use arrow_buffer;
pub use arrow_schema;
pub use backend::{Level, Phase, Reduction};
pub use error::{Error, Result};
pub use millrace_expr as expr;
pub use millrace_expr::Column;
pub use millrace_sdk_macros::{Choice, Params};
pub use mode::Mode;
pub use params::{Params, float_text};
pub use partials::{Kept, Partials};
pub use plan::{Kind, Output, Plan, type_name};
pub use serde_json as json;
pub use step::{Entry, Fold, Manifest, Map, Port, Ports, Rounds, Step, Whole};
pub use task::{Part, Table, Task};

/// What a step usually needs.
pub mod prelude {
    pub use std::sync::Arc;

    pub use arrow_array::{
        Array, ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, UInt32Array,
    };
    pub use arrow_schema::{DataType, Field};
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};

    pub use crate::{
        Choice, Column, Error, Fold, Kind, Level, Map, Params, Part, Partials, Phase, Plan, Ports, Reduction, Result,
        Rounds, Step, Table, Task, Whole, register,
    };
}

#[doc(hidden)]
pub mod private {
    pub use postcard;

    /// The crates of the standard steps are named `millrace-…`, since crates share one
    /// namespace; the steps themselves are named without it.
    pub const fn short_name(name: &'static str) -> &'static str {
        match name.as_bytes() {
            [b'm', b'i', b'l', b'l', b'r', b'a', b'c', b'e', b'-', ..] => name.split_at(9).1,
            _ => name,
        }
    }
}
