//! What a process has used, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// The unit of the kernel's answer, which is the same on all of Linux: 1/100 s.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time of a whole process so far, all its threads together: its own and the kernel's for
/// it.
pub fn time_of(pid: u32) -> Duration {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    // The second field is a name in brackets, which may hold blanks.
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|field| field.parse::<u32>().expect("a number of ticks"));
    TICK * ticks.sum::<u32>()
}
