//! The allocator of the program, and its settings. It knows nothing about pipelines.
//!
//! The peak memory of a run must not depend on its duration, nor on which thread drops what.
//! Columns are blocks of 100 KiB to 1 MiB, allocated and dropped by the thousand: what matters most
//! is that a dropped block is reused before new pages are touched.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena: each of several would hold the blocks that its own threads have dropped. (Small
/// blocks come from caches of the threads all the same.) Huge pages, where the system gives them on
/// request: a run that is fully cached takes a fifth to a third longer without.
///
/// Name and form are those that jemalloc reads before `main` (jemalloc(3), "Tuning"); the
/// environment variable `_RJEM_MALLOC_CONF` overrides them.
#[expect(unsafe_code, reason = "the name of a symbol")]
// SAFETY: this is the symbol that jemalloc leaves to its user to define, a `const char *` to a C
// string; a reference to an array is a thin pointer, too, and nothing else has this name.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 41] = b"narenas:1,thp:always,metadata_thp:always\0";
