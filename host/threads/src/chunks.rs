//! A slice, divided among threads.

use crate::spawn::{join, spawn_helper};

/// Applies `work` to consecutive chunks of `items`, on at most `threads` threads, each with
/// at least `min_chunk` items. The results are in the order of the chunks. A chunk whose
/// thread cannot be started, or panics, is done by the caller.
pub fn in_chunks<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    min_chunk: usize,
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    let size = items.len().div_ceil(threads.max(1)).max(min_chunk).max(1);
    let mut chunks = items.chunks(size);
    let first = chunks.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let work = &work;
        let helpers: Vec<_> = chunks.map(|chunk| (chunk, spawn_helper(scope, move || work(chunk)))).collect();
        let mut results = vec![work(first)];
        results.extend(helpers.into_iter().map(|(chunk, helper)| join(helper).unwrap_or_else(|| work(chunk))));
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_for_any_number_of_threads() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [0, 1, 2, 7, 2000] {
            for min_chunk in [0, 1, 300, 5000] {
                let all: Vec<u32> = in_chunks(&items, threads, min_chunk, <[u32]>::to_vec).concat();
                assert_eq!(all, items, "{threads} threads, {min_chunk}");
            }
        }
        assert_eq!(in_chunks(&[] as &[u8], 4, 1, <[u8]>::len), [0]);
    }

    #[test]
    fn a_chunk_whose_thread_panics_is_done_by_the_caller() {
        let caller = std::thread::current().id();
        let found = in_chunks(&[1, 2], 2, 1, |chunk| {
            assert!(chunk == [1] || std::thread::current().id() == caller, "a helper fails");
            chunk[0]
        });
        assert_eq!(found, [1, 2]);
    }
}
