//! Guests count their fuel themselves.
//!
//! An instruction costs one, as compilers of wasmtime count it: what makes no code costs
//! nothing, a call one more, and what moves bytes or elements in bulk one more for each. What
//! runs in a straight line, up to the next place where branches meet, is counted where it
//! begins: a branch out of it leaves out what is counted all the same, so that nothing is to be
//! done at branches, which are mostly checks of bounds. Each function counts down in a local,
//! which lies in a register; between functions the count lies in a global.
//!
//! When a count that began with a `SLICE` is below zero, the host is told what was used, looks
//! at limits and the clock, and the count begins anew. But a loop in which something may be
//! called has no values in registers across its turns, whether or not it is ever called. So
//! functions and loops that call others look at their count, and a loop that calls nothing
//! runs on, below zero. Only one that goes on and on, far below, is `lost`: nothing can go on
//! from there, and the task begins again, with code that checks everywhere. A task is a function
//! of what it is given, so nobody can tell, and what was used is counted alike in both. Each
//! task begins with code that checks at calls: how deep a stack may be, and which of two limits is
//! told of, differ a little between the two, and must not depend on other tasks.
//!
//! ```text
//! loop                       loop
//!   …                          if count < 0: count = tell(count)        where something is called
//!   br_if 0                    if count < −FAR: lost(count)             where nothing is
//! end                          count = count − 17
//!                              …
//!                              br_if 0
//!                            end
//! ```
//!
//! A module cannot call the host without an import, and one import more would change how
//! instances are made of modules. But what limits tables is asked before one grows, so each
//! module has one more table, which never grows: by how much it was to grow is what was
//! used. A guest that does the same with a table of its own only says that it used more.
//!
//! Functions that are exported, or begin, are called by others: when they return, the rest is
//! told, so that the host knows all to the last instruction. What traps, and what another instance
//! calls through a table, may leave untold as much as a loop may use.

mod declared;
mod function;

use wasmparser::BinaryReader;

use super::binary::{HEAD, MAX_FUNCTION_BYTES, Malformed, Types, body as function_body, number, section, sections};
use declared::{CODE, CUSTOM, Declared, ELEMENT, EXPORT, FUNCTION, GLOBAL, MEMORY, START, TABLES, TAG, TYPE};
pub(crate) use declared::{FuelChecks, LOST, TABLE};

/// A module that counts its fuel.
///
/// # Errors
/// When it is none. It must have been checked: one that names what it does not declare
/// would name what is declared here.
pub(super) fn counted(module: &[u8], checks: FuelChecks) -> Result<Vec<u8>, Malformed> {
    let types = Types::of(module)?;
    if types.functions.len() == types.imported {
        return Ok(module.to_vec());
    }
    let declared = Declared::of(module, &types)?;
    let mut out = module.get(..HEAD).ok_or(Malformed)?.to_vec();
    // In the order in which they must be; these may not be there.
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

/// Where a section stands among the others.
fn order(id: u8) -> u8 {
    match id {
        TAG => 2 * MEMORY + 1,
        id => 2 * id,
    }
}

/// The code section, and what says which of its branches are seldom taken.
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
    for place in 0..count {
        let size = reader.read_var_u32()? as usize;
        let bytes = reader.read_bytes(size)?;
        if size > MAX_FUNCTION_BYTES {
            return Err(Malformed);
        }
        let function = types.imported as u32 + place;
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
