//! The BLAKE3 digests of files, by several threads that take pieces of whichever file is
//! next, and read them into a small buffer of their own.
//!
//! A file is not mapped: what is mapped counts as memory of this process until it ends,
//! and a file that somebody cuts while it is read would end the process instead of being
//! an error.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// Bytes that a thread takes at a time: a power of two, as a subtree of the hash must be.
const PIECE: u64 = 1 << 20;
/// Bytes that are read at a time, and are then still in the cache of their processor.
const BUFFER: u64 = 256 << 10;

/// The digests of the first `len` bytes of files, each opened when it is its turn, and
/// closed when its digest is there: then `done` makes of it what is given back, on the
/// thread that read the last of it.
///
/// # Errors
/// `done` is given those of the system; and one when there are fewer bytes.
pub(crate) fn digests<F: Sync, T: Send>(
    files: &[F],
    threads: usize,
    len: impl Fn(&F) -> u64 + Sync,
    open: impl Fn(&F) -> io::Result<File> + Sync,
    done: impl Fn(&F, io::Result<Hash>) -> T + Sync,
) -> Vec<T> {
    digests_by(PIECE, files, threads, len, open, done)
}

/// What there is of a digest.
struct Found {
    file: Option<Arc<File>>,
    pieces: Vec<ChainingValue>,
    missing: usize,
    result: io::Result<()>,
}

