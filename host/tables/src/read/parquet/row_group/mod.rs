//! One row group of a Parquet file, decoded and passed to the sink by the free threads.
//!
//! The columns are divided into shares, each with its own reader. A share of a piece is passed
//! on (mostly: hashed and written) as soon as the shares before it are, while it is in a cache
//! and before much else needs memory. A piece takes one share at a time; with more threads more
//! pieces are in progress side by side. Results and errors are those of one thread that reads
//! the shares of the pieces one by one.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ::arrow::array::{Array, ArrayRef};
use ::arrow::datatypes::DataType as ArrowType;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use millrace_threads::Threads;

use super::error::{broken_in, wrong_row_count};
use crate::read::error::{ReadError, SinkError};
use crate::read::guard::guarded;
use crate::read::predicate::plain_array;
use crate::read::shaper::Kept;
use crate::read::sink::PartSink;

/// The maximum number of readers of a row group: each takes a while to set up.
const SHARES: usize = 64;
/// Bytes per thread that may be decoded and not yet passed on before it decodes more.
const AHEAD: usize = 4 << 20;

/// Divides `columns` columns into shares, in their order.
pub(super) fn shares(columns: usize) -> impl Iterator<Item = Range<usize>> {
    let size = columns.div_ceil(SHARES).max(1);
    (0..columns).step_by(size).map(move |first| first..columns.min(first + size))
}

/// A column of a share.
pub(super) struct Wanted {
    pub(super) kept: Kept,
    /// Its index among the columns of the reader.
    pub(super) place: usize,
    /// The type as which it is read.
    pub(super) plain: ArrowType,
}

/// Columns that are read together.
pub(super) struct Share {
    pub(super) columns: Vec<Wanted>,
    pub(super) reader: ParquetRecordBatchReader,
}

/// A row group that is being read.
pub(super) struct RowGroup<'g> {
    path: &'g Path,
    /// Its index in the file.
    number: usize,
    /// The rows of each piece.
    rows: Vec<usize>,
    shares: Vec<Vec<Wanted>>,
    state: Mutex<GroupState<'g>>,
    changed: Condvar,
}

/// A piece, and a share of it: one thread would take them in this order.
type ShareId = (usize, usize);

struct GroupState<'g> {
    /// For each share the next piece, and the reader unless a thread is using it.
    readers: Vec<(usize, Option<ParquetRecordBatchReader>)>,
    /// The first piece that is not complete.
    first: usize,
    /// Pieces from `first` on.
    pieces: VecDeque<Piece<'g>>,
    /// Bytes that are decoded and not yet passed on.
    ahead: usize,
    /// Threads that are working on the row group.
    threads: usize,
    /// The error with which a single thread would have failed, as far as known.
    failed: Option<(ShareId, ReadError)>,
}

/// A piece that is being read.
struct Piece<'g> {
    /// The arrays of the shares that are decoded.
    decoded: Vec<Option<Vec<ArrayRef>>>,
    /// The number of shares that were passed on.
    done: usize,
    /// Where they go; `None` while a thread is passing on a share.
    to: Option<To<'g>>,
}

enum To<'g> {
    /// The part is not begun yet.
    Begin,
    Sink(Box<dyn PartSink + 'g>),
}

enum Work<'g> {
    Decode { at: ShareId, reader: ParquetRecordBatchReader },
    PassOn { at: ShareId, to: To<'g>, arrays: Vec<ArrayRef> },
}

enum Next<'g> {
    Do(Work<'g>),
    Wait,
    Nothing,
}

fn bytes(arrays: &[ArrayRef]) -> usize {
    arrays.iter().map(|array| array.get_buffer_memory_size()).sum()
}

impl<'g> GroupState<'g> {
    fn is_before_failure(&self, at: ShareId) -> bool {
        self.failed.as_ref().is_none_or(|(failed, _)| at < *failed)
    }

    /// The next share of the first piece of which a share can be passed on.
    fn to_pass_on(&self) -> Option<ShareId> {
        let ready = |(number, piece): (usize, &Piece<'_>)| {
            let is_ready = piece.to.is_some() && piece.decoded.get(piece.done).is_some_and(Option::is_some);
            is_ready.then_some((number, piece.done))
        };
        (self.first..).zip(&self.pieces).find_map(ready).filter(|at| self.is_before_failure(*at))
    }

    /// Whether a share could be passed on as soon as it is decoded. Preferring such shares keeps
    /// pieces side by side, so that no piece is left to one thread at the end.
    fn is_wanted(&self, (piece, share): ShareId) -> bool {
        match self.pieces.get(piece - self.first) {
            Some(piece) => piece.done == share && piece.to.is_some(),
            None => share == 0,
        }
    }

    /// The share to decode next, unless enough is decoded: preferably one that is wanted.
    fn to_decode(&self, pieces: usize) -> Option<ShareId> {
        let end = pieces.min(self.first + self.threads);
        let can_go_on = |(share, (piece, reader)): (usize, &(usize, Option<_>))| {
            (reader.is_some() && *piece < end).then_some((*piece, share))
        };
        let order = |at: &ShareId| (!self.is_wanted(*at), *at);
        let at = self.readers.iter().enumerate().filter_map(can_go_on).min_by_key(order)?;
        // All others wait for the first share that is not passed on.
        let is_first = at == (self.first, self.pieces.front().map_or(0, |piece| piece.done));
        let may = is_first || self.ahead < AHEAD * self.threads || self.failed.is_some();
        (may && self.is_before_failure(at)).then_some(at)
    }

