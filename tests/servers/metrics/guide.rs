//! Compares the table of metrics in the guide with the metrics of a real cache.

use layercache::{CachedStore, VerifierConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use test_support::metrics::Metrics;
use test_support::nodes::{bare, config_at};

/// The labels of a metric, each with its values.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Returns the metrics of the guide, each with its kind and labels.
pub(crate) fn in_guide() -> BTreeMap<String, (String, Labels)> {
    let guide = include_str!("../../../src/guide/metrics.md");
    let rows = guide
        .lines()
        .filter(|line| line.starts_with("| `layercache_"));
    let row = |row: &str| {
        let cells: Vec<_> = row
            .trim_matches(['|', ' '])
            .split(" | ")
            .map(str::trim)
            .collect();
        let labels = cells.get(3).copied().unwrap_or_default();
        let labels = labels.split("), ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, values) = label.split_once(" (").expect("a label and its values");
            let values = values.trim_end_matches(')').split(", ");
            (
                name.trim_matches('`').to_owned(),
                values.map(str::to_owned).collect(),
            )
        });
        let kind = cells[1].to_owned();
        (
            cells[0].trim_matches('`').to_owned(),
            (kind, labels.collect()),
        )
    };
    rows.map(row).collect()
}

/// Returns the metrics of an exposition, each with its kind and labels.
pub(crate) fn in_text(text: &str) -> BTreeMap<String, (String, Labels)> {
    let mut metrics = BTreeMap::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            metrics.insert(name.to_owned(), (kind.to_owned(), Labels::new()));
        } else if !line.starts_with('#') && !line.is_empty() {
            let (series, _) = line.rsplit_once(' ').expect("a series and its value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let of = |suffix| name.strip_suffix(suffix);
            let plain = [Some(name), of("_bucket"), of("_sum"), of("_count")];
            let plain = plain
                .into_iter()
                .flatten()
                .find(|name| metrics.contains_key(*name));
            let Some((_, all)) = plain.and_then(|name| metrics.get_mut(name)) else {
                panic!("of no type: {line}");
            };
            let labels = labels.trim_end_matches('}').split(',');
            for label in labels.filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').expect("a label");
                if name != "le" && name != "quantile" {
                    let values = all.entry(name.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    metrics
}

/// Returns the metrics of a new cache that uses all options.
pub(crate) fn of_a_new_cache() -> String {
    let (metrics, store) = Metrics::of(|| {
        let builder = CachedStore::builder(bare(Duration::ZERO));
        let builder = builder.redis(config_at("redis://127.0.0.1:1"));
        builder.verifier(VerifierConfig::default()).build().unwrap()
    });
    let text = metrics.text();
    drop(store);
    text
}

#[test]
fn the_guide_lists_exactly_the_metrics_of_a_cache() {
    let emitted = in_text(&of_a_new_cache());
    let guide = in_guide();
    let names = |of: &BTreeMap<String, _>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&emitted), names(&guide));
    for (name, (kind, labels)) in &guide {
        let (is_kind, are_labels) = &emitted[name];
        assert_eq!((is_kind, are_labels), (kind, labels), "{name}");
    }
}

#[test]
fn every_metric_has_a_help_text() {
    let text = of_a_new_cache();
    for name in in_guide().keys() {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
    }
}
