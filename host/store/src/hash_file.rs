//! The BLAKE3 digests of files, by several threads that each take one piece after the other and
//! read it into a small buffer of their own.
//!
//! Files are not mapped: mapped pages count as memory of this process, and a file that is
//! truncated while it is mapped kills the process instead of being an error.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};
use millrace_platform::read_exact_at;
use millrace_threads::{Threads, lock};

/// Bytes of a piece, except in very large files: a power of two, as a subtree of the hash
/// must be.
const PIECE: u64 = 1 << 20;
/// Maximum number of pieces of a file: the chaining value of each is held until all are read, and
/// a sparse file may claim any size.
const MAX_PIECES: u64 = 1 << 16;
/// Bytes that are read at a time: few enough to stay in the processor's cache for hashing.
const BUFFER: u64 = 256 << 10;

/// Maximum number of threads: each has a file open, and a process may not have many.
const MAX_THREADS: usize = 16;

/// How files are read.
pub(crate) struct Readers<'s> {
    threads: usize,
    /// The least number of bytes in a piece.
    piece: u64,
    stop: &'s AtomicBool,
}

impl<'s> Readers<'s> {
    /// `threads` threads, which stop before the next piece when `stop` is set.
    pub(crate) fn new(threads: usize, stop: &'s AtomicBool) -> Self {
        Self { threads, piece: PIECE, stop }
    }

    fn check(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(io::Error::other("stopped")) } else { Ok(()) }
    }
}

