//! Why a component cannot be used.

use millrace_types::action_key::WORLD_VERSION;

use crate::text::sanitize;

/// A component that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ComponentError {
    /// Not a component at all.
    #[error("it is not a WebAssembly component: {reason}")]
    NotAComponent {
        /// The error of wasmtime.
        reason: String,
    },
    /// A component, but no step.
    #[error("it is a component, but not a step: it does not export `millrace:step/step@{WORLD_VERSION}`")]
    NotAStep,
    /// A step of another version of the world.
    #[error(
        "it was built for version {found} of the step world, and this host has {WORLD_VERSION}: build it again with the SDK of this version"
    )]
    WorldVersion {
        /// The version it names.
        found: String,
    },
    /// It imports something that does not exist.
    #[error("it cannot be linked: {reason}")]
    Link {
        /// The error of wasmtime.
        reason: String,
    },
    /// Its manifest or a plan is not valid.
    #[error("its {what} is not valid: {reason}")]
    Claims {
        /// `manifest` or `plan`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It failed to answer.
    #[error("it failed in `{what}`: {reason}")]
    Failed {
        /// `describe` or `plan`.
        what: &'static str,
        /// How.
        reason: String,
    },
}

/// An error of wasmtime, on one line.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    sanitize(format!("{error:#}").replace('\n', " "), 600)
}
