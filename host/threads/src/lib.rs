//! Threads: how work is divided among the processors of a machine.
//!
//! [`Threads`] lends free threads to work that asks for help (reading, exports, digests),
//! [`in_chunks`] divides a slice, and [`Slots`] bounds how many guests compute at a time.
//! Where the system refuses a thread, the caller does the work itself. Nothing here knows
//! what the work is, and no result depends on how many threads there are.

mod chunks;
mod lock;
mod pool;
mod slots;
mod spawn;

pub use chunks::in_chunks;
pub use lock::lock;
pub use pool::{Help, Threads};
pub use slots::{POLL_INTERVAL, Slot, Slots};
pub use spawn::{join, spawn_helper};
