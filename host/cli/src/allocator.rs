//! The allocator of the program, and how it is set. It knows nothing of pipelines.
//!
//! What a run holds at most must not depend on how long it runs, nor on which thread drops what.
//! Columns are blocks of 100 KiB to 1 MiB, made and dropped by the thousand: what matters most is
//! that a block which was dropped is given out again before new pages are touched.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena: with several, each keeps what its own threads have dropped. (Small blocks come from
/// caches of the threads all the same.) Huge pages, where the system gives them to who asks: a run
/// that finds everything takes a fifth to a third longer without.
///
/// Name and form are jemalloc's, who reads it before `main` (jemalloc(3), "Tuning"); the variable
/// `_RJEM_MALLOC_CONF` of the environment comes after it.
#[expect(unsafe_code, reason = "the name of a symbol")]
// SAFETY: it is the symbol that jemalloc leaves to its user to define, a `const char *` to a C
// string; a reference to an array is as thin, and nothing else has this name.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 41] = b"narenas:1,thp:always,metadata_thp:always\0";
