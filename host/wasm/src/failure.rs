//! Converts the error that ended a guest into the failure of its task.

use millrace_tables::ChunkError;
use millrace_types::{ByteSize, Failure, Limits};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::{I32Exit, ResourceTableError};

use crate::text::sanitize;
use crate::trap::{EmitError, Stop};

/// The error of an instantiation: unless the guest exceeded a limit, the system has no room for
/// it.
pub(crate) fn not_instantiated(error: wasmtime::Error) -> wasmtime::Error {
    if error.is::<Stop>() || error.is::<Trap>() {
        return error;
    }
    wasmtime::Error::new(ChunkError::Io(format!("the system has no room for a guest: {}", error.root_cause())))
}

/// Whether a guest must restart with checks in all loops.
pub(crate) fn needs_loop_checks<R>(answer: &wasmtime::Result<R>) -> bool {
    answer.as_ref().is_err_and(|error| error.downcast_ref() == Some(&Stop::NeedsLoopChecks))
}

pub(crate) fn emit_failure(error: EmitError) -> Failure {
    match error {
        EmitError::Misuse(message) => Failure::Misuse { message },
        EmitError::Chunk(error) => Failure::Host { message: error.to_string() },
    }
}

/// The names of the functions from the innermost outward, without hashes and without the panic
/// machinery.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    let plumbing = [
        "rust_panic",
        "core::panicking",
        "std::panicking",
        "rustc::",
        "__rust",
        "std::sys::backtrace",
        "alloc::raw_vec::handle_error",
    ];
    let names = trace.frames().iter().filter_map(|frame| frame.func_name());
    let names = names.map(|name| format!("{:#}", rustc_demangle::demangle(name)));
    names
        .filter(|name| !plumbing.iter().any(|prefix| name.starts_with(prefix)))
        .take(20)
        .map(|name| sanitize(name, 300))
        .collect()
}

pub(crate) fn failure(error: &wasmtime::Error, limits: &Limits, panic: Option<String>) -> Failure {
    let backtrace = backtrace(error);
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Memory { wanted } => Failure::Memory { limit: limits.memory, wanted: ByteSize(*wanted), backtrace },
            Stop::Fuel => Failure::Fuel { limit: limits.fuel, backtrace },
            Stop::Time => Failure::Time { limit: limits.time, backtrace },
            Stop::Cancelled | Stop::PeerFailed | Stop::NeedsLoopChecks => Failure::Cancelled,
        };
    }
    if let Some(misuse) = error.downcast_ref::<EmitError>() {
        return emit_failure(misuse.clone());
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Failure::Trap { message: format!("it ended itself with the exit code {code}"), backtrace };
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Failure::Misuse { message: "it holds too many streams, files or pollables at a time".to_owned() };
    }
    if let Some(error) = error.downcast_ref::<ChunkError>() {
        return Failure::Host { message: error.to_string() };
    }
    match (error.downcast_ref::<Trap>(), panic) {
        (Some(Trap::OutOfFuel), _) => Failure::Fuel { limit: limits.fuel, backtrace },
        (_, Some(panic)) => Failure::Trap { message: panic, backtrace },
        (Some(Trap::StackOverflow), None) => {
            Failure::Trap { message: "its stack overflowed, for instance by endless recursion".to_owned(), backtrace }
        }
        (Some(trap), None) => Failure::Trap { message: trap.to_string(), backtrace },
        // The canonical ABI refused the values that the guest passed.
        (None, None) => Failure::Misuse {
            message: format!("it violated the canonical ABI: {}", sanitize(format!("{}", error.root_cause()), 400)),
        },
    }
}
