//! Gives NaN one form wherever its bits can be observed, at no cost elsewhere.
//!
//! The bits of a NaN that arithmetic produces depend on the processor. The compiler can give
//! every NaN one form (`cranelift_nan_canonicalization`), with three instructions after every
//! operation. But as long as a value only goes into other arithmetic and comparisons, its bits
//! cannot be observed. So components are rewritten before they are compiled: these instructions
//! are added only where the bits of a result can be observed (they are stored, cast or passed to
//! a function, or their sign is checked). All bits that can be observed are the same as with the
//! compiler's canonicalization: `tests` compares the two.
//!
//! ```text
//! module → functions
//!     flow    follows the values of a function, with `ops`, and builds
//!     graph   where each value comes from, and where its bits are observed; it gives the places
//!     here    the function is rewritten, with the instructions at these places
//! ```
//!
//! Before that, relaxed minima and maxima are replaced by the pseudo ones, `b < a ? b : a`. The
//! specification allows this meaning, among others, and it is the one that programs are written
//! with: LLVM emits them for such comparisons, which define the result for NaN and for zeroes.
//! The compiler's own deterministic form differs.
//!
//! A function that contains what is not followed (exceptions, tail calls), or that is too large,
//! gets the instructions after every operation.

mod flow;
mod graph;
mod ops;

use std::borrow::Cow;
use std::collections::HashMap;

use wasmparser::{BinaryReader, FunctionBody, Operator, ValType};

use super::binary::{
    HEAD, MAX_FUNCTION_BYTES, Malformed, Types, body as function_body, locals, number, section, sections,
};
use super::op::{LOCAL_GET, LOCAL_TEE};
use flow::Lost;
use ops::{Effect, Lane, Shape};

/// A module whose NaNs have one form wherever they can be observed.
///
/// # Errors
/// When the bytes are not a module; not every fault is found here.
pub(super) fn in_one_form(module: &[u8]) -> Result<Vec<u8>, Malformed> {
    let types = Types::of(module)?;
    let mut out = module.get(..HEAD).ok_or(Malformed)?.to_vec();
    for found in sections(module)? {
        let (id, content) = found?;
        match id {
            CODE => section(&mut out, id, &code(content, &types)?)?,
            // Hints refer to instructions by their offsets, which change.
            CUSTOM if is_about_code(content) => {}
            _ => section(&mut out, id, content)?,
        }
    }
    Ok(out)
}

const CODE: u8 = 10;
const CUSTOM: u8 = 0;

fn is_about_code(custom: &[u8]) -> bool {
    BinaryReader::new(custom, 0).read_string().is_ok_and(|name| name.starts_with("metadata.code."))
}

fn code(content: &[u8], types: &Types) -> Result<Vec<u8>, Malformed> {
    let mut reader = BinaryReader::new(content, 0);
    let count = reader.read_var_u32()?;
    let mut out = Vec::with_capacity(content.len() + content.len() / 8);
    number(&mut out, count);
    let mut budget = flow::ALL_LOOKS;
    for index in 0..count {
        let size = reader.read_var_u32()? as usize;
        let body = reader.read_bytes(size)?;
        if size > MAX_FUNCTION_BYTES {
            return Err(Malformed);
        }
        let function = types.imported as u32 + index;
        let body = with_pseudo_minima(body)?;
        match body_of(&body, function, types, &mut budget)? {
            None => function_body(&mut out, &body),
            Some(changed) => function_body(&mut out, &changed),
        }
    }
    Ok(out)
}

const SIMD: u8 = 0xfd;

/// The function with pseudo minima and maxima instead of relaxed ones.
fn with_pseudo_minima(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
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

/// The function with the instructions that it needs; `None` if it needs none.
fn body_of(bytes: &[u8], function: u32, types: &Types, budget: &mut usize) -> Result<Option<Vec<u8>>, Malformed> {
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
    match flow::places(types, function, &locals, params.len(), budget, body.get_operators_reader()?.into_iter()) {
        Ok(found) => {
            let made = found.made.into_iter().filter_map(|at| Some((at, *places.get(&at)?)));
            places = made.collect();
            let shape = |(at, lane): (u32, Lane)| (at, Shape { lane, is_vector: false });
            places.extend(found.read.into_iter().map(shape));
        }
        // Then after every operation.
        Err(Lost::Unknown) => {}
        Err(Lost::Invalid) => return Err(Malformed),
    }
    if places.is_empty() {
        return Ok(None);
    }
    write(bytes, &body, &locals, &places).map(Some)
}

/// The function with the instructions that give NaN one form after the instructions with these
/// indices, and with one more local.
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
                // The type of a local decides its shape.
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

/// Gives the NaNs of the value on top of the stack one form: `x == x ? x : NaN` in each lane.
fn one_form(out: &mut Vec<u8>, shape: Shape, spare: u32) {
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
