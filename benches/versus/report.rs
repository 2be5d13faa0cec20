//! Writes the table of measured figures into `benches/versus/RESULT.md` and the guide.

use crate::common::cell::Cell;
use crate::common::machine;
use crate::{Pair, TIME, plot};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The figures stand between these two lines of the guide's page.
const BEGIN: &str = "<!-- versus: written by `cargo bench --bench versus` -->";
const END: &str = "<!-- versus: end -->";

const HOW: &str = "\
Each cell has the example first, then Debian's docker-registry 2.8.2 with its Redis cache. Both serve the same image of
ten layers from the same MinIO with the same Redis. The bench measures one registry after the other. It empties Redis
before it starts a registry, and sends requests for half a second before it measures.

- CPU is that of the whole server process, with the kernel's work for it. The other figures also depend on the load on the
  cores: the load generator, Redis, MinIO and the proxy that counts S3 calls run on the same machine.
- Each connection asks again as soon as it has its answer. The load generator checks every answer.
- Redis counts the commands. The bench subtracts those that a server sends without requests (heartbeats).
- The Go registry is at its best: the bench configures it to log no requests and to keep its connections to Redis. By
  default it does neither.
";

/// Returns a Markdown table with the example's and the Go registry's figure in each cell.
pub(crate) fn table(pairs: &[Pair]) -> String {
    let mut text = String::from(
        "| | connections | CPU a request | requests/s | p50 | p99 | Redis commands a request | S3 calls a request |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for pair in pairs {
        let both = |figure: fn(&Cell) -> String| {
            format!("**{}** / {}", figure(&pair.ours), figure(&pair.go))
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            pair.question.title,
            pair.connections,
            both(|cell| time(cell.cpu)),
            both(|cell| thousands(cell.per_second)),
            both(|cell| time(cell.p50)),
            both(|cell| time(cell.p99)),
            both(|cell| count(cell.redis_commands)),
            both(|cell| count(cell.backend_calls)),
        );
    }
    text
}

/// Writes the table, the plots, and their part of the guide's page.
pub(crate) fn write(pairs: &[Pair]) {
    let folder = root().join("benches/versus");
    plot::draw(
        &folder.join("cpu.svg"),
        "CPU of a request, in microseconds",
        pairs,
        |cell| cell.cpu.as_secs_f64() * 1e6,
    );
    plot::draw(
        &folder.join("rate.svg"),
        "requests a second",
        pairs,
        |cell| cell.per_second,
    );

    let when = format!(
        "Measured {}; {} s for each cell.",
        machine::here(),
        TIME.as_secs()
    );
    let text = format!("{}\n{HOW}\n{when}\n", table(pairs));
    let page = format!(
        "# Beside the Go registry\n\nWritten by `cargo bench --bench versus`.\n\n{text}\n{}",
        images("")
    );
    save(&folder.join("RESULT.md"), &page);
    into_guide(&format!("{}\n{text}", images(PUBLISHED)));
}

/// The address of the plots for the guide, which is read on docs.rs.
const PUBLISHED: &str =
    "https://raw.githubusercontent.com/layercache/layercache/main/benches/versus/";

fn images(folder: &str) -> String {
    format!(
        "![CPU of a request by connections, both registries]({folder}cpu.svg)\n\
         ![Requests a second by connections, both registries]({folder}rate.svg)\n"
    )
}

fn into_guide(text: &str) {
    let file = root().join("src/guide/benchmarks.md");
    let page = fs::read_to_string(&file).expect("the guide's page");
    let parts = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.expect("the page's two lines for this");
    save(&file, &format!("{before}{BEGIN}\n\n{text}\n{END}{after}"));
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn save(file: &Path, text: &str) {
    fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        0.0..1000.0 => format!("{micros:.0} µs"),
        1000.0..10_000.0 => format!("{:.1} ms", micros / 1000.0),
        _ => format!("{:.0} ms", micros / 1000.0),
    }
}

fn thousands(number: f64) -> String {
    let number = number.round() as u64;
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{thousands},{:03}", number % 1000),
    }
}

/// Formats a number with one digit after the point, or without it if that digit is 0.
fn count(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}
