//! Tests one server behind users, permissions and a Unix socket.

use super::{BLOBS, assert_reason, assert_serves, keys, node_at, only_reads, reason, stocked};
use layercache::{CacheStatus, RedisConfig};
use std::time::{Duration, Instant};
use test_support::nodes::{
    config_at, digest, eventually_changes, layers, node_with, stat, until_in_memory,
};
use test_support::redis::{Redis, Version};

const PASSWORD: &str = "pa55w0rd-of-the-app";

/// The rights that the cache needs, as an operator would grant them.
const ENOUGH: &[&str] = &[
    "~repository::*",
    "~blobs::*",
    "~lease::*",
    "~fence::*",
    "~layercache::*",
    "&layercache::*",
    "-@all",
    "+@connection",
    "+@string",
    "+@hash",
    "+@set",
    "+@sortedset",
    "+@keyspace",
    "+@scripting",
    "+@pubsub",
    "-@dangerous",
    "+info",
    "+time",
];

/// Starts a server that has only the user `app`.
async fn redis_for(version: Version, rights: &[&str]) -> Redis {
    let redis = Redis::start_of(version).await;
    set_rights(&redis, rights);
    redis
}

fn set_rights(redis: &Redis, rights: &[&str]) {
    let password = format!(">{PASSWORD}");
    let user = [
        "ACL",
        "SETUSER",
        "app",
        "reset",
        "resetchannels",
        "on",
        &password,
    ];
    redis.cli(&[&user, rights].concat());
}

fn url(redis: &Redis) -> String {
    format!("redis://app:{PASSWORD}@{}", redis.address())
}

#[tokio::test]
async fn a_redis_user_with_the_documented_rights_is_sufficient() {
    for version in [Version::Redis6_2, Version::Redis, Version::Valkey] {
        let redis = redis_for(version, ENOUGH).await;
        assert_serves(&url(&redis), |pattern| keys(&redis, 0, pattern)).await;
        let log = redis.cli(&["ACL", "LOG"]);
        let denied: Vec<_> = log
            .lines()
            .zip(log.lines().skip(1))
            .filter(|(name, value)| *name == "object" && !value.starts_with("client"))
            .collect();
        // The cache does not need the right to set its client name.
        assert!(denied.is_empty(), "{version:?} denied {denied:?}");
    }
}

#[tokio::test]
async fn a_missing_redis_right_is_named_and_reads_succeed() {
    let redis = redis_for(Version::Redis, &[]).await;
    let missing: &[(&[&str], &[&str])] = &[
        (&["-info"], &["info"]),
        (&["-evalsha"], &["'evalsha'"]),
        (&["-eval"], &["'eval'"]),
        (&["-subscribe"], &["'subscribe'"]),
        // Not every server names the command that failed inside a script.
        (&["-publish"], &["publish", "can't run this command"]),
        (&["resetchannels", "&other::*"], &["channel"]),
        (&["resetkeys", "~blobs::*", "~repository::*"], &["key"]),
        (
            &["-zrangebyscore"],
            &["zrangebyscore", "can't run this command"],
        ),
    ];
    for (rights, named) in missing {
        set_rights(&redis, &[ENOUGH, rights].concat());
        let reason = only_reads(config_at(url(&redis))).await;
        assert_reason(&reason, named, &[PASSWORD]);
    }
}

#[tokio::test]
async fn rights_can_be_revoked_and_granted_again_while_a_node_runs() {
    let redis = redis_for(Version::Redis, ENOUGH).await;
    let bare = stocked().await;
    let node = node_at(&bare, &url(&redis));
    until_in_memory(&node, &digest(1)).await;
    set_rights(&redis, &[ENOUGH, &["-evalsha", "-eval"]].concat());
    let refused = layers(&node).unlink(&digest(1)).await.unwrap_err();
    assert_reason(&reason(&refused), &["eval"], &[PASSWORD]);
    set_rights(&redis, ENOUGH);
    eventually_changes(&node).await;
    until_in_memory(&node, &digest(1)).await;
}

