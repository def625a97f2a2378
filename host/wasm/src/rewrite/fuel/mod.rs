//! Adds code to guests that counts their fuel.
//!
//! An instruction costs 1, as in wasmtime's own fuel: an instruction without machine code costs
//! nothing, a call costs 1 more, and an instruction that moves bytes or elements in bulk costs 1
//! more for each. A straight-line segment, up to the next point where branches meet, is paid for
//! at its beginning: a branch out of it also pays for what it skips, so that branches, which are
//! mostly checks of bounds, need no code. Each function counts down in a local, which is in a
//! register; between functions the count is in a global.
//!
//! When a count that started at `SLICE` is below zero, the used fuel is reported to the host,
//! which checks limits and the clock, and the count restarts. But a loop that contains a call
//! keeps no values in registers across its iterations, whether or not the call is ever made. So
//! functions and loops that call others check their count, and a loop without calls runs on
//! below zero. Only a loop that gets far below zero is `lost`: it cannot continue from there, and
//! the task restarts with code that checks everywhere. A task is a function of its inputs, so
//! the restart cannot be observed, and both kinds of code count the same fuel. Each task starts
//! with code that checks at calls: the maximum depth of the stack, and which of two limits is
//! reported, differ slightly between the two, and must not depend on other tasks.
//!
//! ```text
//! loop                       loop
//!   …                          if count < 0: count = tell(count)        in a loop with calls
//!   br_if 0                    if count < −FAR: lost(count)             in a loop without calls
//! end                          count = count − 17
//!                              …
//!                              br_if 0
//!                            end
//! ```
//!
//! A module cannot call the host without an import, and another import would change how modules
//! are instantiated. But the limiter of the host is called before a table grows. So each module
//! gets one more table, which never grows: the number of elements by which it should grow is the
//! used fuel. A guest that does the same with its own table only reports more fuel than it used.
//!
//! Exported functions and start functions are called from outside: when they return, they report
//! the rest, so that the host knows the fuel to the last instruction. A function that traps, or
//! that another instance calls through a table, may leave unreported as much as a loop may use.

mod declared;
mod function;

use wasmparser::BinaryReader;

use super::binary::{HEAD, MAX_FUNCTION_BYTES, Malformed, Types, body as function_body, number, section, sections};
use declared::{CODE, CUSTOM, Declared, ELEMENT, EXPORT, FUNCTION, GLOBAL, MEMORY, START, TABLES, TAG, TYPE};
pub(crate) use declared::{FuelChecks, LOST, TABLE};

/// A module that counts its fuel.
///
/// # Errors
/// When the bytes are not a module. They must have been validated: otherwise a reference to
/// something that the module does not declare could refer to what is declared here.
pub(super) fn counted(module: &[u8], checks: FuelChecks) -> Result<Vec<u8>, Malformed> {
    let types = Types::of(module)?;
    if types.functions.len() == types.imported {
        return Ok(module.to_vec());
    }
    let declared = Declared::of(module, &types)?;
    let mut out = module.get(..HEAD).ok_or(Malformed)?.to_vec();
    // The sections that the module may lack, in their order.
    let mut missing = &[TABLES, GLOBAL, ELEMENT][..];
    for found in sections(module)? {
        let (id, content) = found?;
        if id != CUSTOM {
            while let [next, rest @ ..] = missing
                && order(*next) <= order(id)
            {
                if *next != id {
                    section(&mut out, *next, &declared.more(*next, &[0])?)?;
                }
                missing = rest;
            }
        }
        match id {
            CODE => {
                let (code, hints) = code(&declared, content, &types, checks)?;
                section(&mut out, CUSTOM, &hints)?;
                section(&mut out, id, &code)?;
            }
            EXPORT => section(&mut out, id, &declared.exports(content)?)?,
            START => {
                let mut start = Vec::new();
                number(&mut start, declared.in_its_place(BinaryReader::new(content, 0).read_var_u32()?));
                section(&mut out, id, &start)?;
            }
            TYPE | FUNCTION | TABLES | GLOBAL | ELEMENT => section(&mut out, id, &declared.more(id, content)?)?,
            _ => section(&mut out, id, content)?,
        }
    }
    Ok(out)
}

/// The position of a section among the others.
fn order(id: u8) -> u8 {
    match id {
        TAG => 2 * MEMORY + 1,
        id => 2 * id,
    }
}

/// The code section, and the section of hints for its branches that are seldom taken.
fn code(
    declared: &Declared,
    content: &[u8],
    types: &Types,
    checks: FuelChecks,
) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    const NAME: &str = "metadata.code.branch_hint";
    let mut reader = BinaryReader::new(content, 0);
    let count = reader.read_var_u32()?;
    let mut out = Vec::with_capacity(content.len() + content.len() / 4);
    number(&mut out, count.checked_add(2 + declared.exported.len() as u32).ok_or(Malformed)?);
    let (mut hints, mut hinted) = (Vec::new(), 0);
    for index in 0..count {
        let size = reader.read_var_u32()? as usize;
        let bytes = reader.read_bytes(size)?;
        if size > MAX_FUNCTION_BYTES {
            return Err(Malformed);
        }
        let function = types.imported as u32 + index;
        let params = types.params(function as usize).ok_or(Malformed)?;
        let (body, seldom) = function::counted(declared, bytes, params.len(), checks)?;
        function_body(&mut out, &body);
        if !seldom.is_empty() {
            hinted += 1;
            number(&mut hints, function);
            number(&mut hints, seldom.len() as u32);
            for at in seldom {
                number(&mut hints, at);
                hints.extend([1, 0]);
            }
        }
    }
    function_body(&mut out, &declared.tell());
    function_body(&mut out, &declared.lost());
    for (function, _) in &declared.exported {
        let params = types.params(*function as usize).ok_or(Malformed)?;
        function_body(&mut out, &declared.last_tells(*function, params.len() as u32));
    }
    let mut section = Vec::with_capacity(hints.len() + 40);
    number(&mut section, NAME.len() as u32);
    section.extend_from_slice(NAME.as_bytes());
    number(&mut section, hinted);
    section.extend(hints);
    Ok((out, section))
}

#[cfg(test)]
mod tests;
