//! NaN has one form wherever somebody can tell, and costs nothing elsewhere.
//!
//! Which bits a NaN has that comes of arithmetic depends on the processor. The compiler can
//! give each of them one form (`cranelift_nan_canonicalization`), by three instructions
//! behind every operation. But as long as a value only goes into other arithmetic and comparisons,
//! nobody can tell. So components are rewritten before they are compiled: where the bits of
//! a result can come to be seen (they are stored, cast, passed to a function, their sign is
//! looked at), and only there, these instructions stand in the code. Every bit that can be
//! seen is as with the compiler's own way: `tests` holds one against the other.
//!
//! ```text
//! component → core modules → functions
//!     flow    follows the values of a function, by `ops`, into
//!     graph   where each comes from, and who sees it; out of it come the places
//!     here    the function is written again, with more at these places
//! ```
//!
//! Relaxed minima and maxima become the pseudo ones, `b < a ? b : a`, before all that. That is one of
//! the meanings that the specification leaves open, and the one that they are written with:
//! LLVM makes them of such comparisons, which say what becomes of NaN and of zeroes, and the
//! compiler's own deterministic form says otherwise.
//!
//! A function that does what is not followed (exceptions, tail calls) or is too large gets
//! them behind every operation. What is no WebAssembly is left as it is, for the compiler to
//! say what is wrong.

mod flow;
mod graph;
mod ops;

use std::borrow::Cow;
use std::collections::HashMap;

use wasmparser::{BinaryReader, FunctionBody, Operator, Parser, Payload, TypeRef, ValType};

use flow::{Lost, Types};
use ops::{Effect, Lane, Shape};

/// Of what is written: code that another version has made is compiled anew.
pub(crate) const VERSION: u32 = 3;

/// Components in components, and modules in those.
const DEPTH: usize = 200;

/// As many types or functions, and bytes of a function, as a compiler takes.
const MOST_ITEMS: usize = 1_000_000;
const MOST_BYTES: usize = 7_654_321;

/// The bytes of a component or module are no such thing.
#[derive(Debug)]
pub(crate) struct Malformed;

impl From<wasmparser::BinaryReaderError> for Malformed {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self
    }
}

/// A component whose NaNs have one form wherever they can be seen.
///
/// # Errors
/// When it is none; not every fault is found here.
pub(crate) fn in_one_form(component: &[u8]) -> Result<Vec<u8>, Malformed> {
    rewritten(component, DEPTH)
}

const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
const CODE: u8 = 10;
const CUSTOM: u8 = 0;

fn rewritten(bytes: &[u8], depth: usize) -> Result<Vec<u8>, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let is_module = bytes.get(4..8) == Some(&[1, 0, 0, 0]);
    let types = if is_module { types(bytes)? } else { Types::default() };
    let mut out = bytes.get(..8).ok_or(Malformed)?.to_vec();
    let mut reader = BinaryReader::new(&bytes[8..], 0);
    while !reader.eof() {
        let id = reader.read_u8()?;
        let size = reader.read_var_u32()? as usize;
        let content = reader.read_bytes(size)?;
        match (is_module, id) {
            (false, CORE_MODULE | COMPONENT) => section(&mut out, id, &rewritten(content, depth)?)?,
            (true, CODE) => section(&mut out, id, &code(content, &types)?)?,
            // Hints that name instructions by their place.
            (true, CUSTOM) if is_about_code(content) => {}
            _ => section(&mut out, id, content)?,
        }
    }
    Ok(out)
}

fn is_about_code(custom: &[u8]) -> bool {
    BinaryReader::new(custom, 0).read_string().is_ok_and(|name| name.starts_with("metadata.code."))
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

/// What a module declares that says how many values its instructions take.
fn types(module: &[u8]) -> Result<Types, Malformed> {
    let mut types = Types::default();
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

fn code(content: &[u8], types: &Types) -> Result<Vec<u8>, Malformed> {
    let mut reader = BinaryReader::new(content, 0);
    let count = reader.read_var_u32()?;
    let mut out = Vec::with_capacity(content.len() + content.len() / 8);
    number(&mut out, count);
    let mut looks = flow::ALL_LOOKS;
    for place in 0..count {
        let size = reader.read_var_u32()? as usize;
        let body = reader.read_bytes(size)?;
        if size > MOST_BYTES {
            return Err(Malformed);
        }
        let function = types.imported as u32 + place;
        let body = decided(body)?;
        match body_of(&body, function, types, &mut looks)? {
            None => section_body(&mut out, &body),
            Some(changed) => section_body(&mut out, &changed),
        }
    }
    Ok(out)
}

const SIMD: u8 = 0xfd;

/// The function with pseudo minima and maxima for relaxed ones.
fn decided(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let mut reader = FunctionBody::new(BinaryReader::new(bytes, 0)).get_operators_reader()?;
    let (mut out, mut copied) = (Vec::new(), 0);
    while !reader.eof() {
        let start = reader.original_position() as usize;
        let pseudo = match reader.read()? {
            Operator::F32x4RelaxedMin => 0xea,
            Operator::F32x4RelaxedMax => 0xeb,
            Operator::F64x2RelaxedMin => 0xf6,
            Operator::F64x2RelaxedMax => 0xf7,
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..start]);
        out.push(SIMD);
        number(&mut out, pseudo);
        copied = reader.original_position() as usize;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(bytes));
    }
    out.extend_from_slice(&bytes[copied..]);
    Ok(Cow::Owned(out))
}

