//! Reads the CPU time of a process from the kernel.

use std::fs;
use std::time::Duration;

/// The unit of the kernel's answer, which is the same on all Linux systems: 1/100 s.
const TICK: Duration = Duration::from_millis(10);

/// Returns the CPU time of a whole process so far, with all its threads, in user mode and in the
/// kernel.
pub fn time_of(pid: u32) -> Duration {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    // The second field is a name in brackets, which may contain blanks.
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| field.parse::<u32>().expect("a number of ticks"));
    TICK * ticks.sum::<u32>()
}
