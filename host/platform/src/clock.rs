//! The processor time of a thread.

/// Microseconds of processor time that this thread has used; 0 on systems other than Unix.
#[cfg(unix)]
pub fn thread_cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Microseconds of processor time that this thread has used; 0 on systems other than Unix.
#[cfg(not(unix))]
pub fn thread_cpu_us() -> u64 {
    0
}
