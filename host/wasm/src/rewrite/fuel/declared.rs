//! The declarations that a module gets for counting: the global, the table, and the functions
//! that report.

use wasmparser::{BinaryReader, ExternalKind, Parser, Payload, TypeRef};

use super::super::binary::{Malformed, Types, number, signed};
use super::super::op::{
    BR_IF, CALL, DROP, EMPTY, END, FUNCREF, GLOBAL_GET, GLOBAL_SET, I32_CONST, I32_WRAP, I64, I64_CONST, I64_GT_S,
    I64_LT_U, I64_SUB, LOCAL_GET, LOCAL_SET, LOCAL_TEE, LOOP, MISC, REF_NULL, SELECT, TABLE_GROW, UNREACHABLE,
};

/// Fuel between two checks by the host, about 0.1 ms: more in loops without calls, and up to the
/// cost of one segment.
pub(super) const SLICE: i64 = 1 << 18;

/// The maximum size of the table that reports fuel, in elements: the host recognizes the table
/// by it.
pub(crate) const TABLE: usize = 0;

/// The fuel that an instance may use beyond a slice in loops without calls: mostly 20 ms, and
/// about 20 seconds where each instruction waits for memory.
pub(super) const FAR: i64 = 1 << 26;

/// Reported instead of an amount of fuel: too much was used where the guest cannot continue.
pub(crate) const LOST: u32 = u32::MAX;

/// Where the code of a guest checks its count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FuelChecks {
    /// In functions and loops that call others.
    AtCalls,
    /// In all functions and loops.
    AtLoops,
}

/// The maximum fuel in one report: a table has no more elements.
pub(super) const MAX_REPORT: i64 = 1 << 30;

pub(super) const CUSTOM: u8 = 0;
pub(super) const TYPE: u8 = 1;
pub(super) const FUNCTION: u8 = 3;
pub(super) const TABLES: u8 = 4;
pub(super) const MEMORY: u8 = 5;
pub(super) const GLOBAL: u8 = 6;
pub(super) const EXPORT: u8 = 7;
pub(super) const START: u8 = 8;
pub(super) const ELEMENT: u8 = 9;
pub(super) const CODE: u8 = 10;
pub(super) const TAG: u8 = 13;

/// The flags of a declarative element segment.
pub(super) const DECLARED: u8 = 3;

/// What a module declares, and the indices of what is declared here.
pub(super) struct Declared {
    /// For each memory, whether its lengths have 64 bits.
    pub(super) memories: Vec<bool>,
    /// For each table, whether its lengths have 64 bits.
    pub(super) tables: Vec<bool>,
    /// The type of `tell` and `lost`.
    pub(super) ty: u32,
    /// The function `tell`; `lost` is the next one.
    pub(super) tell: u32,
    /// The table that reports fuel.
    pub(super) table: u32,
    /// The global that holds the count.
    pub(super) global: u32,
    /// Exported functions and the start function, in their order, with their types; imported
    /// ones are left out. The wrapper of each comes after `lost`, in the same order.
    pub(super) exported: Vec<(u32, u32)>,
}

impl Declared {
    pub(super) fn of(module: &[u8], types: &Types) -> Result<Self, Malformed> {
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

    /// A section with the declarations made here.
    pub(super) fn more(&self, id: u8, content: &[u8]) -> Result<Vec<u8>, Malformed> {
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
            // A function whose reference is taken must be named outside the code; functions that
            // were exported no longer are.
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

    /// The wrapper of a function, which is called from outside instead of it and reports before
    /// it returns; the function itself if it has none.
    pub(super) fn in_its_place(&self, function: u32) -> u32 {
        let index = self.exported.binary_search_by_key(&function, |(function, _)| *function);
        index.map_or(function, |index| self.tell + 2 + index as u32)
    }

    /// The export section, with the wrappers of functions.
    pub(super) fn exports(&self, content: &[u8]) -> Result<Vec<u8>, Malformed> {
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

    /// `tell`: takes the count, reports the used fuel, and returns a new count.
    pub(super) fn tell(&self) -> Vec<u8> {
        const COUNT: u8 = 0;
        const USED: u8 = 1;
        const PART: u8 = 2;
        let mut out = vec![1, 2, I64];
        constant(&mut out, SLICE);
        out.extend([LOCAL_GET, COUNT, I64_SUB, LOCAL_SET, USED]);
        out.extend([LOOP, EMPTY, REF_NULL, FUNCREF]);
        at_most(&mut out, u32::from(USED), MAX_REPORT);
        out.extend([LOCAL_TEE, PART, I32_WRAP, MISC, TABLE_GROW]);
        number(&mut out, self.table);
        out.extend([DROP, LOCAL_GET, USED, LOCAL_GET, PART, I64_SUB, LOCAL_TEE, USED]);
        constant(&mut out, 0);
        out.extend([I64_GT_S, BR_IF, 0, END]);
        constant(&mut out, SLICE);
        out.push(END);
        out
    }

    /// `lost`: reports the used fuel, and that the guest cannot continue; does not return.
    pub(super) fn lost(&self) -> Vec<u8> {
        let mut out = vec![0, LOCAL_GET, 0, CALL];
        number(&mut out, self.tell);
        out.extend([DROP, REF_NULL, FUNCREF, I32_CONST]);
        signed(&mut out, i64::from(LOST as i32));
        out.extend([MISC, TABLE_GROW]);
        number(&mut out, self.table);
        out.extend([DROP, UNREACHABLE, END]);
        out
    }

    /// The wrapper of a function: calls it, and then reports.
    pub(super) fn last_tells(&self, function: u32, params: u32) -> Vec<u8> {
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

/// Appends a constant of 64 bits.
pub(super) fn constant(out: &mut Vec<u8>, value: i64) {
    out.push(I64_CONST);
    signed(out, value);
}

/// Appends the lesser of a local and a bound, compared as unsigned integers.
pub(super) fn at_most(out: &mut Vec<u8>, local: u32, bound: i64) {
    for _ in 0..2 {
        out.push(LOCAL_GET);
        number(out, local);
        constant(out, bound);
    }
    out.extend([I64_LT_U, SELECT]);
}