fn section_body(out: &mut Vec<u8>, body: &[u8]) {
    number(out, body.len() as u32);
    out.extend_from_slice(body);
}

/// The locals of a function: its params, and what it declares.
fn locals(body: &FunctionBody<'_>, params: &[ValType]) -> Result<Vec<ValType>, Malformed> {
    /// As many as a compiler takes.
    const MOST: usize = 50_000;
    let mut locals = params.to_vec();
    for group in body.get_locals_reader()? {
        let (count, ty) = group?;
        if locals.len() + count as usize > MOST {
            return Err(Malformed);
        }
        locals.extend(std::iter::repeat_n(ty, count as usize));
    }
    Ok(locals)
}

/// A function with more instructions, if it needs any.
fn body_of(bytes: &[u8], function: u32, types: &Types, looks: &mut usize) -> Result<Option<Vec<u8>>, Malformed> {
    let body = FunctionBody::new(BinaryReader::new(bytes, 0));
    let params = types.params(function as usize).ok_or(Malformed)?;
    let locals = locals(&body, params)?;
    let mut places: HashMap<u32, Shape> = HashMap::new();
    for (at, op) in (0u32..).zip(body.get_operators_reader()?) {
        if let Effect::Make { to, .. } = ops::effect(&op?) {
            places.insert(at, to);
        }
    }
    if places.is_empty() {
        return Ok(None);
    }
    match flow::places(types, function, &locals, params.len(), looks, body.get_operators_reader()?.into_iter()) {
        Ok(found) => {
            let made = found.made.into_iter().filter_map(|at| Some((at, *places.get(&at)?)));
            places = made.collect();
            let shape = |(at, lane): (u32, Lane)| (at, Shape { lane, is_vector: false });
            places.extend(found.read.into_iter().map(shape));
        }
        // Behind every operation, then.
        Err(Lost::Unknown) => {}
        Err(Lost::Invalid) => return Err(Malformed),
    }
    if places.is_empty() {
        return Ok(None);
    }
    write(bytes, &body, &locals, &places).map(Some)
}

/// The function with what gives NaN one form behind the instructions at these places, and
/// a local more.
fn write(
    bytes: &[u8],
    body: &FunctionBody<'_>,
    locals: &[ValType],
    places: &HashMap<u32, Shape>,
) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(bytes.len() + places.len() * 40 + 8);
    let mut reader = BinaryReader::new(bytes, 0);
    let groups = reader.read_var_u32()?;
    let declared = reader.original_position() as usize;
    let mut reader = body.get_operators_reader()?;
    let mut start = reader.original_position() as usize;
    number(&mut out, groups + 1);
    out.extend_from_slice(&bytes[declared..start]);
    number(&mut out, 1);
    out.push(V128);
    let spare = locals.len() as u32;
    for at in 0u32.. {
        if reader.eof() {
            break;
        }
        let op = reader.read()?;
        let end = reader.original_position() as usize;
        out.extend_from_slice(&bytes[start..end]);
        start = end;
        if let Some(shape) = places.get(&at) {
            let shape = match op {
                // What a local holds is told by its type.
                Operator::LocalGet { local_index } => {
                    let is_vector = locals.get(local_index as usize) == Some(&ValType::V128);
                    Shape { is_vector, ..*shape }
                }
                _ => *shape,
            };
            one_form(&mut out, shape, spare);
        }
    }
    Ok(out)
}

const V128: u8 = 0x7b;

/// Gives the NaNs of what lies on the stack one form: `x = x ? x : NaN` in each lane.
fn one_form(out: &mut Vec<u8>, shape: Shape, spare: u32) {
    const LOCAL_GET: u8 = 0x20;
    const LOCAL_TEE: u8 = 0x22;
    const CONST: u8 = 0x0c;
    const BITSELECT: u8 = 0x52;
    let (splat, equal, extract) = match shape.lane {
        Lane::F32 => (0x13, 0x41, 0x1f),
        Lane::F64 => (0x14, 0x47, 0x21),
    };
    if !shape.is_vector {
        out.extend([SIMD, splat]);
    }
    out.push(LOCAL_TEE);
    number(out, spare);
    out.extend([SIMD, CONST]);
    match shape.lane {
        Lane::F32 => (0..4).for_each(|_| out.extend(0x7fc0_0000_u32.to_le_bytes())),
        Lane::F64 => (0..2).for_each(|_| out.extend(0x7ff8_0000_0000_0000_u64.to_le_bytes())),
    }
    for _ in 0..2 {
        out.push(LOCAL_GET);
        number(out, spare);
    }
    out.extend([SIMD, equal, SIMD, BITSELECT]);
    if !shape.is_vector {
        out.extend([SIMD, extract, 0]);
    }
}

#[cfg(test)]
mod tests;
