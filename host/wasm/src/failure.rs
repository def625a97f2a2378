//! From how a guest stopped to the failure that is told of it.

use millrace_types::{ByteSize, Limits};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::{I32Exit, ResourceTableError};

use crate::limits::Stop;
use crate::outcome::Failure;
use crate::output::EmitError;
use crate::task::{DataError, cut};

/// A guest that never began: unless it ran into a limit, that is a matter of this machine.
pub(crate) fn not_made(error: wasmtime::Error) -> wasmtime::Error {
    if error.is::<Stop>() || error.is::<Trap>() {
        return error;
    }
    wasmtime::Error::new(DataError(format!("the system has no room for a guest: {}", error.root_cause())))
}

/// Whether a guest has to begin again where it can be stopped.
pub(crate) fn is_lost<R>(answer: &wasmtime::Result<R>) -> bool {
    answer.as_ref().is_err_and(|error| error.downcast_ref() == Some(&Stop::Lost))
}

pub(crate) fn emit_failure(error: EmitError) -> Failure {
    match error {
        EmitError::Misuse(message) => Failure::Misuse { message },
        EmitError::Data(DataError(message)) => Failure::Host { message },
    }
}

/// Functions from the innermost out, without hashes and without what every
/// panic goes through.
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
        .map(|name| cut(name, 300))
        .collect()
}

pub(crate) fn failure(error: &wasmtime::Error, limits: &Limits, panic: Option<String>) -> Failure {
    let backtrace = backtrace(error);
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Memory { wanted } => Failure::Memory { limit: limits.memory, wanted: ByteSize(*wanted), backtrace },
            Stop::Fuel => Failure::Fuel { limit: limits.fuel, backtrace },
            Stop::Time => Failure::Time { limit: limits.time, backtrace },
            Stop::Cancelled | Stop::Left | Stop::Lost => Failure::Cancelled,
        };
    }
    if let Some(misuse) = error.downcast_ref::<EmitError>() {
        return emit_failure(misuse.clone());
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return Failure::Trap { message: format!("it ended itself with the exit code {code}"), backtrace };
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return Failure::Misuse { message: "it holds too many streams, files or waits at a time".to_owned() };
    }
    if let Some(data) = error.downcast_ref::<DataError>() {
        return Failure::Host { message: data.0.clone() };
    }
    match (error.downcast_ref::<Trap>(), panic) {
        (Some(Trap::OutOfFuel), _) => Failure::Fuel { limit: limits.fuel, backtrace },
        (_, Some(panic)) => Failure::Trap { message: panic, backtrace },
        (Some(Trap::StackOverflow), None) => {
            Failure::Trap { message: "its stack overflowed, as by a recursion without end".to_owned(), backtrace }
        }
        (Some(trap), None) => Failure::Trap { message: trap.to_string(), backtrace },
        // The canonical ABI refused what the guest handed over.
        (None, None) => Failure::Misuse {
            message: format!("it broke the canonical ABI: {}", cut(format!("{}", error.root_cause()), 400)),
        },
    }
}
