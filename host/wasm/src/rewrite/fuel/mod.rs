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

mod function;

use wasmparser::{BinaryReader, ExternalKind, Parser, Payload, TypeRef};

use super::op::{
    BR_IF, CALL, DROP, EMPTY, END, FUNCREF, GLOBAL_GET, GLOBAL_SET, I32_CONST, I32_WRAP, I64, I64_CONST, I64_GT_S,
    I64_LT_U, I64_SUB, LOCAL_GET, LOCAL_SET, LOCAL_TEE, LOOP, MISC, REF_NULL, SELECT, TABLE_GROW, UNREACHABLE,
};
use super::{HEAD, MAX_FUNCTION_BYTES, Malformed, Types, body as function_body, number, section, sections, signed};

/// Fuel between two checks of the host, but for loops that call nothing and what one straight
/// line costs: some 0.1 ms.
const SLICE: i64 = 1 << 18;

/// As many elements as a table that tells of fuel may have: by that the host knows one.
pub(crate) const TABLE: usize = 0;

/// What an instance may use beyond a slice in loops that call nothing: mostly 20 ms, and some 20
/// seconds where each instruction waits for memory.
const FAR: i64 = 1 << 26;

/// Said in place of what was used: it has used too much where it cannot go on.
pub(crate) const LOST: u32 = u32::MAX;

/// Where a guest lets the host look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FuelChecks {
    /// In functions and loops that call others.
    AtCalls,
    /// In all functions and loops.
    AtLoops,
}

/// Of what was used at a time: a table has no more elements.
const MOST_AT_ONCE: i64 = 1 << 30;

const CUSTOM: u8 = 0;
const TYPE: u8 = 1;
const FUNCTION: u8 = 3;
const TABLES: u8 = 4;
const MEMORY: u8 = 5;
const GLOBAL: u8 = 6;
const EXPORT: u8 = 7;
const START: u8 = 8;
const ELEMENT: u8 = 9;
const CODE: u8 = 10;
const TAG: u8 = 13;

/// Elements that are functions, and are only named.
const DECLARED: u8 = 3;

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
                let (code, hints) = declared.code(content, &types, checks)?;
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

/// What a module declares, and with that what is declared here.
struct Declared {
    /// Whether lengths have 64 bits.
    memories: Vec<bool>,
    tables: Vec<bool>,
    /// `tell`: its type, and itself; behind it is `lost`.
    ty: u32,
    tell: u32,
    /// The table that tells.
    table: u32,
    /// The count.
    global: u32,
    /// Functions that are exported or begin, and are not imported, in their order, and their types;
    /// each has one here, behind these, in its place.
    exported: Vec<(u32, u32)>,
}

