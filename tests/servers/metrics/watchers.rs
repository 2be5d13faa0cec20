//! Tests that the dashboard and the alerts use only metrics that exist.

use super::guide::in_guide;
use super::promtool::promtool;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

const DASHBOARD: &str = include_str!("../../../examples/grafana/dashboard.json");
const ALERTS: &str = include_str!("../../../examples/prometheus/alerts.yaml");

/// Returns the expressions of the dashboard, each with its panel.
fn expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let of = |panel: &Value| {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| {
            let expression = target["expr"].as_str().expect("an expression");
            (title.clone(), expression.to_owned())
        })
    };
    panels.iter().flat_map(of).collect()
}

/// Returns the metrics that a text names, each with the conditions on its labels.
fn selectors(text: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices("layercache_").map(|(at, _)| at);
    let selector = |at: usize| {
        let text = &text[at..];
        let (name, rest) = text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()));
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        (name, labels.map_or("", |(labels, _)| labels))
    };
    starts.map(selector).collect()
}

/// Checks that such a metric exists, and that its labels have these values.
fn exists(what: &str, name: &str, labels: &str) {
    let guide = in_guide();
    let plain = name.strip_suffix("_bucket").unwrap_or(name);
    let Some((kind, known)) = guide.get(plain) else {
        panic!("{what}: there is no {name}");
    };
    assert_eq!(name != plain, kind == "histogram", "{what}: {name}");
    for label in labels.split(", ").filter(|label| !label.is_empty()) {
        let at = label.find(['=', '!']).expect("a matcher");
        let (label, matcher) = label.split_at(at);
        if ["job", "instance"].contains(&label) {
            continue;
        }
        let values = known.get(label);
        let values = values.unwrap_or_else(|| panic!("{what}: {name} has no {label}"));
        let values_of_query = matcher.trim_matches(['=', '!', '~', '"']);
        for value in values_of_query.split('|') {
            assert!(values.contains(value), "{what}: {name}, {label} {value}");
        }
    }
}

#[test]
fn the_dashboard_uses_exactly_the_existing_metrics() {
    let mut used = BTreeSet::new();
    for (title, expression) in expressions() {
        for (name, labels) in selectors(&expression) {
            exists(&title, name, labels);
            used.insert(name.trim_end_matches("_bucket").to_owned());
        }
    }
    let all: BTreeSet<_> = in_guide().into_keys().collect();
    assert_eq!(used, all);
}

#[test]
fn the_alerts_use_only_existing_metrics() {
    let selectors = selectors(ALERTS);
    assert!(selectors.len() > 10, "{selectors:?}");
    for (name, labels) in selectors {
        exists("alerts", name, labels);
    }
}

/// Prometheus parses each expression, with the values that Grafana puts in place of its variables.
#[test]
fn promtool_accepts_the_expressions_of_the_dashboard() {
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (i, (_, expression)) in expressions().iter().enumerate() {
        let expression = expression
            .replace("$__rate_interval", "5m")
            .replace("$__range", "1h")
            .replace("$job", ".*")
            .replace("$instance", ".*");
        let expression = serde_json::to_string(&expression).expect("a text");
        rules += &format!("      - record: panel:{i}\n        expr: {expression}\n");
    }
    assert!(!rules.contains('$'), "{rules}");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dashboard.yaml");
    fs::write(&file, rules).expect("to write there");
    promtool(&["check", "rules", file.to_str().expect("a path")], "");
}

#[test]
fn the_dashboard_has_the_expected_rows() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has its own id");
    let rows = panels.iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.filter_map(|row| row["title"].as_str()).collect();
    assert_eq!(
        rows,
        [
            "Hit ratios",
            "Latency",
            "Fills and leases",
            "Coherence",
            "Redis and changes",
            "Memory",
            "Purges and repairs",
            "Verification",
        ]
    );
}
