//! Lets `promtool` check the metrics of the example, and its alerts.

use super::guide::{in_guide, in_text};
use std::io::Write;
use std::process::{Command, Stdio};
use test_support::http::{Image, Node, blob};
use test_support::redis::Redis;
use test_support::tools::require;

/// Runs `promtool` with this standard input.
///
/// # Panics
/// If it reports a problem.
pub(crate) fn promtool(args: &[&str], input: &str) {
    let mut child = Command::new(require("promtool"))
        .args(args)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    let report = [output.stdout, output.stderr].concat();
    let report = String::from_utf8_lossy(&report);
    assert!(output.status.success(), "promtool {args:?}: {report}");
    let is_ok = report.lines().all(|line| {
        let line = line.trim();
        ["", "SUCCESS"].contains(&line)
            || ["Checking ", "SUCCESS: ", "Unit Testing: "]
                .iter()
                .any(|start| line.starts_with(start))
    });
    assert!(is_ok, "promtool {args:?}: {report}");
}

/// Returns the metrics of an example that uses all options and has answered requests.
async fn emitted() -> String {
    let redis = Redis::start().await;
    let url = redis.url();
    let args = [
        "--redis",
        &url,
        "--redis-timeout",
        "5s",
        "--verify-hits",
        "1",
    ];
    let node = Node::start_with(&args).await;
    let image = Image::new(1);
    node.http.push("a/b", "latest", &image).await;
    node.http.pulls("a/b", "latest", &image).await;
    let layer = blob("a/b", &image.layer_digest());
    node.http.delete(&layer).await.expect(202);
    node.http.get("/metrics").await.expect(200).text()
}

#[tokio::test]
async fn the_example_emits_the_metrics_of_the_guide_and_promtool_accepts_them() {
    let text = emitted().await;
    promtool(&["check", "metrics"], &text);
    let mut emitted = in_text(&text);
    for own in [
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_threads",
        "tokio_alive_tasks",
    ] {
        assert!(emitted.remove(own).is_some(), "{own}");
    }
    assert_eq!(emitted, in_guide());
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests() {
    promtool(&["check", "rules", "examples/prometheus/alerts.yaml"], "");
    promtool(
        &["test", "rules", "examples/prometheus/alerts.test.yaml"],
        "",
    );
}
