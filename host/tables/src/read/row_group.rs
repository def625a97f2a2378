//! One row group of a Parquet file, decoded by as many threads as are free.
//!
//! Its columns are cut into shares, each with a reader of its own; a thread takes the share
//! that is furthest behind, and whichever has completed a piece hands it on. What comes out is
//! what one reader of all columns would give, in any number of threads, errors too.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ::arrow::array::{Array, ArrayRef};
use ::arrow::datatypes::{Field as ArrowField, Schema as ArrowSchema};
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::parquet::broken;
use super::predicate::Batch;
use super::threads::Threads;
use super::{ReadError, guarded};

/// Readers of a row group at most.
const SHARES: usize = 16;
/// Pieces that are decoded at a time, before the first of them is handed on.
const WINDOW: usize = 2;

/// Cuts columns into shares that take about as long as each other, by how many bytes each is.
/// Gives the places of the columns of each.
pub(super) fn shares(bytes: &[u64]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..bytes.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(bytes[*place]));
    let mut shares = vec![(0u64, Vec::new()); bytes.len().min(SHARES)];
    for place in order {
        // Of a column without bytes there is still something to do.
        let Some(lightest) = shares.iter_mut().min_by_key(|(weight, _)| *weight) else { break };
        lightest.0 = lightest.0.saturating_add(bytes[place].max(1));
        lightest.1.push(place);
    }
    shares.into_iter().map(|(_, places)| places).collect()
}

/// Columns that are read together.
pub(super) struct Share {
    /// Where they stand among all, in the order of the reader.
    pub(super) places: Vec<usize>,
    pub(super) reader: ParquetRecordBatchReader,
}

/// A row group that is read.
pub(super) struct RowGroup<'g> {
    path: &'g Path,
    fields: Vec<ArrowField>,
    pieces: usize,
    /// Places of the columns of each share.
    places: Vec<Vec<usize>>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Of each share the piece that is next, and its reader unless somebody reads with it.
    shares: Vec<(usize, Option<ParquetRecordBatchReader>)>,
    /// Columns of the pieces from `first` on.
    begun: VecDeque<Vec<Option<ArrayRef>>>,
    /// The first piece that is not handed on.
    first: usize,
    /// By piece, then share: the handing on of a piece is behind all its shares.
    failed: Option<((usize, usize), ReadError)>,
}

enum Next {
    Decode { share: usize, piece: usize, reader: ParquetRecordBatchReader },
    HandOn { piece: usize, columns: Vec<ArrayRef> },
    Wait,
    Nothing,
}

impl State {
    fn is_before_failure(&self, at: (usize, usize)) -> bool {
        self.failed.as_ref().is_none_or(|(failed, _)| at < *failed)
    }

    /// The share that is furthest behind, of those that can go on.
    fn behind(&self, pieces: usize) -> Option<usize> {
        let can_go_on = |(share, (next, reader)): &(usize, &(usize, Option<_>))| {
            let in_window = *next < pieces.min(self.first + WINDOW);
            reader.is_some() && in_window && self.is_before_failure((*next, *share))
        };
        let shares = self.shares.iter().enumerate().filter(can_go_on);
        shares.min_by_key(|(share, (next, _))| (*next, *share)).map(|(share, _)| share)
    }

    fn next(&mut self, pieces: usize) -> Next {
        if self.first == pieces {
            return Next::Nothing;
        }
        if self.is_before_failure((self.first, usize::MAX))
            && let Some(front) = self.begun.front_mut()
            && front.iter().all(Option::is_some)
        {
            let columns = front.drain(..).flatten().collect();
            self.begun.pop_front();
            self.first += 1;
            return Next::HandOn { piece: self.first - 1, columns };
        }
        if let Some(share) = self.behind(pieces)
            && let (piece, reader) = &mut self.shares[share]
            && let Some(reader) = reader.take()
        {
            return Next::Decode { share, piece: *piece, reader };
        }
        // After a failure whoever still reads does what is before it.
        if self.failed.is_none() { Next::Wait } else { Next::Nothing }
    }

    fn fail(&mut self, at: (usize, usize), error: ReadError) {
        if self.is_before_failure(at) {
            self.failed = Some((at, error));
        }
    }
}

impl<'g> RowGroup<'g> {
    /// A group of so many pieces, with its columns' fields.
    pub(super) fn new(path: &'g Path, fields: Vec<ArrowField>, pieces: usize, shares: Vec<Share>) -> Self {
        let (places, shares) = shares.into_iter().map(|share| (share.places, (0, Some(share.reader)))).unzip();
        let state = State { shares, begun: VecDeque::new(), first: 0, failed: None };
        Self { path, fields, pieces, places, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads all of it; each piece is handed on once, in any order.
    pub(super) fn read(
        self,
        threads: &Threads,
        hand_on: impl Fn(usize, Batch) -> Result<(), ReadError> + Sync,
    ) -> Result<(), ReadError> {
        let schema = Arc::new(ArrowSchema::new(self.fields.clone()));
        threads.work(|help| {
            let mut state = self.state();
            loop {
                let next = state.next(self.pieces);
                let is_more = state.behind(self.pieces).is_some();
                if let Next::Wait = next {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                drop(state);
                if is_more {
                    help();
                }
                state = match next {
                    Next::Wait | Next::Nothing => return,
                    Next::HandOn { piece, columns } => {
                        let batch = Batch::new(schema.clone(), columns);
                        let done = guarded(Some(self.path), || hand_on(piece, batch));
                        let mut state = self.state();
                        if let Err(error) = done {
                            state.fail((piece, usize::MAX), error);
                        }
                        state
                    }
                    Next::Decode { share, piece, mut reader } => {
                        let decoded = guarded(Some(self.path), || self.decode(&mut reader, piece));
                        let mut state = self.state();
                        match decoded.and_then(|arrays| self.take(&mut state, share, piece, arrays)) {
                            Ok(()) => state.shares[share] = (piece + 1, Some(reader)),
                            Err(error) => state.fail((piece, share), error),
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

    fn decode(&self, reader: &mut ParquetRecordBatchReader, piece: usize) -> Result<Vec<ArrayRef>, ReadError> {
        let unlike = || broken(self.path, &"a row group has not as many rows as its file says");
        let batch = reader.next().ok_or_else(unlike)?.map_err(|error| broken(self.path, &error))?;
        if piece + 1 == self.pieces && reader.next().is_some() {
            return Err(unlike());
        }
        Ok(batch.columns().to_vec())
    }

    /// Puts the columns of a share into their piece.
    fn take(&self, state: &mut State, share: usize, piece: usize, arrays: Vec<ArrayRef>) -> Result<(), ReadError> {
        let at = piece - state.first;
        while state.begun.len() <= at {
            state.begun.push_back(vec![None; self.fields.len()]);
        }
        let columns = &mut state.begun[at];
        let rows = columns.iter().flatten().next().map(|known| known.len());
        if arrays.iter().any(|array| rows.is_some_and(|rows| rows != array.len())) {
            return Err(broken(self.path, &"the columns of a row group have not as many rows as each other"));
        }
        for (place, array) in self.places[share].iter().zip(arrays) {
            columns[*place] = Some(array);
        }
        Ok(())
    }
}
