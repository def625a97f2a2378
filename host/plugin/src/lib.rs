//! From the source of a step to a component.
//!
//! A Rust step is built for `wasm32-unknown-unknown`, where there is nothing to import but the
//! step world. Two toolchains can do that: rustup's, or Debian's own packages with `build-std`.
//! [`Toolchain::find`] chooses by what is installed.

mod build;
mod names;
mod stamp;
mod toolchain;

pub use build::{BuildError, Built, EncodeError, build, component_of};
pub use stamp::{SourceStamp, stamp};
pub use toolchain::{Toolchain, ToolchainError, Wanted};
