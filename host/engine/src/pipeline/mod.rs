//! Pipelines: from TOML to a model with the span of everything in it.

mod model;
mod param;
mod read;
mod reference;
pub(crate) mod schema;
mod value;

pub use model::{CachePolicy, Export, Param, Pipeline, Source, Step, StepGrants};
pub use param::{Overrides, Scope, substitute};
pub use read::read;
pub use reference::{Pick, Reference};
pub use value::Located;
