//! Measures the times of two things side by side, with criterion.

use criterion::{Bencher, Criterion};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the two alternate, so that a drift of the machine affects both.
const ROUNDS: usize = 5;

/// The time of the yardstick and of the library, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) yardstick: f64,
    pub(crate) ours: f64,
    /// The median of the rounds' ratios.
    pub(crate) ratio: f64,
}

/// Measures both alternately. `name` must be unique to a group.
pub(crate) fn side_by_side(
    name: &str,
    mut yardstick: impl FnMut(&mut Bencher<'_>),
    mut ours: impl FnMut(&mut Bencher<'_>),
) -> Pair {
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            (
                once(name, "yardstick", &mut yardstick),
                once(name, "ours", &mut ours),
            )
        })
        .collect();
    Pair {
        yardstick: median(rounds.iter().map(|round| round.0)),
        ours: median(rounds.iter().map(|round| round.1)),
        ratio: median(rounds.iter().map(|(yardstick, ours)| ours / yardstick)),
    }
}

/// Returns the nanoseconds of one iteration: the median that criterion estimates.
fn once(group: &str, name: &str, measure: &mut impl FnMut(&mut Bencher<'_>)) -> f64 {
    let folder = folder();
    let mut criterion = Criterion::default()
        .output_directory(&folder)
        .without_plots()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    criterion
        .benchmark_group(group)
        .bench_function(name, |bencher| measure(bencher));
    estimate(&folder.join(group).join(name).join("new/estimates.json"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("criterion")
}

fn estimate(file: &Path) -> f64 {
    let text = fs::read(file).expect("criterion's estimates");
    let estimates: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    estimates["median"]["point_estimate"]
        .as_f64()
        .expect("a median in criterion's estimates")
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
