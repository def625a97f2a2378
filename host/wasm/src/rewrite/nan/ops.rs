//! The effect of each instruction on the bits of NaN.

use wasmparser::Operator;

/// The width and type of a lane of a vector, or of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    F32,
    F64,
}

impl Lane {
    pub(super) fn bit(self) -> u8 {
        match self {
            Self::F32 => 1,
            Self::F64 => 2,
        }
    }
}

/// The shape of a value: a scalar, or the lanes of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) lane: Lane,
    pub(super) is_vector: bool,
}

pub(super) const F32: Shape = Shape { lane: Lane::F32, is_vector: false };
pub(super) const F64: Shape = Shape { lane: Lane::F64, is_vector: false };
pub(super) const F32X4: Shape = Shape { lane: Lane::F32, is_vector: true };
pub(super) const F64X2: Shape = Shape { lane: Lane::F64, is_vector: true };

/// The effect of an instruction on floats. An instruction is "blind" if it does not distinguish
/// one NaN from another in lanes of the given width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Arithmetic: blind, and a NaN in the result may have any bits.
    Make {
        from: Lane,
        to: Shape,
    },
    /// Blind, and the result is not a float, or its bits are determined.
    Blind(Lane),
    /// Blind, and the result consists of masks of lanes.
    Compare(Lane),
    /// Observes all bits; the result consists of masks of lanes.
    Mask(Lane),
    /// Combines masks; for other operands all bits are observed.
    Logic,
    /// The bits of the first operand where the second is set, or where it is not: whole lanes if
    /// the second is a mask.
    Under,
    /// After a constant of one less than the width: masks of lanes, from their signs.
    Shift(Lane),
    /// Moves scalars or lanes of this width: all, or those that a comparison picks.
    Move(Lane),
    /// Removes the signs.
    Absolute(Lane),
    /// Changes the sign of the first operand, by the sign of the second if there is one.
    Sign(Lane),
    /// Moves lanes of this width, and with them narrower lanes.
    Shuffle(Lane),
    /// Lanes of two vectors, picked by a third.
    Pick,
    /// One of two values.
    Select,
    /// A constant or a number of which no lane of these widths (see [`Lane::bit`]) is NaN.
    Plain(u8),
    /// Observes all bits of the operands; the bits of the result are determined.
    Look,
    Drop,
    /// Control flow and locals, which `flow` handles.
    Flow,
    /// An instruction that is not known here.
    Unknown,
}

/// The widest lanes that a shuffle moves without splitting them.
fn granularity(lanes: &[u8; 16]) -> Option<Lane> {
    let whole = |width: usize| {
        lanes.chunks_exact(width).all(|run| {
            usize::from(run[0]).is_multiple_of(width) && run.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1))
        })
    };
    if whole(8) { Some(Lane::F64) } else { whole(4).then_some(Lane::F32) }
}

/// The widths in which no lane of a constant is NaN.
fn plain(bytes: [u8; 16]) -> u8 {
    let narrow = bytes.as_chunks::<4>().0.iter().all(|lane| !f32::from_le_bytes(*lane).is_nan());
    let wide = bytes.as_chunks::<8>().0.iter().all(|lane| !f64::from_le_bytes(*lane).is_nan());
    (if narrow { Lane::F32.bit() } else { 0 }) | (if wide { Lane::F64.bit() } else { 0 })
}

/// Whether an instruction belongs to the proposals that are followed here; other and future ones
/// may move values in other ways.
fn is_followed(op: &Operator<'_>) -> bool {
    macro_rules! proposal {
        ($(@$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*) )*) => {
            match op {
                $(Operator::$op { .. } => stringify!($proposal),)*
                _ => "",
            }
        };
    }
    let proposal: &str = wasmparser::for_each_operator!(proposal);
    matches!(
        proposal,
        "mvp"
            | "sign_extension"
            | "saturating_float_to_int"
            | "bulk_memory"
            | "reference_types"
            | "simd"
            | "relaxed_simd"
            | "wide_arithmetic"
    )
}

