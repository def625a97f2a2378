//! WASI for components of other toolchains: closed, and the same on every machine.
//!
//! Such a component sees no network and no terminal, and of files and the environment only
//! what its step is granted, for reading. Its clocks stand still, a wait is over at once, and
//! its random bytes follow from the key of its task. What it prints becomes its log. What
//! differs between machines is hidden: times, link counts, inode numbers, the order of a
//! folder.
//!
//! Interfaces that are not here (sockets, HTTP) can be imported, since toolchains import what
//! they do not use; calling them is a trap.

mod link;
mod printed;
mod view;

pub(crate) use link::{is_wasi, link, stub};
pub(crate) use view::Wasi;
