//! Tests that the scripts do on each supported server what their specification says.

use layercache::internals::{script_texts, specified};
use test_support::redis::{Redis, Version};

async fn do_as_specified(version: Version) {
    let redis = Redis::start_of(version).await;
    specified::scripts_do_as_specified(&redis.url()).await;
}

async fn treat_many_as_each(version: Version) {
    let redis = Redis::start_of(version).await;
    specified::many_are_treated_as_each(&redis.url(), &|args| redis.cli(args)).await;
}

#[tokio::test]
async fn redis_7_treats_many_as_each() {
    treat_many_as_each(Version::Redis).await;
}

#[tokio::test]
async fn redis_6_2_treats_many_as_each() {
    treat_many_as_each(Version::Redis6_2).await;
}

#[tokio::test]
async fn valkey_treats_many_as_each() {
    treat_many_as_each(Version::Valkey).await;
}

#[tokio::test]
async fn redis_7_does_as_specified() {
    do_as_specified(Version::Redis).await;
}

#[tokio::test]
async fn redis_6_2_does_as_specified() {
    do_as_specified(Version::Redis6_2).await;
}

#[tokio::test]
async fn valkey_does_as_specified() {
    do_as_specified(Version::Valkey).await;
}

#[tokio::test]
async fn a_subject_that_is_named_twice_is_filled_once() {
    let redis = Redis::start().await;
    let cli = |args: &[&str]| redis.cli(args);
    specified::a_subject_that_is_named_twice_is_filled_once(&redis.url(), &cli).await;
}

#[tokio::test]
async fn a_full_server_refuses_a_fill_and_loses_nothing() {
    let redis = Redis::start().await;
    let cli = |args: &[&str]| redis.cli(args);
    specified::a_full_server_refuses_a_fill_and_loses_nothing(&redis.url(), &cli).await;
}

#[tokio::test]
async fn a_node_keeps_its_lock_of_a_purge() {
    let redis = Redis::start().await;
    let mut texts = script_texts().into_iter();
    let (_, text) = texts.find(|(name, _)| *name == "lock_purge").unwrap();
    let lock = |node| redis.cli(&["EVAL", &text, "1", "lock", node, "60000"]);
    assert_eq!(lock("1"), "1");
    assert_eq!(lock("2"), "0", "another node has it");
    assert_eq!(lock("1"), "1", "the last try of this node has failed");
    redis.cli(&["DEL", "lock"]);
    assert_eq!(lock("2"), "1");
    let left: u64 = redis.cli(&["PTTL", "lock"]).parse().unwrap();
    assert!((50_000..=60_000).contains(&left), "{left}");
}