#[tokio::test]
async fn an_authentication_error_is_named_without_secrets() {
    let redis = redis_for(Version::Redis, ENOUGH).await;
    for url in [
        format!("redis://app:wrong-{PASSWORD}@{}", redis.address()),
        format!("redis://unknown:{PASSWORD}@{}", redis.address()),
    ] {
        let reason = only_reads(config_at(url)).await;
        assert_reason(&reason, &["WRONGPASS", "authentication"], &[PASSWORD]);
    }
    redis.cli(&["CONFIG", "SET", "requirepass", PASSWORD]);
    let reason = only_reads(config_at(format!("redis://{}", redis.address()))).await;
    assert_reason(&reason, &["NOAUTH", "authentication"], &[PASSWORD]);
}

/// Characters with a meaning in an address are written as `%XX` there.
#[tokio::test]
async fn a_password_with_special_characters_works() {
    let redis = Redis::start().await;
    redis.cli(&[
        "ACL",
        "SETUSER",
        "a@b",
        "on",
        ">p@ss:w/ö%?&#",
        "~*",
        "&*",
        "+@all",
    ]);
    let url = format!(
        "redis://a%40b:p%40ss%3Aw%2F%C3%B6%25%3F%26%23@{}",
        redis.address()
    );
    assert_serves(&url, |pattern| keys(&redis, 0, pattern)).await;
}

#[tokio::test]
async fn each_database_has_its_own_keys() {
    let redis = Redis::start().await;
    assert_serves(&format!("{}/3", redis.url()), |pattern| {
        keys(&redis, 3, pattern)
    })
    .await;
    assert_eq!(redis.cli(&["-n", "0", "DBSIZE"]), "0");
}

#[tokio::test]
async fn a_unix_socket_works_like_a_port() {
    let redis = Redis::start_with(&["--unixsocket", "redis.sock"]).await;
    let socket = redis.folder().join("redis.sock");
    let socket = format!("unix://{}", socket.to_str().unwrap());
    assert_serves(&socket, |pattern| keys(&redis, 0, pattern)).await;

    set_rights(&redis, ENOUGH);
    redis.cli(&["FLUSHALL"]);
    let url = format!("{socket}?user=app&pass={PASSWORD}&db=3");
    assert_serves(&url, |pattern| keys(&redis, 3, pattern)).await;
    assert_eq!(redis.cli(&["-n", "0", "DBSIZE"]), "0");

    let wrong = config_at(format!("{socket}?user=app&pass=wrong-{PASSWORD}"));
    assert_reason(&only_reads(wrong).await, &["WRONGPASS"], &[PASSWORD]);
    let missing = config_at("unix:///nowhere/redis.sock");
    assert_reason(&only_reads(missing).await, &["No such file"], &[]);
}

/// Operators rename commands. An error names a missing command that the cache needs. The cache
/// works without the commands that it does not need.
#[tokio::test]
async fn a_renamed_command_is_named_if_the_cache_needs_it() {
    for (command, named) in [
        ("EVALSHA", "EVALSHA"),
        ("EVAL", "EVAL"),
        ("SMISMEMBER", "SMISMEMBER"),
        ("SUBSCRIBE", "SUBSCRIBE"),
        ("INFO", "INFO"),
    ] {
        let redis = Redis::start_unchecked(&["--rename-command", command, ""]).await;
        let reason = only_reads(config_at(redis.url())).await;
        assert_reason(&reason, &[named], &[]);
    }
    let mut args = Vec::new();
    for command in [
        "CONFIG", "KEYS", "FLUSHALL", "FLUSHDB", "DEBUG", "CLIENT", "MONITOR", "SCRIPT", "ACL",
        "COMMAND", "ROLE",
    ] {
        args.extend(["--rename-command", command, ""]);
    }
    let redis = Redis::start_unchecked(&args).await;
    assert_serves(&redis.url(), |pattern| keys(&redis, 0, pattern)).await;
}

/// This test uses the default deadline of a node.
#[tokio::test]
async fn a_redis_user_without_rights_delays_no_read_much() {
    let redis = redis_for(Version::Redis, &["+@connection"]).await;
    let bare = stocked().await;
    let node = node_with(&bare, RedisConfig::new(url(&redis)));
    let begin = Instant::now();
    for i in 0..200 {
        let answer = stat(&node, &digest(i % BLOBS)).await;
        assert_eq!(answer.1, CacheStatus::Miss);
    }
    let each = begin.elapsed() / 200;
    assert!(each < Duration::from_millis(25), "{each:?} for each read");
}
