//! The standard steps, which are part of the program.

use std::path::Path;

use millrace_registry::bundled;
use millrace_types::Uses;

use super::source::{ComponentBytes, ComponentSource, ResolveError, Resolved};

/// Finds standard steps.
pub(super) struct StdSteps;

impl ComponentSource for StdSteps {
    fn resolve(&self, uses: &Uses, _: &Path) -> Result<Resolved, ResolveError> {
        let Uses::Std(name) = uses else { return Err(ResolveError::new(format!("`{uses}` is not a standard step"))) };
        if let Some(found) = bundled().iter().find(|bundled| bundled.name == name) {
            return Ok(Resolved { digest: found.digest, bytes: ComponentBytes::Static(found.bytes) });
        }
        let mut error = ResolveError::new(format!("there is no standard step `{name}`"));
        error.label = "not known";
        if bundled().is_empty() {
            let help = "this host was built without the standard steps: build it with `cargo xtask build`";
            return Err(error.help(help));
        }
        error.diagnostic = error.diagnostic.suggest(name, bundled().iter().map(|bundled| bundled.name));
        Err(error)
    }
}
