//! What differs between operating systems, one module for each concern.
//!
//! ```text
//! files      opening without blocking, reading at an offset, modes
//! identity   whether a file is the same as before
//! clock      processor time of a thread
//! memory     memory of the machine
//! ```
//!
//! Two more concerns are where they are used: claims (`store/src/claim.rs`) and the allocator
//! (`cli/src/allocator.rs`). This crate knows nothing about stores or pipelines.

mod clock;
mod files;
mod identity;
mod memory;

pub use clock::thread_cpu_us;
pub use files::{make_shared, never_wait, open_regular, read_at, read_exact_at};
pub use identity::Identity;
pub use memory::machine_memory;
