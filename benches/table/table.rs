//! The table of measured figures, with the promised ones.

use std::env;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

/// Explains why the missed targets are out of reach.
const LIMITS: &str = include_str!("limits.md");

/// The condition for a ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit} ×"),
            Self::AtLeast(limit) => write!(f, "≥ {limit} ×"),
        }
    }
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Row {
    /// The operation that is measured.
    pub(crate) what: &'static str,
    /// The yardstick, measured in the same run.
    pub(crate) yardstick: &'static str,
    pub(crate) target: Target,
    /// The library's figure divided by the yardstick's.
    pub(crate) ratio: f64,
    /// Both absolute figures, and other counts: allocations, round trips, calls.
    pub(crate) detail: String,
    /// Whether the other promises hold, such as no allocation or one round trip.
    pub(crate) holds: bool,
}

/// All figures of this run.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Row>,
    groups: Vec<String>,
}

impl Table {
    /// Makes a table for the groups that the command names, or for all groups if it names none.
    pub(crate) fn from_arguments() -> Self {
        // Cargo adds `--bench`.
        let groups = env::args().skip(1).filter(|arg| !arg.starts_with("--"));
        Self {
            rows: Vec::new(),
            groups: groups.collect(),
        }
    }

    pub(crate) fn wants(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|name| name == group)
    }

    pub(crate) fn add(&mut self, row: Row) {
        println!("{}", line(&row));
        self.rows.push(row);
    }

    /// Prints the table, and writes it if it has all groups.
    pub(crate) fn finish(&self) {
        let mut text = String::from(
            "| what | yardstick in the same run | target | measured | |\n|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            text.push_str(&line(row));
            text.push('\n');
        }
        println!("\n{text}");
        if self.groups.is_empty() {
            let mut page =
                String::from("# What it costs\n\nWritten by `cargo bench --bench table`");
            let _ = write!(page, " {}.\n\n{text}", crate::common::machine::here());
            page.push_str(LIMITS);
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/TABLE.md");
            fs::write(&file, page).expect("benches/TABLE.md");
        }
    }
}

fn line(row: &Row) -> String {
    let Row {
        what,
        yardstick,
        target,
        ratio,
        detail,
        holds,
    } = row;
    let is_met = target.is_met(*ratio) && *holds;
    let verdict = if is_met { "met" } else { "**missed**" };
    format!("| {what} | {yardstick} | {target} | **{ratio:.2} ×**; {detail} | {verdict} |")
}
