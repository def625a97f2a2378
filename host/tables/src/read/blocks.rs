//! The blocks of a file of text, each worked on by whichever thread is free.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::split::{Block, Splitter};
use super::{ReadError, guarded};
use crate::threads::Threads;

/// Why a file of text is not read on.
pub(super) enum Stop<W> {
    Error(ReadError),
    /// It has to be read again in another way, so that all errors so far are moot.
    Again(W),
}

impl<W> From<ReadError> for Stop<W> {
    fn from(error: ReadError) -> Self {
        Self::Error(error)
    }
}

/// Works on all blocks of so many lines that are left, behind one that was read already.
///
/// # Errors
/// What stopped it: a wish to read it again, else the first error of the file, however the
/// threads were scheduled.
pub(super) fn each_block<W: Send>(
    path: &Path,
    first: Option<Block>,
    splitter: &mut Splitter<'_>,
    lines: usize,
    threads: &Threads,
    work: impl Fn(&Block) -> Result<(), Stop<W>> + Sync,
) -> Result<(), Stop<W>> {
    let failed: Mutex<Option<(u64, Stop<W>)>> = Mutex::default();
    let fail = |at: u64, stop: Stop<W>| {
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wish = |stop: &Stop<W>| matches!(stop, Stop::Again(_));
        let is_first = failed
            .as_ref()
            .is_none_or(|(known, before)| (is_wish(&stop), u64::MAX - at) > (is_wish(before), u64::MAX - known));
        if is_first {
            *failed = Some((at, stop));
        }
    };
    let has_failed = || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let blocks = Mutex::new((first, splitter));
    threads.work_and_one_more(|help| {
        let mut done = None;
        while !has_failed() {
            let block = guarded(Some(path), || {
                let (first, splitter) = &mut *blocks.lock().unwrap_or_else(PoisonError::into_inner);
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
