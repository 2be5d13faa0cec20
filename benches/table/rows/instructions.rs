//! Counts the instructions of a memory hit with valgrind, a figure that does not drift.

use super::hits::{bare, fill, head, stat};
use crate::table::{Row, Table, Target};
use crate::warm::{self, digest, path};
use std::env;
use std::hint::black_box;
use std::process::Command;

/// `HOT` blobs fit into a thread's cache, and `MANY_BLOBS` do not.
const HOT: u32 = 100;
const MANY_BLOBS: u32 = 2_000;

const FEW: u64 = 2_000;
const MANY: u64 = 22_000;

/// The variable that tells this program, when it runs under valgrind, which call to run and how often.
const ASK: &str = "LAYERCACHE_BENCH_ASK";

pub(crate) fn measure(table: &mut Table) {
    let moka = of("moka", HOT);
    for (name, blobs, what, limit) in [
        (
            "stat",
            HOT,
            "instructions of a typed `stat`, memory hit",
            2.0,
        ),
        ("head", HOT, "instructions of a `head`, memory hit", 4.0),
        (
            "stat",
            MANY_BLOBS,
            "instructions of a `stat` of what is not hot",
            2.0,
        ),
    ] {
        let ours = of(name, blobs);
        table.add(Row {
            what,
            yardstick: "one raw moka `get`",
            target: Target::AtMost(limit),
            ratio: ours / moka,
            detail: format!("{ours:.0} against {moka:.0}"),
            holds: true,
        });
    }
}

/// Returns the instructions of one read: the difference between many reads and few, divided by
/// their number.
fn of(name: &str, blobs: u32) -> f64 {
    let [few, many] = [FEW, MANY].map(|times| run(name, times, blobs));
    (many - few) as f64 / (MANY - FEW) as f64
}

fn run(name: &str, times: u64, blobs: u32) -> u64 {
    let program = crate::support::tools::require("valgrind");
    let output = Command::new(program)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("this program"))
        .env(ASK, format!("{name} {times} {blobs}"))
        .output()
        .expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind did not count: {text}"))
}

/// Asks as the environment says, and returns whether it does say so. Valgrind counts the
/// instructions.
pub(crate) fn ask() -> bool {
    let Ok(order) = env::var(ASK) else {
        return false;
    };
    let order: Vec<_> = order.split(' ').collect();
    let [name, times, blobs] = order[..] else {
        panic!("what to ask, how often, of how many blobs");
    };
    let times: usize = times.parse().expect("a number");
    let blobs: u32 = blobs.parse().expect("a number");
    let digests: Vec<_> = (0..blobs).map(digest).collect();
    let paths: Vec<_> = digests.iter().map(path).collect();
    let moka = bare(blobs);
    let (_runtime, store) = warm::store_beside(blobs, |digest| fill(&moka, digest));
    let repository = warm::repository(&store);
    for i in 0..times {
        let at = (i * 7919) % digests.len();
        match name {
            "moka" => drop(black_box(moka.get(digests[at].as_bytes()))),
            "stat" => drop(black_box(stat(&repository, &digests[at]))),
            _ => drop(black_box(head(store.as_ref(), &paths[at]))),
        }
    }
    true
}
