//! Tests `layercache watch`.

use super::{command, run};
use axum::Router;
use axum::routing::get;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use test_support::http;
use test_support::redis::Redis;
use test_support::server::free_port;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

/// Starts a node that answers with these metrics, in which `N` grows by 10 with each request.
async fn node(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicU64::new(0));
    let metrics = move || async move {
        let count = asked.fetch_add(10, Ordering::SeqCst) + 10;
        text.replace('N', &count.to_string())
    };
    let router = Router::new().route("/metrics", get(metrics));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

const HEALTHY: &str = "\
# TYPE layercache_lookups_total counter
layercache_lookups_total{fact=\"membership\",tier=\"memory\",result=\"hit\"} N
layercache_lookups_total{fact=\"membership\",tier=\"memory\",result=\"miss\"} 0
layercache_lookups_total{fact=\"meta\",tier=\"redis\",result=\"hit\"} 1
layercache_lookups_total{fact=\"meta\",tier=\"redis\",result=\"miss\"} 3
layercache_fills_total{result=\"fenced\"} 2
layercache_caches 1
layercache_memory_trusted 1
layercache_redis_breakers{state=\"open\"} 0
layercache_redis_breakers{state=\"closed\"} 1
";

const UNTRUSTED: &str = "\
layercache_lookups_total{fact=\"membership\",tier=\"memory\",result=\"hit\"} 0
layercache_lookups_total{fact=\"membership\",tier=\"memory\",result=\"miss\"} N
layercache_caches 1
layercache_memory_trusted 0
layercache_redis_breakers{state=\"open\"} 1
";

#[tokio::test]
async fn once_prints_the_counts_since_the_start() {
    let (healthy, untrusted) = (node(HEALTHY).await, node(UNTRUSTED).await);
    let output = run(&["watch", "--once", &healthy, &untrusted])
        .await
        .expect(0);
    let row = output.row(&healthy);
    assert_eq!(
        row[1..],
        [
            "10", "100.0%", "-", "-", "25.0%", "-", "2", "-", "-", "yes", "closed"
        ]
    );
    let row = output.row(&untrusted);
    assert_eq!(
        row[1..],
        [
            "10", "0.0%", "-", "-", "-", "-", "-", "-", "-", "no", "open"
        ]
    );
    let row = output.row("together");
    assert_eq!(
        row[1..],
        [
            "20", "50.0%", "-", "-", "25.0%", "-", "2", "-", "-", "no", "open"
        ]
    );
}

#[tokio::test]
async fn a_node_without_metrics_is_away() {
    let healthy = node(HEALTHY).await;
    let closed_port = format!("127.0.0.1:{}", free_port());
    let page = node("<html>hello</html>").await;
    let others = node("go_goroutines 5\n").await;
    let missing = format!("http://{healthy}/nothing");
    let output = run(&[
        "watch",
        "--once",
        &healthy,
        &closed_port,
        &page,
        &others,
        &missing,
    ])
    .await
    .expect(1);
    assert_eq!(
        output.row(&closed_port)[1],
        "away: the node cannot be reached"
    );
    assert_eq!(
        output.row(&page)[1],
        "away: the answer is not metrics: line 1 is not a metric"
    );
    assert_eq!(
        output.row(&others)[1],
        "away: the metrics are not of layercache"
    );
    assert!(output.row(&format!("{healthy}/nothing"))[1].starts_with("away: the node answers 404"));
    assert_eq!(output.row("together")[2], "100.0%");

    let json = run(&["watch", "--once", "--json", &healthy, &closed_port])
        .await
        .expect(1)
        .json();
    assert_eq!(json["nodes"][1]["away"], "the node cannot be reached");
    assert_eq!(json["nodes"][0]["figures"]["trusted"], true);
    assert_eq!(json["seconds"], Value::Null);
}

#[tokio::test]
async fn each_interval_prints_a_line() {
    let healthy = node(HEALTHY).await;
    let mut child = command(&["watch", "--json", "--interval", "200ms", &healthy])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut views = Vec::new();
    for _ in 0..3 {
        let line = lines.next_line().await.unwrap().unwrap();
        views.push(serde_json::from_str::<Value>(&line).unwrap());
    }
    child.kill().await.unwrap();
    assert_eq!(views[0]["seconds"], Value::Null);
    let seconds = views[2]["seconds"].as_f64().unwrap();
    let asked = views[2]["together"]["asked"].as_f64().unwrap();
    assert!((asked - 10.0 / seconds).abs() < 0.01, "{views:?}");

    let mut child = command(&["watch", "--interval", "200ms", &healthy])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let head = lines.next_line().await.unwrap().unwrap();
    for _ in 0..3 {
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(line.split('\t').count(), head.split('\t').count(), "{line}");
    }
    child.kill().await.unwrap();
}

#[tokio::test]
async fn the_metrics_of_a_real_node_are_read() {
    let redis = Redis::start().await;
    let url = redis.url();
    let node = http::Node::start_with(&["--redis", &url, "--redis-timeout", "5s"]).await;
    let image = http::Image::new(1);
    node.http.push("a/b", "latest", &image).await;
    let path = http::blob("a/b", &image.layer_digest());
    for _ in 0..20 {
        node.http.head(&path).await.expect(200);
    }
    let address = node.registry.address();
    let output = run(&["watch", "--once", &address]).await.expect(0);
    let row = output.row(&address);
    assert!(row[1].parse::<u64>().unwrap() >= 20, "{row:?}");
    assert!(row[2].ends_with('%') && row[3].ends_with('%'), "{row:?}");
}
