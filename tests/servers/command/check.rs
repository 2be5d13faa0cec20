//! Tests `layercache check`.

use super::{Stage, run, run_with};
use layercache::Link;
use layercache::layout::{Distribution, Layout, OciImages};
use std::path::Path;
use test_support::minio::Minio;
use test_support::nodes::digest;
use test_support::redis::Redis;

const GOOD: &[&str] = &["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"];

async fn check(redis: &Redis, args: &[&str]) -> super::CommandOutput {
    let url = redis.url();
    run(&[&["check", "--redis", &url], args].concat()).await
}

#[tokio::test]
async fn a_good_redis_and_a_good_folder_are_ok() {
    let stage = Stage {
        folder: tempfile::tempdir().unwrap(),
        redis: Redis::start_with(GOOD).await,
    };
    let node = stage.node();
    stage.push(&node, "a/b", 1).await;
    let keys = || {
        let mut keys: Vec<_> = stage
            .redis
            .cli(&["KEYS", "*"])
            .lines()
            .map(str::to_owned)
            .collect();
        keys.sort();
        keys
    };
    let before = keys();
    let output = stage.run(&["check"]).await.expect(0);
    assert_eq!(keys(), before, "the check removes its keys");
    assert!(
        output.out.lines().all(|line| line.starts_with("ok\t")),
        "{output:#?}"
    );
    let output = output.has(&[
        "a primary with 0 replicas",
        "MiB of 100 MiB of memory, volatile-lru",
        "the user may run all commands",
        "it accepts writes",
        "nodes: 1 are connected",
        "layout: the storage has blobs, such as docker/registry/v2/blobs/",
        "layout: the storage has links, such as docker/registry/v2/repositories/a/b/",
        "can be read",
    ]);
    drop(output);

    let json = stage.run(&["check", "--json"]).await.expect(0).json();
    assert_eq!(json["good"], true);
    assert_eq!(json["diagnostics"][0]["severity"], "ok");
}

#[tokio::test]
async fn advice_is_not_a_problem() {
    let redis = Redis::start().await;
    check(&redis, &[])
        .await
        .expect(0)
        .has(&["advice\t", "maxmemory is not set; set it"]);
    let redis = Redis::start_with(&["--maxmemory", "100mb"]).await;
    check(&redis, &[])
        .await
        .expect(0)
        .has(&["advice\t", "noeviction"]);
    assert_eq!(redis.cli(&["DBSIZE"]).trim(), "0");
}

#[tokio::test]
async fn problems_of_a_redis_are_explained() {
    let redis = Redis::start_with(GOOD).await;
    redis.cli(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pa55w0rd-of-the-app",
        "~*",
        "&*",
        "+@all",
        "-unlink",
    ]);
    let url = format!("redis://app:pa55w0rd-of-the-app@{}", redis.address());
    let output = run(&["check", "--redis", &url]).await.expect(1);
    output
        .has(&["wrong\t", "UNLINK", "ACL SETUSER"])
        .keeps("pa55w0rd-of-the-app");
    redis.cli(&["ACL", "SETUSER", "app", "+@all", "resetchannels"]);
    let output = run(&["check", "--redis", &url, "--json"]).await.expect(1);
    let json = output.json();
    assert_eq!(json["good"], false);
    assert!(output.out.contains("SUBSCRIBE to layercache::*"), "{json}");

    let replica = Redis::start().await;
    replica.cli(&["REPLICAOF", "127.0.0.1", &redis.port().to_string()]);
    check(&replica, &[])
        .await
        .expect(1)
        .has(&["wrong\t", "is a replica; name its primary"]);

    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "3"]);
    check(&redis, &[])
        .await
        .expect(1)
        .has(&["accepts no writes", "too few replicas"]);

    let full = Redis::start_with(&["--maxmemory", "100kb"]).await;
    check(&full, &[])
        .await
        .expect(1)
        .has(&["wrong\t", "its memory is full"]);
}

fn put(folder: &Path, path: &object_store::path::Path, content: &str) {
    let path = folder.join(path.as_ref());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

async fn check_folder(folder: &Path, args: &[&str]) -> super::CommandOutput {
    let storage = ["check", "--storage", folder.to_str().unwrap()];
    run(&[&storage, args].concat()).await
}

#[tokio::test]
async fn a_layout_that_would_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    check_folder(folder, &[])
        .await
        .expect(0)
        .has(&["advice\tlayout: the storage is empty"]);

    std::fs::write(folder.join("readme.txt"), "x").unwrap();
    check_folder(folder, &[]).await.expect(1).has(&[
        "wrong\tlayout: none of 1 objects is a blob or a link; the first is readme.txt",
        "this is not a registry",
    ]);

    let moved = Distribution::new("eu/registry".into());
    put(folder, &moved.blob_path(&digest(0)).unwrap(), "content");
    check_folder(folder, &[])
        .await
        .expect(1)
        .has(&["this layout would fit: --layout distribution --root 'eu/registry'"]);
    check_folder(folder, &["--root", "eu/registry"])
        .await
        .expect(0)
        .has(&["ok\tlayout: the storage has blobs", "no links were found"]);

    let other = tempfile::tempdir().unwrap();
    let link = Link::layer("a/b".parse().unwrap(), digest(0));
    put(
        other.path(),
        &OciImages::default().link_path(&link).unwrap(),
        "content",
    );
    check_folder(other.path(), &[])
        .await
        .expect(1)
        .has(&["this layout would fit: --layout oci"]);
    check_folder(other.path(), &["--layout", "oci"])
        .await
        .expect(0)
        .has(&["ok\tlayout: the storage has blobs"]);
}

#[tokio::test]
async fn problems_of_a_bucket_are_explained() {
    let minio = Minio::shared().await;
    let bucket = minio.bucket().await;
    let storage = format!("s3://{bucket}");
    let args = ["check", "--storage", &storage];
    let with = |name: &str, value: &str| {
        let mut env = minio.env(&bucket);
        env.push((name.to_owned(), value.to_owned()));
        env
    };
    let secret = "s3cret-of-no-user";
    let output = run_with(&args, &with("AWS_SECRET_ACCESS_KEY", secret))
        .await
        .expect(1);
    output
        .has(&["wrong\tstorage: ", "check the access keys"])
        .keeps(secret);
    let output = run_with(&args, &with("AWS_ENDPOINT", "http://127.0.0.1:1"))
        .await
        .expect(1);
    output.has(&["wrong\tstorage: ", "check the address"]);
    let missing = ["check", "--storage", "s3://there-is-no-such-bucket"];
    let output = run_with(&missing, &minio.env(&bucket)).await.expect(1);
    output.has(&["wrong\tstorage: ", "name of the bucket"]);
    run_with(&args, &minio.env(&bucket))
        .await
        .expect(0)
        .has(&["advice\tlayout: the storage is empty"]);
}
