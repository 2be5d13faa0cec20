//! Tests the spans: each operation with I/O has a span with fields, and a hit in memory has none.

use test_support as support;

use layercache::{CacheStatus, Freshness};
use object_store::ObjectStoreExt;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::nodes::{SETTLED, bare, blob_path, digest, layers, node, put, stat, until_in_memory};
use support::redis::Redis;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A span that was created.
#[derive(Debug, Clone)]
struct Made {
    /// Its name and those of its parents, outermost first.
    path: String,
    fields: BTreeMap<&'static str, String>,
}

/// Keeps all spans of the crate, in the order in which they were created.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<(u64, Made)>>>);

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0
            .insert(field.name(), format!("{value:?}").replace('"', ""));
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("layercache") && *metadata.level() <= Level::DEBUG
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !is_ours(attributes.metadata()) {
            return;
        }
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let mut made = self.0.lock().unwrap();
        let span = context.span(id).expect("it was just made");
        let parent = span.parent().map(|parent| parent.id().into_u64());
        let parent = made.iter().rev().find(|(id, _)| Some(*id) == parent);
        let name = fields.get("otel.name").or_else(|| fields.get("call"));
        let name = match name {
            Some(what) => format!("{} {what}", span.name()),
            None => span.name().to_owned(),
        };
        let path = match parent {
            Some((_, parent)) => format!("{}/{name}", parent.path),
            None => name,
        };
        made.push((id.into_u64(), Made { path, fields }));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut made = self.0.lock().unwrap();
        let mut made = made.iter_mut().rev();
        if let Some((_, made)) = made.find(|(it, _)| *it == id.into_u64()) {
            values.record(&mut Fields(&mut made.fields));
        }
    }
}

impl Spans {
    /// Records the spans of this thread, on which all tasks of a test run.
    fn listen() -> (Self, DefaultGuard) {
        let spans = Self::default();
        let subscriber = tracing_subscriber::registry().with(spans.clone());
        (spans, tracing::subscriber::set_default(subscriber))
    }

    /// Returns the spans since the last call.
    fn take(&self) -> Vec<Made> {
        let made = std::mem::take(&mut *self.0.lock().unwrap());
        made.into_iter().map(|(_, made)| made).collect()
    }
}

fn paths(spans: &[Made]) -> Vec<&str> {
    spans.iter().map(|span| span.path.as_str()).collect()
}

/// Waits for the work that follows an answer.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_miss_has_its_spans_and_a_hit_in_memory_none() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let (spans, _listening) = Spans::listen();
    let node = node(&bare, &redis);
    tokio::time::sleep(SETTLED).await;
    let connecting = spans.take();
    assert_eq!(connecting[0].path, "connect");
    assert!(connecting[0].fields.contains_key("server"));
    let (first, digest) = (digest(0), digest(1));
    put(&bare, &first).await;
    put(&bare, &digest).await;
    // This loads the scripts into the server.
    until_in_memory(&node, &first).await;
    spans.take();

    assert_eq!(stat(&node, &digest).await.1, CacheStatus::Miss);
    settled().await;
    let miss = spans.take();
    assert_eq!(
        paths(&miss),
        [
            "load",
            "load/redis look-up",
            "load/redis grant",
            "load/backend stat",
            "load/redis fill",
        ]
    );
    let load = &miss[0].fields;
    assert_eq!(load["repository"], "library/alpine");
    assert_eq!(load["digest"], digest.to_string());
    assert_eq!((&*load["freshness"], &*load["status"]), ("Cached", "Miss"));
    let fetch = &miss[1].fields;
    assert_eq!(fetch["db.system.name"], "redis");
    assert_eq!(fetch["db.operation.name"], "look-up");
    assert_eq!(fetch["db.operation.batch.size"], "2");
    assert_eq!(fetch["otel.kind"], "client");

    assert_eq!(stat(&node, &digest).await.1, CacheStatus::Memory);
    node.head(&blob_path(&digest)).await.unwrap();
    let (layers, three) = (layers(&node), [digest; 3]);
    let many = layers.stat_many(&three, Freshness::Cached).await.unwrap();
    assert_eq!(many[2].status, CacheStatus::Memory);
    assert_eq!(paths(&spans.take()), [""; 0], "a hit has none");

    node.clear_memory();
    assert_eq!(stat(&node, &digest).await.1, CacheStatus::Redis);
    settled().await;
    let hit = spans.take();
    assert_eq!(paths(&hit), ["load", "load/redis look-up"]);
    assert_eq!(hit[0].fields["status"], "Redis");
}

#[tokio::test]
async fn a_change_a_purge_and_a_warm_have_their_spans() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let (spans, _listening) = Spans::listen();
    let node = node(&bare, &redis);
    let digest = digest(1);
    put(&bare, &digest).await;
    until_in_memory(&node, &digest).await;
    tokio::time::sleep(SETTLED).await;
    spans.take();

    layers(&node).unlink(&digest).await.unwrap();
    settled().await;
    let change = spans.take();
    let mut names = paths(&change);
    names.dedup();
    assert_eq!(
        names[..5],
        [
            "change",
            // A server that does not have a script yet causes additional spans.
            "change/redis begin",
            "change/redis announce",
            "change/backend change",
            "change/redis end",
        ]
    );
    assert_eq!(change[0].fields["conclusion"], "Done");
    assert_eq!(change[0].fields["repository"], "library/alpine");
    assert_eq!(change[0].fields["keys"], "1");

    node.purge().await.unwrap();
    let purge = spans.take();
    let names = paths(&purge);
    assert_eq!(names[..2], ["purge", "purge/redis purge"]);
    assert!(names.contains(&"purge/redis announce"));

    let blobs = object_store::path::Path::from("docker/registry/v2/blobs");
    node.warm(Some(&blobs)).await.unwrap();
    let warm = spans.take();
    assert_eq!(warm[0].path, "warm");
    assert_eq!(warm[0].fields["prefix"], blobs.as_ref());
    let names = paths(&warm);
    assert!(names.contains(&"warm/redis grant") && names.contains(&"warm/redis fill"));
}

#[tokio::test]
async fn loads_in_one_batch_share_a_span_that_follows_from_theirs() {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    let (spans, _listening) = Spans::listen();
    let node = node(&bare, &redis);
    tokio::time::sleep(SETTLED).await;
    let digests: Vec<_> = (1..=5).map(digest).collect();
    for digest in &digests {
        put(&bare, digest).await;
    }
    spans.take();
    let asks = digests.iter().map(|digest| stat(&node, digest));
    futures::future::join_all(asks).await;
    settled().await;
    let made = spans.take();
    let count = |path| made.iter().filter(|span| span.path == path).count();
    assert_eq!(count("load"), 5);
    assert_eq!(count("load/redis look-up"), 1, "the first goes alone");
    assert_eq!(count("look-up/redis look-up"), 1, "the others together");
    assert_eq!(count("load/backend stat"), 5);
}
