//! The processor time of a thread.

/// Microseconds of processor time that this thread has used; 0 where the system cannot say.
pub(crate) fn cpu_us() -> u64 {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
    }
    #[cfg(not(unix))]
    0
}
