//! The graph of a pipeline: the matrix expanded, references resolved, params substituted. It is
//! everything that can be known without reading data.

mod build;
mod builder;
mod exports;
mod matrix;
mod model;
mod order;
mod resolve;

pub use build::build;
pub use model::{Graph, Item, Node};
