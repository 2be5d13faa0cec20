//! Tests a primary that Sentinels monitor.

use super::lost::Lost;
use super::{
    MISS, all_in_memory, assert_reason, assert_serves, keys, node_at, only_reads, stocked,
};
use layercache::{CacheStatus, Digest, Error};
use object_store::ObjectStoreExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_support::nodes::{
    Node, SETTLED, TRUST, blob_path, config_at, digest, layers, node_with, stat, until_in_memory,
};
use test_support::redis::{Setup, Version};
use test_support::sentinel::{PASSWORD, SERVICE, WATCHERS_PASSWORD, Watched, until};
use test_support::server::Signal;
use test_support::tls::Certificates;
use tokio::time::sleep;

const SECRETS: &[&str] = &[PASSWORD, WATCHERS_PASSWORD];

async fn assert_serves_on(version: Version) {
    let watched = Watched::start_as(Setup::new(version, &[])).await;
    let keys = |pattern: &str| keys(&watched.servers[watched.primary()], 0, pattern);
    assert_serves(&watched.url(), keys).await;
}

#[tokio::test]
async fn the_primary_is_found() {
    let mut watched = Watched::start().await;
    let of =
        |watched: &Watched, pattern: &str| keys(&watched.servers[watched.primary()], 0, pattern);
    assert_serves(&watched.url(), |pattern| of(&watched, pattern)).await;

    let wrong = watched.url_with(&format!("wrong-{PASSWORD}"), WATCHERS_PASSWORD);
    assert_reason(
        &only_reads(config_at(wrong)).await,
        &["WRONGPASS", "authentication"],
        SECRETS,
    );
    let wrong = watched.url_with(PASSWORD, &format!("wrong-{WATCHERS_PASSWORD}"));
    assert_reason(
        &only_reads(config_at(wrong)).await,
        &["WRONGPASS", "authentication"],
        SECRETS,
    );
    let unknown = watched.url().replace(&format!("/{SERVICE}?"), "/unknown?");
    assert_reason(&only_reads(config_at(unknown)).await, &["unknown"], SECRETS);

    // The first Sentinel in the address is down. The node asks another one.
    let url = watched.url();
    watched.sentinels[0].kill();
    watched.sentinels.remove(0);
    watched.servers[0].cli(&["FLUSHALL"]);
    assert_serves(&url, |pattern| of(&watched, pattern)).await;

    // A connected node needs no Sentinel for its reads until its trust ends. It carries out a
    // removal and reports it as unconfirmed.
    let bare = stocked().await;
    let node = node_at(&bare, &url);
    until_in_memory(&node, &digest(1)).await;
    // After this time the node knows its peers, and a change waits for none of them.
    sleep(SETTLED).await;
    for sentinel in &mut watched.sentinels {
        sentinel.kill();
    }
    assert_eq!(stat(&node, &digest(1)).await.1, CacheStatus::Memory);
    let unlinked = layers(&node).unlink(&digest(1)).await;
    assert!(
        matches!(unlinked, Err(Error::ChangeUnconfirmed { .. })),
        "{unlinked:?}"
    );
    assert_eq!(stat(&node, &digest(1)).await.0, None);
    // After this time there may be another primary that the node does not know.
    sleep(TRUST).await;
    assert_eq!(stat(&node, &digest(3)).await, MISS);
    assert_eq!(stat(&node, &digest(3)).await, MISS);
    // A node that is not connected gets an error that says what is missing.
    assert_reason(&only_reads(config_at(&url)).await, &["sentinel"], SECRETS);
}

#[tokio::test]
async fn the_primary_is_found_on_redis_6_2() {
    assert_serves_on(Version::Redis6_2).await;
}

#[tokio::test]
async fn the_primary_is_found_on_valkey() {
    assert_serves_on(Version::Valkey).await;
}

#[tokio::test]
async fn the_primary_and_the_sentinels_are_reached_with_tls() {
    let setup = Setup::new(Version::Redis, &[]).with_tls(&Arc::new(Certificates::make_all()));
    let watched = Watched::start_as(setup).await;
    let keys = |pattern: &str| keys(&watched.servers[watched.primary()], 0, pattern);
    assert_serves(&watched.url(), keys).await;
    let without = watched.url().replace("&cert=", "&other=");
    let without = without.split("&other=").next().unwrap();
    assert_reason(
        &only_reads(config_at(without)).await,
        &["certificate"],
        SECRETS,
    );
}

