//! Millrace through its command line: each test is a claim that users rely on.
//!
//! They need `target/release/host` with the standard steps inside, which `cargo xtask test` builds
//! first.

mod cache;
mod churn;
mod commands;
mod determinism;
mod diagnostics;
mod evil;
mod features;
mod harm;
mod output;
mod readme;
mod registry;
mod remote;
mod rounds;
mod sandbox;
mod sources;
mod steps;
mod trace;
mod unread;
mod wasi;
