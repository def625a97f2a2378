//! Exit statuses: what a script can rely on.

/// All done.
pub const DONE: u8 = 0;
/// A step failed, or a file could not be written.
pub const FAILED: u8 = 1;
/// The pipeline or the arguments are wrong.
pub const WRONG: u8 = 2;
/// The user stopped it.
pub const INTERRUPTED: u8 = 130;
/// The reader of the output has closed it; the status of a shell for SIGPIPE.
pub const UNREAD: u8 = 141;
