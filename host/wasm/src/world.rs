//! The types of `wit/step.wit`, as wasmtime lifts and lowers them.
//!
//! Written by hand instead of generated: a column is passed to a guest with one copy (`Bytes`),
//! and a column of a guest is read in its memory (`WasmList`). wasmtime checks these types
//! against the component when it links it.

use bytes::Bytes;
use millrace_tables::Block;
use millrace_types as types;
use millrace_types::{ColumnName, Field};
use wasmtime::component::{ComponentType, Lift, Lower, WasmList};

use crate::collective::Reduction;

/// Resource `task`.
pub(crate) struct TaskRep;
/// Resource `table`; its number is the handle of the table in the task.
pub(crate) struct TableRep;
/// Resource `blob`; its number is the handle of the blob in the task.
pub(crate) struct BlobRep;

#[derive(ComponentType, Lift, Lower, Clone, Copy, PartialEq)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum TimeUnit {
    #[component(name = "second")]
    Second,
    #[component(name = "millisecond")]
    Millisecond,
    #[component(name = "microsecond")]
    Microsecond,
    #[component(name = "nanosecond")]
    Nanosecond,
}

#[derive(ComponentType, Lift, Lower, Clone)]
#[component(record)]
pub(crate) struct TimestampType {
    unit: TimeUnit,
    zone: Option<String>,
}

#[derive(ComponentType, Lift, Lower, Clone)]
#[component(variant)]
pub(crate) enum DataType {
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "int8")]
    Int8,
    #[component(name = "int16")]
    Int16,
    #[component(name = "int32")]
    Int32,
    #[component(name = "int64")]
    Int64,
    #[component(name = "uint8")]
    UInt8,
    #[component(name = "uint16")]
    UInt16,
    #[component(name = "uint32")]
    UInt32,
    #[component(name = "uint64")]
    UInt64,
    #[component(name = "float32")]
    Float32,
    #[component(name = "float64")]
    Float64,
    #[component(name = "utf8")]
    Utf8,
    #[component(name = "binary")]
    Binary,
    #[component(name = "date32")]
    Date32,
    #[component(name = "timestamp")]
    Timestamp(TimestampType),
}

#[derive(ComponentType, Lift, Lower, Clone)]
#[component(record)]
pub(crate) struct WitField {
    pub(crate) name: String,
    #[component(name = "data-type")]
    pub(crate) data_type: DataType,
    pub(crate) nullable: bool,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy, PartialEq)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted by wasmtime, never made here")]
pub(crate) enum WitPortKind {
    #[component(name = "table")]
    Table,
    #[component(name = "blob")]
    Blob,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy, PartialEq)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted by wasmtime, never made here")]
pub(crate) enum WitMode {
    #[component(name = "map")]
    Map,
    #[component(name = "fold")]
    Fold,
    #[component(name = "whole")]
    Whole,
    #[component(name = "rounds")]
    Rounds,
}

