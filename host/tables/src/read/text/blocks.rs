//! The blocks of a text file, parsed by the free threads.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use millrace_threads::{Threads, lock};

use super::split::{Block, Splitter};
use crate::read::error::ReadError;
use crate::read::guard::guarded;

/// Why the reading of a text file stops.
pub(in crate::read) enum Stop<W> {
    Error(ReadError),
    /// It has to be read again in another way; errors so far do not count.
    Again(W),
}

impl<W> From<ReadError> for Stop<W> {
    fn from(error: ReadError) -> Self {
        Self::Error(error)
    }
}

/// Applies `work` to `first` and to the remaining blocks of `lines` lines.
///
/// # Errors
/// A request to read again, else the first error in the order of the file, however the
/// threads are scheduled.
pub(in crate::read) fn each_block<W: Send>(
    path: &Path,
    first: Option<Block>,
    splitter: &mut Splitter<'_>,
    lines: usize,
    threads: &Threads,
    work: impl Fn(&Block) -> Result<(), Stop<W>> + Sync,
) -> Result<(), Stop<W>> {
    let failed: Mutex<Option<(u64, Stop<W>)>> = Mutex::default();
    let fail = |at: u64, stop: Stop<W>| {
        let mut failed = lock(&failed);
        let is_again = |stop: &Stop<W>| matches!(stop, Stop::Again(_));
        let is_first = failed
            .as_ref()
            .is_none_or(|(known, before)| (is_again(&stop), u64::MAX - at) > (is_again(before), u64::MAX - known));
        if is_first {
            *failed = Some((at, stop));
        }
    };
    let has_failed = || lock(&failed).is_some();
    let blocks = Mutex::new((first, splitter));
    threads.work_and_one_more(|help| {
        let mut done = None;
        while !has_failed() {
            let block = guarded(Some(path), || {
                let (first, splitter) = &mut *lock(&blocks);
                done.take().into_iter().for_each(|bytes| splitter.reuse(bytes));
                first.take().map_or_else(|| splitter.next(lines), |first| Ok(Some(first)))
            });
            match block {
                Ok(Some(block)) => {
                    help();
                    if let Err(stop) = work(&block) {
                        fail(block.number, stop);
                    }
                    done = Some(block.bytes);
                }
                Ok(None) => return,
                Err(error) => return fail(u64::MAX, error.into()),
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, stop)) => Err(stop),
        None => Ok(()),
    }
}