    fn next(&mut self, pieces: usize) -> Next<'g> {
        if let Some(at) = self.to_pass_on()
            && let Some(piece) = self.pieces.get_mut(at.0 - self.first)
            && let Some(to) = piece.to.take()
            && let Some(arrays) = piece.decoded[at.1].take()
        {
            return Next::Do(Work::PassOn { at, to, arrays });
        }
        if let Some(at) = self.to_decode(pieces)
            && let Some(reader) = self.readers[at.1].1.take()
        {
            return Next::Do(Work::Decode { at, reader });
        }
        // After a failure, the threads that are still working do what is before it.
        if self.first == pieces || self.failed.is_some() { Next::Nothing } else { Next::Wait }
    }

    fn fail(&mut self, at: ShareId, error: ReadError) {
        if self.is_before_failure(at) {
            self.failed = Some((at, error));
        }
    }

    fn decoded(&mut self, at: ShareId, arrays: Vec<ArrayRef>) {
        while self.pieces.len() <= at.0 - self.first {
            let decoded = self.readers.iter().map(|_| None).collect();
            self.pieces.push_back(Piece { decoded, done: 0, to: Some(To::Begin) });
        }
        self.ahead += bytes(&arrays);
        self.pieces[at.0 - self.first].decoded[at.1] = Some(arrays);
    }

    fn passed_on(&mut self, at: ShareId, to: To<'g>) {
        let piece = &mut self.pieces[at.0 - self.first];
        (piece.done, piece.to) = (at.1 + 1, Some(to));
        while self.pieces.front().is_some_and(|piece| piece.done == self.readers.len()) {
            self.pieces.pop_front();
            self.first += 1;
        }
    }
}

impl<'g> RowGroup<'g> {
    /// A row group whose pieces have `rows` rows.
    pub(super) fn new(path: &'g Path, number: usize, rows: Vec<usize>, shares: Vec<Share>) -> Self {
        let (shares, readers) = shares.into_iter().map(|share| (share.columns, (0, Some(share.reader)))).unzip();
        let state = GroupState { readers, first: 0, pieces: VecDeque::new(), ahead: 0, threads: 0, failed: None };
        Self { path, number, rows, shares, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, GroupState<'g>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all of it; `begin` is called once for each piece, for the sink of its part.
    pub(super) fn read(
        self,
        threads: &Threads,
        begin: impl Fn(usize, usize) -> Result<Box<dyn PartSink + 'g>, SinkError> + Sync,
    ) -> Result<(), ReadError> {
        let pieces = self.rows.len();
        threads.work(|help| {
            let mut state = self.state();
            state.threads += 1;
            loop {
                let work = match state.next(pieces) {
                    Next::Do(work) => work,
                    Next::Wait => {
                        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    }
                    Next::Nothing => {
                        state.threads -= 1;
                        return;
                    }
                };
                let is_more = state.to_pass_on().is_some() || state.to_decode(pieces).is_some();
                drop(state);
                if is_more {
                    help();
                }
                state = match work {
                    Work::Decode { at, mut reader } => {
                        let decoded = guarded(Some(self.path), || self.decode(&mut reader, at));
                        let mut state = self.state();
                        match decoded {
                            Ok(arrays) => {
                                state.decoded(at, arrays);
                                state.readers[at.1] = (at.0 + 1, Some(reader));
                            }
                            Err(error) => state.fail(at, error),
                        }
                        state
                    }
                    Work::PassOn { at, to, arrays } => {
                        let size = bytes(&arrays);
                        let done = guarded(Some(self.path), || self.pass_on(at, to, arrays, &begin));
                        let mut state = self.state();
                        state.ahead -= size;
                        match done {
                            Ok(to) => state.passed_on(at, to),
                            Err(error) => state.fail(at, error),
                        }
                        state
                    }
                };
                self.changed.notify_all();
            }
        });
        match self.state.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    fn decode(
        &self,
        reader: &mut ParquetRecordBatchReader,
        (piece, share): ShareId,
    ) -> Result<Vec<ArrayRef>, ReadError> {
        let column = match self.shares[share].as_slice() {
            [one] => Some(one.kept.field.name.as_str()),
            _ => None,
        };
        let broken = |error| broken_in(self.path, self.number, column, &error);
        let batch = reader.next().ok_or_else(|| wrong_row_count(self.path))?.map_err(broken)?;
        let is_last = piece + 1 == self.rows.len();
        if batch.num_rows() != self.rows[piece] || (is_last && reader.next().is_some()) {
            return Err(wrong_row_count(self.path));
        }
        let column = |wanted: &Wanted| {
            let name = wanted.kept.field.name.as_str();
            plain_array(self.path, name, batch.column(wanted.place).clone(), &wanted.plain)
        };
        self.shares[share].iter().map(column).collect()
    }

    fn pass_on(
        &self,
        (piece, share): ShareId,
        to: To<'g>,
        arrays: Vec<ArrayRef>,
        begin: &impl Fn(usize, usize) -> Result<Box<dyn PartSink + 'g>, SinkError>,
    ) -> Result<To<'g>, ReadError> {
        let mut sink = match to {
            To::Begin => begin(piece, self.rows[piece])?,
            To::Sink(sink) => sink,
        };
        for (wanted, array) in self.shares[share].iter().zip(arrays) {
            sink.column(wanted.kept.column(self.path, &array)?)?;
        }
        if share + 1 < self.shares.len() {
            return Ok(To::Sink(sink));
        }
        sink.end()?;
        Ok(To::Begin)
    }
}

#[cfg(test)]
mod tests;
