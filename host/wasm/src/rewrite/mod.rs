//! Rewrites components before they are compiled.
//!
//! ```text
//! component, validated → core modules → nan     NaN has one form wherever it can be observed
//!                                     → fuel    fuel is counted, and reported from time to time
//! ```
//!
//! Both add instructions, and `fuel` adds declarations to which only these may refer. So a
//! component is validated first: otherwise a reference to something that it does not declare
//! could refer to these. Bytes that are not WebAssembly are refused here; the compiler reports
//! what is wrong with them.

mod binary;
mod fuel;
mod nan;
mod op;

use wasmparser::{Validator, WasmFeatures};

use binary::{HEAD, is_module, section, sections};

pub(crate) use binary::Malformed;
pub(crate) use fuel::{FuelChecks, LOST, TABLE};

/// The version of the rewriting: code from another version is recompiled.
pub(crate) const VERSION: u32 = 5;

/// The maximum depth of components in components, and of modules in those.
const DEPTH: usize = 200;

/// A component whose NaNs have one form wherever they can be observed, and that counts its fuel.
///
/// # Errors
/// When the bytes are not a component.
pub(crate) fn rewritten(component: &[u8], checks: FuelChecks) -> Result<Vec<u8>, Malformed> {
    // With all features: the compiler refuses those that it does not support.
    Validator::new_with_features(WasmFeatures::all()).validate_all(component)?;
    part(component, checks, DEPTH)
}

/// Whether it contains components that call each other, or may: between them wasmtime copies
/// values, with code that is not in the component and so is not rewritten.
pub(crate) fn is_composed(component: &[u8]) -> bool {
    fn has(bytes: &[u8], depth: usize) -> Result<bool, Malformed> {
        // Components of this depth are refused.
        if is_module(bytes) || depth == DEPTH {
            return Ok(false);
        }
        for found in sections(bytes)? {
            match found? {
                (CANON, _) if depth > 0 => return Ok(true),
                (COMPONENT, content) if has(content, depth + 1)? => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }
    // Bytes that are not a component are reported when they are compiled.
    has(component, 0).unwrap_or(false)
}

const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// The section of functions that are lifted from modules or lowered into them.
const CANON: u8 = 8;

fn part(bytes: &[u8], checks: FuelChecks, depth: usize) -> Result<Vec<u8>, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    if is_module(bytes) {
        return fuel::counted(&nan::in_one_form(bytes)?, checks);
    }
    let mut out = bytes.get(..HEAD).ok_or(Malformed)?.to_vec();
    for found in sections(bytes)? {
        let (id, content) = found?;
        match id {
            CORE_MODULE | COMPONENT => section(&mut out, id, &part(content, checks, depth)?)?,
            _ => section(&mut out, id, content)?,
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
