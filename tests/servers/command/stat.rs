//! Tests `layercache stat`.

use super::{Stage, name, run_with, settle};
use layercache::CachedStore;
use layercache::layout::{Distribution, Layout};
use object_store::ObjectStoreExt;
use object_store::prefix::PrefixStore;
use test_support::minio::Minio;
use test_support::nodes::{config, digest};
use test_support::redis::Redis;

#[tokio::test]
async fn redis_and_the_storage_agree() {
    let stage = Stage::new().await;
    let node = stage.node();
    stage.push(&node, "a/b", 1).await;
    let subject = format!("a/b@{}", digest(0));

    let output = stage.run(&["stat", &subject]).await.expect(0);
    let layer = output.row("as a layer");
    assert_eq!(&layer[1..4], ["n/a", "yes", "yes"]);
    assert!(
        layer[4].starts_with("in 2") && layer[5] == "-" && layer[6] == "-",
        "{layer:?}"
    );
    assert_eq!(&output.row("as a manifest")[1..4], ["n/a", "no", "no"]);
    assert_eq!(&output.row("blob")[2..4], ["yes", "yes"]);
    assert_eq!(output.row("length"), ["  length", "", "7", "7"]);
    let path = output.row("path");
    assert_eq!(path[2], path[3]);
    output.has(&["verdict: Redis and the storage agree"]);

    let json = stage
        .run(&["stat", &subject, "--json"])
        .await
        .expect(0)
        .json();
    assert_eq!(json["agree"], true);
    assert_eq!(json["redis"]["layer"]["value"], "found");
    assert_eq!(json["redis"]["layer"]["key"], "repository::a/b::blobs");
    assert_eq!(json["redis"]["manifest"]["value"], "absent");
    assert_eq!(json["redis"]["fields"]["length"], "7");
    assert_eq!(json["storage"]["layer"], "linked");
    assert_eq!(json["storage"]["meta"]["length"], 7);
    assert!(
        json["redis"]["meta"]["expires"].as_f64().unwrap() > 70_000.0,
        "{json}"
    );

    // A fact that Redis does not know is no disagreement, because a node then asks the storage.
    let other = format!("c/d@{}", digest(0));
    stage
        .run(&["stat", &other])
        .await
        .expect(0)
        .has(&["verdict: Redis and the storage agree"]);
    let unknown = format!("c/d@{}", digest(9));
    let output = stage.run(&["stat", &unknown]).await.expect(0);
    output.has(&["Redis has no fact about the blob"]);
}

#[tokio::test]
async fn a_deletion_without_the_caches_knowledge_is_a_disagreement() {
    let stage = Stage::new().await;
    let node = stage.node();
    stage.push(&node, "a/b", 2).await;

    stage.unlink("a/b", &digest(0));
    let output = stage
        .run(&["stat", &format!("a/b@{}", digest(0))])
        .await
        .expect(1);
    assert_eq!(&output.row("as a layer")[2..4], ["yes", "no"]);
    output.has(&[
        "Redis and the storage disagree",
        "as a layer, and the storage denies it",
        "layercache purge --repository a/b",
    ]);

    stage.collect(&digest(1));
    let subject = format!("a/b@{}", digest(1));
    let json = stage
        .run(&["stat", &subject, "--json"])
        .await
        .expect(1)
        .json();
    assert_eq!(json["agree"], false);
    let output = json["disagreements"][0].as_str().unwrap();
    assert!(
        output.contains("a blob that the storage does not have"),
        "{json}"
    );
    assert_eq!(json["storage"]["meta"], serde_json::Value::Null);
}

#[tokio::test]
async fn another_length_and_a_broken_value_are_disagreements() {
    let stage = Stage::new().await;
    let node = stage.node();
    stage.push(&node, "a/b", 1).await;
    let (hash, subject) = (
        format!("blobs::{}", digest(0)),
        format!("a/b@{}", digest(0)),
    );

    stage.redis.cli(&["HSET", &hash, "length", "8"]);
    let output = stage.run(&["stat", &subject]).await.expect(1);
    output.has(&["length is 8 in Redis, 7 in the storage"]);

    stage.redis.cli(&["HSET", &hash, "length", "x"]);
    let output = stage.run(&["stat", &subject]).await.expect(1);
    assert_eq!(output.row("blob")[2], "broken");

    stage.redis.cli(&["DEL", &hash]);
    stage.redis.cli(&["SET", "repository::a/b::blobs", "x"]);
    let output = stage.run(&["stat", &subject]).await.expect(1);
    assert_eq!(output.row("as a layer")[2], "broken");
    output.has(&["`repository::a/b::blobs` holds a value that no node accepts"]);
}

