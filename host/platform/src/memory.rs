//! The memory of the machine.

/// Bytes of memory of the machine, or of the control group of this process if that has less.
#[cfg(target_os = "linux")]
pub fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram as u64 * u64::from(info.mem_unit.max(1));
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = read("/sys/fs/cgroup/memory.max").or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    machine.min(group.unwrap_or(u64::MAX))
}

/// Bytes of memory of the machine.
#[cfg(not(target_os = "linux"))]
pub fn machine_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    system.total_memory()
}