/// The effect of an instruction.
#[expect(clippy::too_many_lines, reason = "one match over all instructions")]
pub(super) fn effect(op: &Operator<'_>) -> Effect {
    use Effect::{Blind, Compare, Look, Make, Mask, Move, Plain};
    use Operator as O;
    match op {
        O::F32Add
        | O::F32Sub
        | O::F32Mul
        | O::F32Div
        | O::F32Min
        | O::F32Max
        | O::F32Sqrt
        | O::F32Ceil
        | O::F32Floor
        | O::F32Trunc
        | O::F32Nearest => Make { from: Lane::F32, to: F32 },
        O::F64Add
        | O::F64Sub
        | O::F64Mul
        | O::F64Div
        | O::F64Min
        | O::F64Max
        | O::F64Sqrt
        | O::F64Ceil
        | O::F64Floor
        | O::F64Trunc
        | O::F64Nearest => Make { from: Lane::F64, to: F64 },
        O::F32DemoteF64 => Make { from: Lane::F64, to: F32 },
        O::F64PromoteF32 => Make { from: Lane::F32, to: F64 },
        O::F32x4Add
        | O::F32x4Sub
        | O::F32x4Mul
        | O::F32x4Div
        | O::F32x4Min
        | O::F32x4Max
        | O::F32x4Sqrt
        | O::F32x4Ceil
        | O::F32x4Floor
        | O::F32x4Trunc
        | O::F32x4Nearest
        | O::F32x4RelaxedMadd
        | O::F32x4RelaxedNmadd
        | O::F32x4RelaxedMin
        | O::F32x4RelaxedMax => Make { from: Lane::F32, to: F32X4 },
        O::F64x2Add
        | O::F64x2Sub
        | O::F64x2Mul
        | O::F64x2Div
        | O::F64x2Min
        | O::F64x2Max
        | O::F64x2Sqrt
        | O::F64x2Ceil
        | O::F64x2Floor
        | O::F64x2Trunc
        | O::F64x2Nearest
        | O::F64x2RelaxedMadd
        | O::F64x2RelaxedNmadd
        | O::F64x2RelaxedMin
        | O::F64x2RelaxedMax => Make { from: Lane::F64, to: F64X2 },
        O::F32x4DemoteF64x2Zero => Make { from: Lane::F64, to: F32X4 },
        O::F64x2PromoteLowF32x4 => Make { from: Lane::F32, to: F64X2 },

        O::F32Eq
        | O::F32Ne
        | O::F32Lt
        | O::F32Gt
        | O::F32Le
        | O::F32Ge
        | O::I32TruncF32S
        | O::I32TruncF32U
        | O::I64TruncF32S
        | O::I64TruncF32U
        | O::I32TruncSatF32S
        | O::I32TruncSatF32U
        | O::I64TruncSatF32S
        | O::I64TruncSatF32U
        | O::I32x4TruncSatF32x4S
        | O::I32x4TruncSatF32x4U
        | O::I32x4RelaxedTruncF32x4S
        | O::I32x4RelaxedTruncF32x4U => Blind(Lane::F32),
        O::F64Eq
        | O::F64Ne
        | O::F64Lt
        | O::F64Gt
        | O::F64Le
        | O::F64Ge
        | O::I32TruncF64S
        | O::I32TruncF64U
        | O::I64TruncF64S
        | O::I64TruncF64U
        | O::I32TruncSatF64S
        | O::I32TruncSatF64U
        | O::I64TruncSatF64S
        | O::I64TruncSatF64U
        | O::I32x4TruncSatF64x2SZero
        | O::I32x4TruncSatF64x2UZero
        | O::I32x4RelaxedTruncF64x2SZero
        | O::I32x4RelaxedTruncF64x2UZero => Blind(Lane::F64),

        O::F32x4Eq | O::F32x4Ne | O::F32x4Lt | O::F32x4Gt | O::F32x4Le | O::F32x4Ge => Compare(Lane::F32),
        O::F64x2Eq | O::F64x2Ne | O::F64x2Lt | O::F64x2Gt | O::F64x2Le | O::F64x2Ge => Compare(Lane::F64),
        O::I32x4Eq
        | O::I32x4Ne
        | O::I32x4LtS
        | O::I32x4LtU
        | O::I32x4GtS
        | O::I32x4GtU
        | O::I32x4LeS
        | O::I32x4LeU
        | O::I32x4GeS
        | O::I32x4GeU => Mask(Lane::F32),
        O::I64x2Eq | O::I64x2Ne | O::I64x2LtS | O::I64x2GtS | O::I64x2LeS | O::I64x2GeS => Mask(Lane::F64),
        O::V128Or | O::V128Xor | O::V128Not => Effect::Logic,
        O::V128And | O::V128AndNot => Effect::Under,
        O::I32x4ShrS => Effect::Shift(Lane::F32),
        O::I64x2ShrS => Effect::Shift(Lane::F64),

        O::F32x4Splat | O::F32x4ExtractLane { .. } | O::F32x4ReplaceLane { .. } | O::F32x4PMin | O::F32x4PMax => {
            Move(Lane::F32)
        }
        O::F32Abs | O::F32x4Abs => Effect::Absolute(Lane::F32),
        O::F64x2Splat | O::F64x2ExtractLane { .. } | O::F64x2ReplaceLane { .. } | O::F64x2PMin | O::F64x2PMax => {
            Move(Lane::F64)
        }
        O::F64Abs | O::F64x2Abs => Effect::Absolute(Lane::F64),
        O::F32Neg | O::F32x4Neg | O::F32Copysign => Effect::Sign(Lane::F32),
        O::F64Neg | O::F64x2Neg | O::F64Copysign => Effect::Sign(Lane::F64),
        O::I8x16Shuffle { lanes } => granularity(lanes).map_or(Look, Effect::Shuffle),
        O::V128Bitselect => Effect::Pick,
        O::Select | O::TypedSelect { .. } => Effect::Select,

        O::F32Const { value } => Plain(if f32::from_bits(value.bits()).is_nan() { 0 } else { Lane::F32.bit() }),
        O::F64Const { value } => Plain(if f64::from_bits(value.bits()).is_nan() { 0 } else { Lane::F64.bit() }),
        O::V128Const { value } => Plain(plain(*value.bytes())),
        O::F32ConvertI32S
        | O::F32ConvertI32U
        | O::F32ConvertI64S
        | O::F32ConvertI64U
        | O::F32x4ConvertI32x4S
        | O::F32x4ConvertI32x4U => Plain(Lane::F32.bit()),
        O::F64ConvertI32S
        | O::F64ConvertI32U
        | O::F64ConvertI64S
        | O::F64ConvertI64U
        | O::F64x2ConvertLowI32x4S
        | O::F64x2ConvertLowI32x4U => Plain(Lane::F64.bit()),

        O::Drop => Effect::Drop,
        O::Unreachable
        | O::Block { .. }
        | O::Loop { .. }
        | O::If { .. }
        | O::Else
        | O::End
        | O::Br { .. }
        | O::BrIf { .. }
        | O::BrTable { .. }
        | O::Return
        | O::LocalGet { .. }
        | O::LocalSet { .. }
        | O::LocalTee { .. } => Effect::Flow,
        op if is_followed(op) => Look,
        _ => Effect::Unknown,
    }
}
