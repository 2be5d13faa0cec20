//! Measures the memory, tasks, threads and files of the process, for `/metrics`.

use metrics::{Unit, describe_gauge, gauge};
use std::fs;
use tokio::runtime::Handle;

/// Describes the gauges.
pub(crate) fn describe() {
    let tasks = "Tasks that have not ended.";
    describe_gauge!("tokio_alive_tasks", Unit::Count, tasks);
    describe_gauge!("process_open_fds", Unit::Count, "Files that are open.");
    let memory = "Memory that the process has in use.";
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, memory);
    describe_gauge!("process_threads", Unit::Count, "Threads of the process.");
}

/// Measures, and sets the gauges. On systems other than Linux it counts only tasks.
pub(crate) fn observe() {
    let tasks = Handle::current().metrics().num_alive_tasks();
    gauge!("tokio_alive_tasks").set(tasks as f64);
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(files.count() as f64);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = field(&status, "VmRSS:") {
        gauge!("process_resident_memory_bytes").set(kibibytes * 1024.0);
    }
    if let Some(threads) = field(&status, "Threads:") {
        gauge!("process_threads").set(threads);
    }
}

/// Returns the number in a line such as `VmRSS:  1234 kB`.
fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_is_found_by_its_name() {
        let status = "Name:\tregistry\nVmRSS:\t    1234 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(1234.0));
        assert_eq!(field(status, "Threads:"), Some(7.0));
        assert_eq!(field(status, "Name:"), None);
        assert_eq!(field(status, "VmHWM:"), None);
    }
}
