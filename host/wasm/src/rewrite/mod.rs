//! Components are written again before they are compiled.
//!
//! ```text
//! component, checked → core modules → nan     NaN has one form wherever it can be seen
//!                                   → fuel    what is done is counted, and now and then told
//! ```
//!
//! Both add instructions, and `fuel` declares what only these may name. So a component is
//! checked before: one that names what it does not declare would name that. What is no
//! WebAssembly is refused here, for the compiler to say what is wrong.

mod binary;
mod fuel;
mod nan;
mod op;

use wasmparser::{Validator, WasmFeatures};

use binary::{HEAD, is_module, section, sections};

pub(crate) use binary::Malformed;
pub(crate) use fuel::{FuelChecks, LOST, TABLE};

/// Of what is written: code that another version has made is compiled anew.
pub(crate) const VERSION: u32 = 5;

/// Components in components, and modules in those.
const DEPTH: usize = 200;

/// A component whose NaNs have one form wherever they can be seen, and that counts its fuel.
///
/// # Errors
/// When it is none.
pub(crate) fn rewritten(component: &[u8], checks: FuelChecks) -> Result<Vec<u8>, Malformed> {
    // Whatever there is: what the compiler does not take is its own to refuse.
    Validator::new_with_features(WasmFeatures::all()).validate_all(component)?;
    part(component, checks, DEPTH)
}

/// Whether there are components in it that call each other, or may: between them wasmtime
/// copies, with code that is not in the component and is not written again.
pub(crate) fn is_composed(component: &[u8]) -> bool {
    fn has(bytes: &[u8], depth: usize) -> Result<bool, Malformed> {
        // So deep is none that is taken.
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
    // What is none is told of as it is compiled.
    has(component, 0).unwrap_or(false)
}

const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// Functions that are lifted from modules, or lowered into them.
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
