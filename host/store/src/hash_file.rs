//! The BLAKE3 digest of a file, by several threads, each of which reads pieces into a
//! small buffer of its own.
//!
//! A file is not mapped: what is mapped counts as memory of this process until it ends,
//! and a file that somebody cuts while it is read would end the process instead of being
//! an error.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// Bytes that a thread takes at a time: a power of two, as a subtree of the hash must be.
const PIECE: u64 = 4 << 20;
/// Bytes that are read at a time, and are then still in the cache of their processor.
const BUFFER: usize = 256 << 10;

/// The digest of the first `len` bytes.
///
/// # Errors
/// Those of the system; and when there are fewer bytes.
pub(crate) fn digest(file: &File, len: u64) -> io::Result<Hash> {
    digest_by(file, len, PIECE, std::thread::available_parallelism().map_or(1, NonZero::get))
}

fn digest_by(file: &File, len: u64, piece: u64, threads: usize) -> io::Result<Hash> {
    if len <= piece {
        let mut hasher = Hasher::new();
        read(file, 0, len, &mut hasher)?;
        return Ok(hasher.finalize());
    }
    let count = len.div_ceil(piece);
    let next = AtomicU64::new(0);
    let found = Mutex::new(vec![ChainingValue::default(); count as usize]);
    let work = || -> io::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let start = number * piece;
            let mut hasher = Hasher::new();
            hasher.set_input_offset(start);
            read(file, start, piece.min(len - start), &mut hasher)?;
            let value = hasher.finalize_non_root();
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[number as usize] = value;
        }
    };
    std::thread::scope(|scope| {
        // Where the system has no more threads, those that are there do all.
        let helper = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads.min(count as usize)).filter_map(helper).collect();
        let first = work();
        let lost = || Err(io::Error::other("a thread that read it was lost"));
        others.into_iter().map(|other| other.join().unwrap_or_else(|_| lost())).fold(first, io::Result::and)
    })?;
    let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (left, right) = found.split_at((left_subtree_len(len) / piece) as usize);
    let right_len = len - left_subtree_len(len);
    let left = merged(left, left_subtree_len(len), piece);
    Ok(merge_subtrees_root(&left, &merged(right, right_len, piece), Mode::Hash))
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
fn read(file: &File, start: u64, len: u64, hasher: &mut Hasher) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; BUFFER.min(len as usize)];
    let mut done = 0;
    while done < len {
        let most = buffer.len().min((len - done) as usize);
        file.read_exact_at(&mut buffer[..most], start + done)?;
        hasher.update(&buffer[..most]);
        done += most as u64;
    }
    Ok(())
}

#[cfg(not(unix))]
fn read(file: &File, start: u64, len: u64, hasher: &mut Hasher) -> io::Result<()> {
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

    #[test]
    fn pieces_make_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        for len in [0, 1, 1023, 1024, 1025, 2048, 4096, 4097, 8192, 12_289, 65_536, 65_537, 70_000] {
            for (piece, threads) in [(1024, 1), (1024, 3), (4096, 2), (1 << 20, 2)] {
                let found = digest_by(&file, len, piece, threads).unwrap();
                assert_eq!(found, blake3::hash(&bytes[..len as usize]), "{len} by {piece}");
            }
        }
        assert_eq!(digest(&file, 70_000).unwrap(), blake3::hash(&bytes));
        let cut = digest_by(&file, 70_001, 4096, 2).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