impl Declared {
    fn of(module: &[u8], types: &Types) -> Result<Self, Malformed> {
        let (mut memories, mut tables, mut globals, mut exported) = (Vec::new(), Vec::new(), 0, Vec::new());
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(reader) => {
                    for import in reader.into_imports() {
                        match import?.ty {
                            TypeRef::Memory(ty) => memories.push(ty.memory64),
                            TypeRef::Table(ty) => tables.push(ty.table64),
                            TypeRef::Global(_) => globals += 1,
                            _ => {}
                        }
                    }
                }
                Payload::MemorySection(reader) => {
                    for ty in reader {
                        memories.push(ty?.memory64);
                    }
                }
                Payload::TableSection(reader) => {
                    for table in reader {
                        tables.push(table?.ty.table64);
                    }
                }
                Payload::GlobalSection(reader) => globals += reader.count(),
                Payload::ExportSection(reader) => {
                    for export in reader {
                        let export = export?;
                        if export.kind == ExternalKind::Func && export.index as usize >= types.imported {
                            exported.push(export.index);
                        }
                    }
                }
                Payload::StartSection { func, .. } if func as usize >= types.imported => exported.push(func),
                _ => {}
            }
        }
        exported.sort_unstable();
        exported.dedup();
        let ty = |function: u32| types.functions.get(function as usize).copied().ok_or(Malformed);
        let exported = exported.into_iter().map(|function| Ok((function, ty(function)?)));
        let exported = exported.collect::<Result<_, Malformed>>()?;
        Ok(Self {
            ty: types.types.len() as u32,
            tell: types.functions.len() as u32,
            table: tables.len() as u32,
            global: globals,
            memories,
            tables,
            exported,
        })
    }

    /// A section with what is declared here.
    fn more(&self, id: u8, content: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = BinaryReader::new(content, 0);
        let count = reader.read_var_u32()?;
        let rest = &content[reader.original_position() as usize..];
        let mut out = Vec::with_capacity(content.len() + 16);
        let more = match id {
            FUNCTION => 2 + self.exported.len() as u32,
            _ => 1,
        };
        number(&mut out, count.checked_add(more).ok_or(Malformed)?);
        out.extend_from_slice(rest);
        match id {
            TYPE => out.extend([0x60, 1, I64, 1, I64]),
            TABLES => out.extend([FUNCREF, 1, 0, TABLE as u8]),
            GLOBAL => {
                out.extend([I64, 1, I64_CONST]);
                signed(&mut out, SLICE);
                out.push(END);
            }
            // Functions whose references may be taken are named outside of code: those that were
            // exported are no more.
            ELEMENT => {
                out.extend([DECLARED, 0]);
                number(&mut out, self.exported.len() as u32);
                self.exported.iter().for_each(|(function, _)| number(&mut out, *function));
            }
            _ => {
                (0..2).for_each(|_| number(&mut out, self.ty));
                self.exported.iter().for_each(|(_, ty)| number(&mut out, *ty));
            }
        }
        Ok(out)
    }

    /// What others call in place of a function: one that tells before it returns.
    fn in_its_place(&self, function: u32) -> u32 {
        let place = self.exported.binary_search_by_key(&function, |(function, _)| *function);
        place.map_or(function, |place| self.tell + 2 + place as u32)
    }

    /// The export section, with functions that tell before they return.
    fn exports(&self, content: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = BinaryReader::new(content, 0);
        let count = reader.read_var_u32()?;
        let mut out = Vec::with_capacity(content.len() + 16);
        number(&mut out, count);
        for _ in 0..count {
            let name = reader.read_string()?;
            let kind = reader.read_u8()?;
            let index = reader.read_var_u32()?;
            number(&mut out, name.len() as u32);
            out.extend_from_slice(name.as_bytes());
            out.push(kind);
            number(&mut out, if kind == 0 { self.in_its_place(index) } else { index });
        }
        Ok(out)
    }

    /// The code section, and what says which of its branches are seldom taken.
    fn code(&self, content: &[u8], types: &Types, checks: FuelChecks) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        const NAME: &str = "metadata.code.branch_hint";
        let mut reader = BinaryReader::new(content, 0);
        let count = reader.read_var_u32()?;
        let mut out = Vec::with_capacity(content.len() + content.len() / 4);
        number(&mut out, count.checked_add(2 + self.exported.len() as u32).ok_or(Malformed)?);
        let (mut hints, mut hinted) = (Vec::new(), 0);
        for place in 0..count {
            let size = reader.read_var_u32()? as usize;
            let bytes = reader.read_bytes(size)?;
            if size > MAX_FUNCTION_BYTES {
                return Err(Malformed);
            }
            let function = types.imported as u32 + place;
            let params = types.params(function as usize).ok_or(Malformed)?;
            let (body, seldom) = function::counted(self, bytes, params.len(), checks)?;
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
        function_body(&mut out, &self.tell());
        function_body(&mut out, &self.lost());
        for (function, _) in &self.exported {
            let params = types.params(*function as usize).ok_or(Malformed)?;
            function_body(&mut out, &self.last_tells(*function, params.len() as u32));
        }
        let mut section = Vec::with_capacity(hints.len() + 40);
        number(&mut section, NAME.len() as u32);
        section.extend_from_slice(NAME.as_bytes());
        number(&mut section, hinted);
        section.extend(hints);
        Ok((out, section))
    }

    /// `tell`: of a count it tells what was used, and gives a new one.
    fn tell(&self) -> Vec<u8> {
        const COUNT: u8 = 0;
        const USED: u8 = 1;
        const PART: u8 = 2;
        let mut out = vec![1, 2, I64];
        constant(&mut out, SLICE);
        out.extend([LOCAL_GET, COUNT, I64_SUB, LOCAL_SET, USED]);
        out.extend([LOOP, EMPTY, REF_NULL, FUNCREF]);
        at_most(&mut out, u32::from(USED), MOST_AT_ONCE);
        out.extend([LOCAL_TEE, PART, I32_WRAP, MISC, TABLE_GROW]);
        number(&mut out, self.table);
        out.extend([DROP, LOCAL_GET, USED, LOCAL_GET, PART, I64_SUB, LOCAL_TEE, USED]);
        constant(&mut out, 0);
        out.extend([I64_GT_S, BR_IF, 0, END]);
        constant(&mut out, SLICE);
        out.push(END);
        out
    }

    /// `lost`: tells what was used, and that it cannot go on; does not return.
    fn lost(&self) -> Vec<u8> {
        let mut out = vec![0, LOCAL_GET, 0, CALL];
        number(&mut out, self.tell);
        out.extend([DROP, REF_NULL, FUNCREF, I32_CONST]);
        signed(&mut out, i64::from(LOST as i32));
        out.extend([MISC, TABLE_GROW]);
        number(&mut out, self.table);
        out.extend([DROP, UNREACHABLE, END]);
        out
    }

    /// Calls a function, and tells.
    fn last_tells(&self, function: u32, params: u32) -> Vec<u8> {
        let mut out = vec![0];
        for param in 0..params {
            out.push(LOCAL_GET);
            number(&mut out, param);
        }
        for (op, index) in [(CALL, function), (GLOBAL_GET, self.global), (CALL, self.tell), (GLOBAL_SET, self.global)] {
            out.push(op);
            number(&mut out, index);
        }
        out.push(END);
        out
    }
}

fn constant(out: &mut Vec<u8>, value: i64) {
    out.push(I64_CONST);
    signed(out, value);
}

/// The lesser of a local and a bound, without signs.
fn at_most(out: &mut Vec<u8>, local: u32, bound: i64) {
    for _ in 0..2 {
        out.push(LOCAL_GET);
        number(out, local);
        constant(out, bound);
    }
    out.extend([I64_LT_U, SELECT]);
}

#[cfg(test)]
mod tests;
