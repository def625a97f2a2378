//! The errors that end a guest, as wasmtime carries them from a host function to its caller.

use millrace_tables::ChunkError;

/// Why a guest was stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("memory limit")]
    Memory { wanted: u64 },
    #[error("fuel limit")]
    Fuel,
    #[error("time limit")]
    Time,
    #[error("cancelled")]
    Cancelled,
    /// Another guest of its task failed.
    #[error("another guest of the task failed")]
    PeerFailed,
    /// It has run for so long without a check that it must restart with checks in all loops.
    #[error("it has to restart with checks in all loops")]
    NeedsLoopChecks,
}

/// A broken rule of the step world, or an error of the host.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum EmitError {
    #[error("{0}")]
    Misuse(String),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

/// An error about a broken rule.
pub(crate) fn misuse<T>(message: impl Into<String>) -> Result<T, EmitError> {
    Err(EmitError::Misuse(message.into()))
}