#[derive(ComponentType, Lift, Clone, Copy, PartialEq)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted by wasmtime, never made here")]
pub(crate) enum WitReduction {
    #[component(name = "sum")]
    Sum,
    #[component(name = "min")]
    Min,
    #[component(name = "max")]
    Max,
    #[component(name = "before")]
    Before,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy, PartialEq)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum WitPhase {
    #[component(name = "map")]
    Map,
    #[component(name = "whole")]
    Whole,
    #[component(name = "partial")]
    Partial,
    #[component(name = "merge")]
    Merge,
    #[component(name = "rounds")]
    Rounds,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct InputPort {
    pub(crate) name: String,
    pub(crate) kind: WitPortKind,
    pub(crate) doc: String,
    pub(crate) optional: bool,
    pub(crate) many: bool,
    pub(crate) mapped: bool,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct OutputPort {
    pub(crate) name: String,
    pub(crate) kind: WitPortKind,
    pub(crate) doc: String,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct WitLimits {
    #[component(name = "memory-bytes")]
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) fuel: Option<u64>,
    #[component(name = "time-ms")]
    pub(crate) time_ms: Option<u64>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct WitManifest {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) doc: String,
    pub(crate) mode: WitMode,
    pub(crate) inputs: Vec<InputPort>,
    pub(crate) outputs: Vec<OutputPort>,
    #[component(name = "params-schema")]
    pub(crate) params_schema: String,
    pub(crate) limits: WitLimits,
}

#[derive(ComponentType, Lower, Clone)]
#[component(record)]
pub(crate) struct PortSchema {
    pub(crate) port: String,
    pub(crate) schema: Option<Vec<WitField>>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct PortReads {
    pub(crate) port: String,
    pub(crate) columns: Vec<String>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct ColumnSource {
    pub(crate) port: String,
    pub(crate) column: String,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct WitOutputField {
    pub(crate) field: WitField,
    pub(crate) source: Option<ColumnSource>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct PassThrough {
    pub(crate) port: String,
    pub(crate) without: Vec<String>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct OutputSchema {
    pub(crate) port: String,
    pub(crate) fields: Option<Vec<WitOutputField>>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct WitStepPlan {
    pub(crate) mode: Option<WitMode>,
    pub(crate) reads: Vec<PortReads>,
    pub(crate) outputs: Vec<OutputSchema>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct WitProblem {
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    pub(crate) missing: Option<String>,
    pub(crate) candidates: Vec<String>,
    pub(crate) span: Option<(u32, u32)>,
}

#[derive(ComponentType, Lift, Clone)]
#[component(record)]
pub(crate) struct WitFailure {
    pub(crate) message: String,
    pub(crate) column: Option<String>,
    pub(crate) row: Option<u64>,
}

/// A column that is passed to a guest, with one copy from the mapped file.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct ColumnOut {
    pub(crate) len: u64,
    #[component(name = "null-count")]
    pub(crate) null_count: u64,
    pub(crate) validity: Option<Bytes>,
    pub(crate) offsets: Option<Bytes>,
    pub(crate) values: Bytes,
}

impl From<Block> for ColumnOut {
    fn from(block: Block) -> Self {
        let Block { rows, null_count, validity, offsets, values } = block;
        Self { len: rows as u64, null_count: null_count as u64, validity, offsets, values }
    }
}

/// A column that a guest describes, still in its memory.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct ColumnIn {
    pub(crate) len: u64,
    #[component(name = "null-count")]
    pub(crate) null_count: u64,
    pub(crate) validity: Option<WasmList<u8>>,
    pub(crate) offsets: Option<WasmList<u8>>,
    pub(crate) values: WasmList<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct SelectionMask {
    pub(crate) port: String,
    pub(crate) bits: WasmList<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct SelectionTake {
    pub(crate) port: String,
    pub(crate) indices: ColumnIn,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum PartRows {
    #[component(name = "same-rows")]
    SameRows(String),
    #[component(name = "mask")]
    Mask(SelectionMask),
    #[component(name = "take")]
    Take(Vec<SelectionTake>),
    #[component(name = "rows")]
    Rows(u64),
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted by wasmtime, never made here")]
pub(crate) enum WitLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<WitLevel> for types::Level {
    fn from(level: WitLevel) -> Self {
        match level {
            WitLevel::Debug => Self::Debug,
            WitLevel::Info => Self::Info,
            WitLevel::Warn => Self::Warn,
            WitLevel::Error => Self::Error,
        }
    }
}

impl From<WitReduction> for Reduction {
    fn from(reduction: WitReduction) -> Self {
        match reduction {
            WitReduction::Sum => Self::Sum,
            WitReduction::Min => Self::Min,
            WitReduction::Max => Self::Max,
            WitReduction::Before => Self::ExclusiveScan,
        }
    }
}

impl From<types::Phase> for WitPhase {
    fn from(phase: types::Phase) -> Self {
        match phase {
            types::Phase::Map => Self::Map,
            types::Phase::Whole => Self::Whole,
            types::Phase::Partial => Self::Partial,
            types::Phase::Merge => Self::Merge,
            types::Phase::Rounds => Self::Rounds,
        }
    }
}

impl From<&types::DataType> for DataType {
    fn from(data_type: &types::DataType) -> Self {
        use types::DataType as T;
        match data_type {
            T::Boolean => Self::Boolean,
            T::Int8 => Self::Int8,
            T::Int16 => Self::Int16,
            T::Int32 => Self::Int32,
            T::Int64 => Self::Int64,
            T::UInt8 => Self::UInt8,
            T::UInt16 => Self::UInt16,
            T::UInt32 => Self::UInt32,
            T::UInt64 => Self::UInt64,
            T::Float32 => Self::Float32,
            T::Float64 => Self::Float64,
            T::Utf8 => Self::Utf8,
            T::Binary => Self::Binary,
            T::Date32 => Self::Date32,
            T::Timestamp(unit, zone) => {
                let unit = match unit {
                    types::TimeUnit::Second => TimeUnit::Second,
                    types::TimeUnit::Millisecond => TimeUnit::Millisecond,
                    types::TimeUnit::Microsecond => TimeUnit::Microsecond,
                    types::TimeUnit::Nanosecond => TimeUnit::Nanosecond,
                };
                Self::Timestamp(TimestampType { unit, zone: zone.clone() })
            }
        }
    }
}

impl From<DataType> for types::DataType {
    fn from(data_type: DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::UInt8 => Self::UInt8,
            DataType::UInt16 => Self::UInt16,
            DataType::UInt32 => Self::UInt32,
            DataType::UInt64 => Self::UInt64,
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Utf8 => Self::Utf8,
            DataType::Binary => Self::Binary,
            DataType::Date32 => Self::Date32,
            DataType::Timestamp(TimestampType { unit, zone }) => {
                let unit = match unit {
                    TimeUnit::Second => types::TimeUnit::Second,
                    TimeUnit::Millisecond => types::TimeUnit::Millisecond,
                    TimeUnit::Microsecond => types::TimeUnit::Microsecond,
                    TimeUnit::Nanosecond => types::TimeUnit::Nanosecond,
                };
                Self::Timestamp(unit, zone)
            }
        }
    }
}

impl From<&Field> for WitField {
    fn from(field: &Field) -> Self {
        Self { name: field.name.to_string(), data_type: (&field.data_type).into(), nullable: field.nullable }
    }
}

impl From<WitField> for Field {
    fn from(field: WitField) -> Self {
        Self { name: ColumnName::new(&field.name), data_type: field.data_type.into(), nullable: field.nullable }
    }
}
