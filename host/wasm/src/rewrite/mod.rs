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

mod fuel;
mod nan;
mod op;

use wasmparser::{BinaryReader, FunctionBody, Parser, Payload, SubType, TypeRef, ValType, Validator, WasmFeatures};

pub(crate) use fuel::{FuelChecks, LOST, TABLE};

/// Of what is written: code that another version has made is compiled anew.
pub(crate) const VERSION: u32 = 5;

/// Components in components, and modules in those.
const DEPTH: usize = 200;

/// As many types or functions, bytes of a function and locals, as a compiler takes.
const MOST_ITEMS: usize = 1_000_000;
const MAX_FUNCTION_BYTES: usize = 7_654_321;
const MOST_LOCALS: usize = 50_000;

/// The bytes of a component or module are no such thing.
#[derive(Debug)]
pub(crate) struct Malformed;

impl From<wasmparser::BinaryReaderError> for Malformed {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self
    }
}

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

/// Bytes before the first section.
const HEAD: usize = 8;

fn is_module(bytes: &[u8]) -> bool {
    bytes.get(4..HEAD) == Some(&[1, 0, 0, 0])
}

/// The sections of a module or component: the number of each, and what is in it.
fn sections<'b>(bytes: &'b [u8]) -> Result<impl Iterator<Item = Result<(u8, &'b [u8]), Malformed>>, Malformed> {
    let mut reader = BinaryReader::new(bytes.get(HEAD..).ok_or(Malformed)?, 0);
    Ok(std::iter::from_fn(move || {
        if reader.eof() {
            return None;
        }
        let next = |reader: &mut BinaryReader<'b>| -> Result<(u8, &'b [u8]), Malformed> {
            let id = reader.read_u8()?;
            let size = reader.read_var_u32()? as usize;
            Ok((id, reader.read_bytes(size)?))
        };
        Some(next(&mut reader))
    }))
}

fn section(out: &mut Vec<u8>, id: u8, content: &[u8]) -> Result<(), Malformed> {
    out.push(id);
    number(out, u32::try_from(content.len()).map_err(|_| Malformed)?);
    out.extend_from_slice(content);
    Ok(())
}

/// LEB128, as WebAssembly writes its numbers.
fn number(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The same for a number with a sign.
fn signed(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = value as u8 & 0x7f;
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// A function of the code section.
fn body(out: &mut Vec<u8>, body: &[u8]) {
    number(out, body.len() as u32);
    out.extend_from_slice(body);
}

/// What a module declares of its functions.
#[derive(Default)]
struct Types {
    types: Vec<SubType>,
    /// Of all functions, imports first.
    functions: Vec<u32>,
    imported: usize,
}

impl Types {
    fn of(module: &[u8]) -> Result<Self, Malformed> {
        let mut types = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(reader) => {
                    for group in reader {
                        types.types.extend(group?.into_types());
                        if types.types.len() > MOST_ITEMS {
                            return Err(Malformed);
                        }
                    }
                }
                Payload::ImportSection(reader) => {
                    for import in reader.into_imports() {
                        if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import?.ty {
                            types.functions.push(ty);
                        }
                    }
                    types.imported = types.functions.len();
                }
                Payload::FunctionSection(reader) => {
                    if reader.count() as usize > MOST_ITEMS {
                        return Err(Malformed);
                    }
                    for ty in reader {
                        types.functions.push(ty?);
                    }
                }
                _ => {}
            }
            if types.functions.len() > MOST_ITEMS {
                return Err(Malformed);
            }
        }
        Ok(types)
    }

    fn params(&self, function: usize) -> Option<&[ValType]> {
        match &self.types.get(*self.functions.get(function)? as usize)?.composite_type.inner {
            wasmparser::CompositeInnerType::Func(function) => Some(function.params()),
            _ => None,
        }
    }
}

/// The locals of a function: its params, and what it declares.
fn locals(body: &FunctionBody<'_>, params: &[ValType]) -> Result<Vec<ValType>, Malformed> {
    let mut locals = params.to_vec();
    for group in body.get_locals_reader()? {
        let (count, ty) = group?;
        if locals.len() + count as usize > MOST_LOCALS {
            return Err(Malformed);
        }
        locals.extend(std::iter::repeat_n(ty, count as usize));
    }
    Ok(locals)
}

#[cfg(test)]
mod tests;
