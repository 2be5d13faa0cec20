//! Says where and when something was measured.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// Returns the day, the processor and the number of cores, without which a figure has no meaning.
pub fn here() -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    format!(
        "on {}, {cores} cores of {}, {}",
        day(),
        processor(),
        kernel()
    )
}

fn day() -> String {
    printed(Command::new("date").args(["-u", "+%F"]))
}

fn kernel() -> String {
    printed(Command::new("uname").arg("-sr"))
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(": "));
    model.map_or_else(
        || "an unknown processor".to_owned(),
        |(_, name)| name.to_owned(),
    )
}

fn printed(command: &mut Command) -> String {
    let output = command.output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_else(|_| "unknown".to_owned())
}
