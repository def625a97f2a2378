//! Reads and writes the binary format of modules and components: sections, numbers, the types of
//! functions. It knows nothing of the rewriting.

use wasmparser::{BinaryReader, FunctionBody, Parser, Payload, SubType, TypeRef, ValType};

/// The limits of the compiler: types or functions of a module, bytes of a function, and locals.
pub(super) const MAX_ITEMS: usize = 1_000_000;
pub(super) const MAX_FUNCTION_BYTES: usize = 7_654_321;
pub(super) const MOST_LOCALS: usize = 50_000;

/// The bytes are not a component or module.
#[derive(Debug)]
pub(crate) struct Malformed;

impl From<wasmparser::BinaryReaderError> for Malformed {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self
    }
}

/// Bytes before the first section.
pub(super) const HEAD: usize = 8;

pub(super) fn is_module(bytes: &[u8]) -> bool {
    bytes.get(4..HEAD) == Some(&[1, 0, 0, 0])
}

/// The sections of a module or component: the id and the content of each.
pub(super) fn sections<'b>(
    bytes: &'b [u8],
) -> Result<impl Iterator<Item = Result<(u8, &'b [u8]), Malformed>>, Malformed> {
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

pub(super) fn section(out: &mut Vec<u8>, id: u8, content: &[u8]) -> Result<(), Malformed> {
    out.push(id);
    number(out, u32::try_from(content.len()).map_err(|_| Malformed)?);
    out.extend_from_slice(content);
    Ok(())
}

/// Appends an unsigned LEB128 number.
pub(super) fn number(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed LEB128 number.
pub(super) fn signed(out: &mut Vec<u8>, mut value: i64) {
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

/// Appends a function of the code section.
pub(super) fn body(out: &mut Vec<u8>, body: &[u8]) {
    number(out, body.len() as u32);
    out.extend_from_slice(body);
}

/// The types and functions of a module.
#[derive(Default)]
pub(super) struct Types {
    pub(super) types: Vec<SubType>,
    /// The types of all functions, imports first.
    pub(super) functions: Vec<u32>,
    pub(super) imported: usize,
}

impl Types {
    pub(super) fn of(module: &[u8]) -> Result<Self, Malformed> {
        let mut types = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(reader) => {
                    for group in reader {
                        types.types.extend(group?.into_types());
                        if types.types.len() > MAX_ITEMS {
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
                    if reader.count() as usize > MAX_ITEMS {
                        return Err(Malformed);
                    }
                    for ty in reader {
                        types.functions.push(ty?);
                    }
                }
                _ => {}
            }
            if types.functions.len() > MAX_ITEMS {
                return Err(Malformed);
            }
        }
        Ok(types)
    }

    pub(super) fn params(&self, function: usize) -> Option<&[ValType]> {
        match &self.types.get(*self.functions.get(function)? as usize)?.composite_type.inner {
            wasmparser::CompositeInnerType::Func(function) => Some(function.params()),
            _ => None,
        }
    }
}

/// The types of the locals of a function: its params, then those that it declares.
pub(super) fn locals(body: &FunctionBody<'_>, params: &[ValType]) -> Result<Vec<ValType>, Malformed> {
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