#[tokio::test]
async fn leases_fences_and_fields_of_a_go_registry_are_shown() {
    let stage = Stage::new().await;
    let (digest, subject) = (digest(0), format!("a/b@{}", digest(0)));
    let redis = &stage.redis;
    redis.cli(&[
        "HSET",
        &format!("blobs::{digest}"),
        "size",
        "7",
        "mediatype",
        "text/x",
        "digest",
        &digest.to_string(),
    ]);
    redis.cli(&[
        "HSET",
        &format!("repository::a/b::blobs::{digest}"),
        "mediatype",
        "text/y",
    ]);
    redis.cli(&["SADD", "repository::a/b::blobs", &digest.to_string()]);
    let beside = |what| format!("{what}::{{repository::a/b::blobs}}::{digest}");
    redis.cli(&["SADD", &beside("fence"), "1", "2"]);
    redis.cli(&["PEXPIRE", &beside("fence"), "30000"]);
    redis.cli(&[
        "SET",
        &format!("lease::{{blobs::{digest}}}"),
        "1",
        "PX",
        "9000",
    ]);

    // The storage has none of it, but the command does not judge facts that are being changed.
    let output = stage.run(&["stat", &subject]).await.expect(1);
    let layer = output.row("as a layer");
    assert_eq!((layer[2], layer[4]), ("yes", "never"));
    assert!(layer[6].starts_with("2 changes, in "), "{layer:?}");
    assert!(output.row("blob")[5].starts_with("in 8s"), "{output:?}");
    assert_eq!(output.row("size")[2], "7");
    assert_eq!(output.row("mediatype")[2], "text/x");
    assert_eq!(output.row("Go's mediatype here")[2], "text/y");
    assert!(
        !output.out.contains("as a layer, and the storage denies"),
        "{output:?}"
    );
    output.has(&["a blob that the storage does not have"]);

    let json = stage
        .run(&["stat", &subject, "--json"])
        .await
        .expect(1)
        .json();
    assert_eq!(json["redis"]["layer"]["expires"], "never");
    assert_eq!(json["redis"]["layer"]["fence"]["changes"], 2);
    assert!(json["redis"]["meta"]["lease"].as_f64().is_some(), "{json}");
}

#[tokio::test]
async fn stat_only_reads() {
    let stage = Stage::new().await;
    stage
        .redis
        .cli(&["SADD", "repository::a/b::blobs", &digest(0).to_string()]);
    stage.redis.cli(&["CONFIG", "RESETSTAT"]);
    stage
        .run(&["stat", &format!("a/b@{}", digest(0))])
        .await
        .expect(1);
    let stats = stage.redis.cli(&["INFO", "commandstats"]);
    let commands = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"));
    let commands: Vec<_> = commands.filter_map(|line| line.split(':').next()).collect();
    let reads = [
        "sismember",
        "hmget",
        "pttl",
        "scard",
        "ping",
        "hello",
        "client|setinfo",
        "info",
        "config|resetstat",
        "select",
    ];
    for command in &commands {
        assert!(reads.contains(command), "{command} of {commands:?}");
    }
    assert!(commands.contains(&"hmget"), "{commands:?}");
}

#[tokio::test]
async fn a_bucket_with_a_prefix_is_read() {
    let (minio, redis) = (Minio::shared().await, Redis::start().await);
    let bucket = minio.bucket().await;
    let store = PrefixStore::new(minio.store(&bucket), "cli/eu");
    let node = CachedStore::builder(store)
        .redis(config(&redis))
        .build()
        .unwrap();
    let path = Distribution::default().blob_path(&digest(0)).unwrap();
    node.put(&path, "content".into()).await.unwrap();
    let repository = node.registry().repository(name("a/b"));
    repository.link(&digest(0)).await.unwrap();
    settle(&repository, &digest(0)).await;

    let storage = format!("s3://{bucket}/cli/eu");
    let (subject, url) = (format!("a/b@{}", digest(0)), redis.url());
    let mut env = minio.env(&bucket);
    // A service would be configured like this, with variables alone.
    env.push(("LAYERCACHE_STORAGE".into(), storage.clone()));
    env.push(("LAYERCACHE_REDIS_URL".into(), url));
    let output = run_with(&["stat", &subject], &env).await.expect(0);
    let tag = output.row("e_tag");
    assert!(tag[2] == tag[3] && tag[2].len() > 8, "{tag:?}");
    output.has(&["verdict: Redis and the storage agree"]);

    let check = ["check", "--storage", &storage];
    run_with(&check, &minio.env(&bucket))
        .await
        .expect(0)
        .has(&["ok\tlayout: the storage has blobs, such as"]);
}