/// The replica that takes over has not received a delete, because it had just lost its connection.
/// The replica that had received it is lost with the primary.
#[tokio::test]
async fn a_failover_that_lost_a_delete_gives_no_stale_answer() {
    let mut watched = Watched::start().await;
    let bare = stocked().await;
    let (first, second) = (
        node_at(&bare, &watched.url()),
        node_at(&bare, &watched.url()),
    );
    all_in_memory(&[&first, &second]).await;
    let lost = Lost {
        link: digest(1),
        blob: digest(2),
    };
    {
        let (primary, late) = (&watched.servers[0], &watched.servers[2]);
        until("the replica knows what is to be deleted", || {
            lost.is_in(late)
        })
        .await;
        // It will have no replica, and must accept writes nevertheless.
        late.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        late.signal(Signal::Stop);
        primary.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        until("the other replica is back", || {
            let info = primary.cli(&["INFO", "replication"]);
            info.contains("state=online")
        })
        .await;
    }
    lost.delete(&first).await;
    assert!(!lost.is_in(&watched.servers[0]));
    watched.servers[0].kill();
    watched.servers[1].kill();
    let late = &watched.servers[2];
    late.signal(Signal::Cont);
    assert!(
        lost.is_in(late),
        "the replica received the delete, so the test shows nothing"
    );

    let taken_over = until("the replica takes over", || {
        late.cli(&["INFO", "replication"]).contains("role:master")
    });
    tokio::select! {
        () = taken_over => {}
        () = lost.is_asked_for([&first, &second]) => unreachable!(),
    }
    lost.stays_gone([&first, &second]).await;
    assert!(!lost.is_in(late), "it was purged");
}

/// `LONG` is the trust timeout of the nodes in the tests of handing over. It is longer than a
/// delete takes. `DEMOTED` is the time until a Sentinel makes a live old primary follow the new
/// one.
const LONG: Duration = Duration::from_secs(5);
const DEMOTED: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_is_not_trusted_after_a_delete_on_the_new_one() {
    hands_over(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_sentinel_does_not_extend_trust() {
    hands_over(true).await;
}

/// The old primary accepts writes and does not know that it was replaced. Nodes are connected to
/// it, and their checks are spread over time. A new node deletes at the new primary.
async fn hands_over(one_is_silent: bool) {
    const READERS: u32 = 8;
    let watched = Watched::start().await;
    for server in &watched.servers {
        server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    }
    if one_is_silent {
        watched.sentinels[2].signal(Signal::Stop);
    }
    let bare = stocked().await;
    let node = || node_with(&bare, config_at(watched.url()).with_trust_timeout(LONG));
    let blob = digest(1);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let reader = node();
        until_in_memory(&reader, &blob).await;
        readers.push(reader);
        sleep(LONG / READERS).await;
    }
    for reader in &readers {
        until_in_memory(reader, &blob).await;
    }

    let old = watched.primary();
    watched.sentinels[0].hand_over().await;
    until("a Sentinel names another primary", || {
        watched.primary() != old
    })
    .await;
    let moved = Instant::now();
    let deleter = node();
    until_in_memory(&deleter, &digest(2)).await;
    eventually_deletes(&deleter, &blob).await;
    println!("deleted {:?} after the primary moved", moved.elapsed());
    let is_alive = watched.servers[old]
        .cli(&["INFO", "replication"])
        .contains("role:master");
    assert!(
        is_alive || moved.elapsed() > DEMOTED,
        "the old primary has ended, so the test shows nothing"
    );
    let end = Instant::now() + LONG / 2;
    while Instant::now() < end {
        for (i, reader) in readers.iter().enumerate() {
            let (found, status) = stat(reader, &blob).await;
            assert_eq!(found, None, "node {i} answers from {status:?}");
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// The deleting node is still connected to the old primary, which accepts its writes and has no
/// other node any more. A node at the new primary has just filled Redis and its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_on_a_replaced_primary_is_published_on_the_new_one() {
    let watched = Watched::start().await;
    for server in &watched.servers {
        server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    }
    let bare = stocked().await;
    let node = || node_with(&bare, config_at(watched.url()).with_trust_timeout(LONG));
    let blob = digest(1);
    let old = watched.primary();
    let hand_over = async {
        watched.sentinels[0].hand_over().await;
        until("a Sentinel names another primary", || {
            watched.primary() != old
        })
        .await;
    };
    let deleter = node();
    until_in_memory(&deleter, &digest(2)).await;
    // After this time the node knows its peers. It looks for the primary four times in each trust
    // timeout.
    sleep(LONG + LONG / 10).await;
    hand_over.await;
    let reader = node();
    until_in_memory(&reader, &blob).await;
    let began = Instant::now();
    eventually_deletes(&deleter, &blob).await;
    println!("deleted after {:?}", began.elapsed());
    let (found, status) = stat(&reader, &blob).await;
    assert_eq!(found, None, "the other node answers from {status:?}");
}

async fn eventually_deletes(node: &Node, blob: &Digest) {
    let end = Instant::now() + Duration::from_secs(30);
    while let Err(error) = node.delete(&blob_path(blob)).await {
        assert!(Instant::now() < end, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
}