fn digests_by<F: Sync, T: Send>(
    piece: u64,
    files: &[F],
    threads: usize,
    len: impl Fn(&F) -> u64 + Sync,
    open: impl Fn(&F) -> io::Result<File> + Sync,
    done: impl Fn(&F, io::Result<Hash>) -> T + Sync,
) -> Vec<T> {
    let counts: Vec<usize> = files.iter().map(|file| len(file).div_ceil(piece).max(1) as usize).collect();
    let none = |&missing: &usize| Mutex::new(Found { file: None, pieces: Vec::new(), missing, result: Ok(()) });
    let found: Vec<Mutex<Found>> = counts.iter().map(none).collect();
    let results: Vec<Mutex<Option<T>>> = files.iter().map(|_| Mutex::default()).collect();
    let next = Mutex::new((0, 0));
    let take = || {
        let mut next = lock(&next);
        let (index, number) = *next;
        let count = *counts.get(index)?;
        *next = if number + 1 < count { (index, number + 1) } else { (index + 1, 0) };
        Some((index, number))
    };
    let work = || {
        let mut buffer = Vec::new();
        while let Some((index, number)) = take() {
            let (file, count) = (&files[index], counts[index]);
            let len = len(file);
            let start = number as u64 * piece;
            let opened = {
                let mut found = lock(&found[index]);
                if found.file.is_none() && found.result.is_ok() {
                    found.pieces.resize(count, ChainingValue::default());
                    match open(file) {
                        Ok(file) => found.file = Some(Arc::new(file)),
                        Err(error) => found.result = Err(error),
                    }
                }
                found.file.clone()
            };
            let mut hasher = Hasher::new();
            let read = opened.map_or(Ok(()), |file| {
                hasher.set_input_offset(start);
                read(&file, start, piece.min(len - start), &mut buffer, &mut hasher)
            });
            let mut found = lock(&found[index]);
            found.missing -= 1;
            if let Err(error) = read {
                (found.file, found.result) = (None, Err(error));
            } else if count > 1 && found.result.is_ok() {
                found.pieces[number] = hasher.finalize_non_root();
            }
            if found.missing > 0 {
                continue;
            }
            let (pieces, result) = (std::mem::take(&mut found.pieces), std::mem::replace(&mut found.result, Ok(())));
            found.file = None;
            drop(found);
            let hash = result.map(|()| if count == 1 { hasher.finalize() } else { root(&pieces, len, piece) });
            *lock(&results[index]) = Some(done(file, hash));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(counts.iter().sum()) {
            // Where the system has no more threads, those that are there do all.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let lost = || io::Error::other("the thread that read it was lost");
    let result = |(file, result): (&F, Mutex<Option<T>>)| {
        result.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(|| done(file, Err(lost())))
    };
    files.iter().zip(results).map(result).collect()
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The digest of a file of several pieces.
fn root(pieces: &[ChainingValue], len: u64, piece: u64) -> Hash {
    let left_len = left_subtree_len(len);
    let (left, right) = pieces.split_at((left_len / piece) as usize);
    merge_subtrees_root(&merged(left, left_len, piece), &merged(right, len - left_len, piece), Mode::Hash)
}

/// The value of a subtree of so many bytes, made of those of its pieces.
fn merged(pieces: &[ChainingValue], len: u64, piece: u64) -> ChainingValue {
    if let [one] = pieces {
        return *one;
    }
    let left_len = left_subtree_len(len);
    let (left, right) = pieces.split_at((left_len / piece) as usize);
    let (left, right) = (merged(left, left_len, piece), merged(right, len - left_len, piece));
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(unix)]
fn read(file: &File, start: u64, len: u64, buffer: &mut Vec<u8>, hasher: &mut Hasher) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    // Kept from piece to piece: fresh memory costs as much as a piece that is hashed.
    buffer.resize(buffer.len().max(BUFFER.min(len) as usize), 0);
    let mut done = 0;
    while done < len {
        let most = (buffer.len() as u64).min(len - done) as usize;
        file.read_exact_at(&mut buffer[..most], start + done)?;
        hasher.update(&buffer[..most]);
        done += most as u64;
    }
    Ok(())
}

#[cfg(not(unix))]
fn read(file: &File, start: u64, len: u64, _: &mut Vec<u8>, hasher: &mut Hasher) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    // A handle has one position: threads would need handles of their own.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let mut file = file;
    file.seek(SeekFrom::Start(start))?;
    let mut limited = file.take(len);
    if io::copy(&mut limited, hasher)? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn bytes() -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn pieces_make_the_digests_of_the_whole() {
        let (file, bytes) = bytes();
        let lens = [0, 1, 1023, 1024, 1025, 2048, 4096, 4097, 8192, 12_289, 65_536, 65_537, 70_000];
        for (piece, threads) in [(1024, 1), (1024, 3), (4096, 2), (1 << 20, 2), (1 << 20, 40)] {
            let open = |_: &u64| file.try_clone();
            let found = digests_by(piece, &lens, threads, |len| *len, open, |len, hash| (*len, hash.unwrap()));
            for ((len, hash), expected) in found.into_iter().zip(lens) {
                assert_eq!((len, hash), (expected, blake3::hash(&bytes[..len as usize])), "{len} by {piece}");
            }
        }
        // Who asks for one thread has no other.
        let me = std::thread::current().id();
        let who = digests_by(1024, &lens, 1, |len| *len, |_| file.try_clone(), |_, _| std::thread::current().id());
        assert!(who.into_iter().all(|who| who == me));
        assert!(digests(&[0u64; 0], 2, |len| *len, |_| file.try_clone(), |_, hash| hash).is_empty());
    }

    #[test]
    fn what_is_wrong_with_one_file_stops_none_of_the_others() {
        let (file, bytes) = bytes();
        let files = [70_000, 70_001, 5000, 1_000_000, 70_000];
        let open = |len: &u64| if *len == 5000 { Err(io::ErrorKind::NotFound.into()) } else { file.try_clone() };
        for threads in [1, 2, 5] {
            let found = digests_by(4096, &files, threads, |len| *len, open, |_, hash| hash);
            let kinds: Vec<_> = found.iter().map(|hash| hash.as_ref().err().map(io::Error::kind)).collect();
            let (cut, none) = (Some(io::ErrorKind::UnexpectedEof), Some(io::ErrorKind::NotFound));
            assert_eq!(kinds, [None, cut, none, cut, None], "{threads}");
            assert_eq!(*found[4].as_ref().unwrap(), blake3::hash(&bytes));
        }
    }
}