/// The digests of the first `len` bytes of files. Each file is opened when its first piece is
/// taken and closed when its digest is complete; then `done` turns the digest into a result,
/// on the thread that read the last piece.
///
/// # Errors
/// `done` receives errors of the system, and one if the file is shorter or reading is
/// stopped.
pub(crate) fn digests<F: Sync, T: Send>(
    files: &[F],
    by: &Readers<'_>,
    len: impl Fn(&F) -> u64,
    open: impl Fn(&F) -> io::Result<File> + Sync,
    done: impl Fn(&F, io::Result<Hash>) -> T + Sync,
) -> Vec<T> {
    let shared: Vec<HashState> = files.iter().map(|file| HashState::new(len(file), by.piece)).collect();
    let results: Vec<Mutex<Option<T>>> = files.iter().map(|_| Mutex::default()).collect();
    let next = Mutex::new((0, 0));
    let take = || {
        let mut next = lock(&next);
        let (index, number) = *next;
        let count = shared.get(index)?.count;
        *next = if number + 1 < count { (index, number + 1) } else { (index + 1, 0) };
        Some((index, number, next.0 < files.len()))
    };
    let threads = Threads::new(by.threads.min(MAX_THREADS));
    threads.work(|help| {
        let mut buffer = Vec::new();
        while let Some((index, number, has_more)) = take() {
            if has_more {
                help();
            }
            let file = &files[index];
            if let Some(hash) = shared[index].read(number, || by.check(), || open(file), &mut buffer) {
                *lock(&results[index]) = Some(done(file, hash));
            }
        }
    });
    // A panic of a helper is a panic here, too: otherwise each file has its result.
    results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// A file that several threads read at once.
struct HashState {
    len: u64,
    /// Bytes of a piece, and the number of pieces.
    piece: u64,
    count: usize,
    state: Mutex<State>,
}

struct State {
    file: Option<Arc<File>>,
    values: Vec<ChainingValue>,
    missing: usize,
    failed: Option<io::Error>,
}

impl HashState {
    fn new(len: u64, least: u64) -> Self {
        let piece = least.max((len / MAX_PIECES).next_power_of_two());
        let count = len.div_ceil(piece).max(1) as usize;
        let state = State { file: None, values: Vec::new(), missing: count, failed: None };
        Self { len, piece, count, state: Mutex::new(state) }
    }

    /// The open file; `None` after an error.
    fn file(&self, open: impl Fn() -> io::Result<File>) -> Option<Arc<File>> {
        let mut state = lock(&self.state);
        if state.file.is_none() && state.failed.is_none() {
            match open() {
                Ok(file) => state.file = Some(Arc::new(file)),
                Err(error) => state.failed = Some(error),
            }
            state.values.resize(self.count, ChainingValue::default());
        }
        state.file.clone()
    }

    /// Reads a piece. The thread that reads the last missing one returns the digest.
    fn read(
        &self,
        number: usize,
        may: impl Fn() -> io::Result<()>,
        open: impl Fn() -> io::Result<File>,
        buffer: &mut Vec<u8>,
    ) -> Option<io::Result<Hash>> {
        let start = number as u64 * self.piece;
        let mut hasher = Hasher::new();
        let done = self.file(open).map_or(Ok(()), |file| {
            may()?;
            hasher.set_input_offset(start);
            read(&file, start, self.piece.min(self.len - start), buffer, &mut hasher)
        });
        let mut state = lock(&self.state);
        state.missing -= 1;
        match done {
            Err(error) => (state.file, state.failed) = (None, Some(error)),
            Ok(()) if self.count > 1 && state.failed.is_none() => state.values[number] = hasher.finalize_non_root(),
            Ok(()) => {}
        }
        if state.missing > 0 {
            return None;
        }
        state.file = None;
        let values = std::mem::take(&mut state.values);
        let failed = state.failed.take();
        drop(state);
        Some(match failed {
            Some(error) => Err(error),
            None if self.count == 1 => Ok(hasher.finalize()),
            None => Ok(root(&values, self.len, self.piece)),
        })
    }
}

/// The digest of a file of several pieces.
fn root(pieces: &[ChainingValue], len: u64, piece: u64) -> Hash {
    let left_len = left_subtree_len(len);
    let (left, right) = pieces.split_at((left_len / piece) as usize);
    merge_subtrees_root(&merged(left, left_len, piece), &merged(right, len - left_len, piece), Mode::Hash)
}

/// The chaining value of a subtree of `len` bytes, merged from those of its pieces.
fn merged(pieces: &[ChainingValue], len: u64, piece: u64) -> ChainingValue {
    if let [one] = pieces {
        return *one;
    }
    let left_len = left_subtree_len(len);
    let (left, right) = pieces.split_at((left_len / piece) as usize);
    let (left, right) = (merged(left, left_len, piece), merged(right, len - left_len, piece));
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

fn read(file: &File, start: u64, len: u64, buffer: &mut Vec<u8>, hasher: &mut Hasher) -> io::Result<()> {
    // Reused from piece to piece: touching fresh memory costs as much as hashing a piece.
    buffer.resize(buffer.len().max(BUFFER.min(len) as usize), 0);
    let mut done = 0;
    while done < len {
        let most = (buffer.len() as u64).min(len - done) as usize;
        read_exact_at(file, &mut buffer[..most], start + done)?;
        hasher.update(&buffer[..most]);
        done += most as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn by(threads: usize, piece: u64) -> Readers<'static> {
        Readers { piece, ..Readers::new(threads, &NEVER) }
    }

    fn bytes() -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn the_digest_does_not_depend_on_pieces_or_threads() {
        let (file, bytes) = bytes();
        let lens = [0, 1, 1023, 1024, 1025, 2048, 4096, 4097, 8192, 12_289, 65_536, 65_537, 70_000];
        for (piece, threads) in [(1024, 1), (1024, 3), (4096, 2), (1 << 20, 2), (1 << 20, 40)] {
            let open = |_: &u64| file.try_clone();
            let found = digests(&lens, &by(threads, piece), |len| *len, open, |len, hash| (*len, hash.unwrap()));
            for ((len, hash), expected) in found.into_iter().zip(lens) {
                assert_eq!((len, hash), (expected, blake3::hash(&bytes[..len as usize])), "{len} by {piece}");
            }
        }
        // With one thread there is no helper, even if there is time to start one.
        let reader = |_: &u64, _| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            std::thread::current().id()
        };
        let me = std::thread::current().id();
        let readers = digests(&lens, &by(1, 1024), |len| *len, |_| file.try_clone(), reader);
        assert!(readers.into_iter().all(|reader| reader == me));
        assert!(digests(&[0u64; 0], &by(2, PIECE), |len| *len, |_| file.try_clone(), |_, hash| hash).is_empty());
    }

    #[test]
    fn the_number_of_pieces_is_bounded_for_any_size_that_a_file_claims() {
        for len in [0, 1, PIECE * MAX_PIECES, PIECE * MAX_PIECES + 1, 3 << 40, u64::MAX] {
            let HashState { piece, count, .. } = HashState::new(len, PIECE);
            assert!(piece.is_power_of_two() && count as u64 <= 2 * MAX_PIECES, "{len}");
            assert!(u128::from(piece) * count as u128 >= u128::from(len), "{len}");
        }
        // A sparse file, in pieces larger than the least.
        let (file, len) = (tempfile::tempfile().unwrap(), 3 * 1024 * MAX_PIECES + 5);
        file.set_len(len).unwrap();
        let found = digests(&[len], &by(2, 1024), |len| *len, |_| file.try_clone(), |_, hash| hash.unwrap());
        let mut expected = Hasher::new();
        io::copy(&mut io::Read::take(io::repeat(0), len), &mut expected).unwrap();
        assert_eq!(found, [expected.finalize()]);
    }

    #[test]
    fn an_error_in_one_file_does_not_stop_the_others() {
        let (file, bytes) = bytes();
        let files = [70_000, 70_001, 5000, 1_000_000, 70_000];
        let open = |len: &u64| if *len == 5000 { Err(io::ErrorKind::NotFound.into()) } else { file.try_clone() };
        for threads in [1, 2, 5] {
            let found = digests(&files, &by(threads, 4096), |len| *len, open, |_, hash| hash);
            let kinds: Vec<_> = found.iter().map(|hash| hash.as_ref().err().map(io::Error::kind)).collect();
            let (truncated, missing) = (Some(io::ErrorKind::UnexpectedEof), Some(io::ErrorKind::NotFound));
            assert_eq!(kinds, [None, truncated, missing, truncated, None], "{threads}");
            assert_eq!(*found[4].as_ref().unwrap(), blake3::hash(&bytes));
        }
    }

    #[test]
    fn reading_stops_before_the_next_piece() {
        let (file, _) = bytes();
        for threads in [1, 3] {
            let (stop, opened) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
            let open = |_: &u64| {
                opened.fetch_add(1, Ordering::Relaxed);
                stop.store(true, Ordering::Relaxed);
                file.try_clone()
            };
            let by = Readers { piece: 4096, ..Readers::new(threads, &stop) };
            let found = digests(&[70_000; 9], &by, |len| *len, open, |_, hash| hash);
            assert!(found.len() == 9 && found.iter().all(Result::is_err));
            assert!(opened.into_inner() <= 9);
        }
    }
}
