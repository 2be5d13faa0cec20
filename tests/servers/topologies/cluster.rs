//! Tests a Redis Cluster.

use super::lost::Lost;
use super::{
    BLOBS, MEMORY_HIT, all_in_memory, assert_reason, assert_serves, node_at, only_reads, stocked,
};
use object_store::ObjectStoreExt;
use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_support::cluster::{HOME, Member, PASSWORD, RedisCluster};
use test_support::nodes::{SET, TRUST, blob_path, config_at, digest, hash, layers, stat};
use test_support::redis::{Redis, Setup, Version};
use test_support::sentinel::until;
use test_support::server::{Signal, free_port};
use test_support::tls::Certificates;

/// How long the test waits for a purge that succeeds.
const PURGED: Duration = Duration::from_secs(30);

fn keys(cluster: &RedisCluster, pattern: &str) -> Vec<String> {
    let keys = cluster.keys(pattern).into_iter();
    keys.map(|(_, key)| key).collect()
}

/// A slot stays half moved. A node uses this slot to check whether a primary takes writes.
#[tokio::test]
async fn a_half_moved_slot_disconnects_no_primary() {
    let cluster = RedisCluster::start().await;
    let bare = stocked().await;
    let early = node_at(&bare, &cluster.url());
    all_in_memory(&[&early]).await;
    let home = cluster.primary_of(HOME);
    for from in cluster.primaries() {
        let mut names = (0..).map(|name: u32| name.to_string());
        let name = names.find(|name| cluster.primary_of(name).id == from.id);
        let slot = cluster.slot(&name.unwrap()).to_string();
        let to = if from.id == home.id {
            let mut others = cluster.primaries().into_iter();
            others.find(|other| other.id != home.id).unwrap()
        } else {
            home.clone()
        };
        let set = |at: &Member, state, other: &Member| {
            cluster.servers[at.server].cli(&["CLUSTER", "SETSLOT", &slot, state, &other.id])
        };
        set(&to, "IMPORTING", &from);
        set(&from, "MIGRATING", &to);
    }
    let late = node_at(&bare, &cluster.url());
    all_in_memory(&[&late]).await;
    tokio::time::sleep(TRUST * 2).await;
    for (i, node) in [(0, &early), (1, &late), (2, &early), (3, &late)] {
        layers(node).unlink(&digest(i)).await.unwrap();
        node.delete(&blob_path(&digest(i))).await.unwrap();
    }
    for node in [&early, &late] {
        assert_eq!(stat(node, &digest(0)).await.0, None);
        assert_eq!(stat(node, &digest(9)).await, MEMORY_HIT);
    }
}

/// A server keeps a key of a slot that another server owns, as a replica that had not heard of the
/// slot's move and then became the primary.
#[tokio::test]
async fn a_key_in_a_slot_of_another_server_stops_no_purge() {
    let cluster = RedisCluster::start().await;
    let bare = stocked().await;
    let node = node_at(&bare, &cluster.url());
    all_in_memory(&[&node]).await;
    let key = hash(&digest(0));
    let (from, slot) = (cluster.primary_of(&key), cluster.slot(&key).to_string());
    let primaries = cluster.primaries();
    let to = primaries.iter().find(|other| other.id != from.id).unwrap();
    for primary in &primaries {
        cluster.servers[primary.server].cli(&["CLUSTER", "DELSLOTS", &slot]);
    }
    cluster.servers[to.server].cli(&["CLUSTER", "ADDSLOTS", &slot]);
    cluster.servers[to.server].cli(&["CLUSTER", "BUMPEPOCH"]);
    cluster.until_whole().await;
    assert_eq!(cluster.primary_of(&key).id, to.id);
    let orphan = (from.server, key);
    assert!(cluster.keys("blobs::*").contains(&orphan));
    // The cluster was down for a moment, so the node may have to connect again.
    let end = Instant::now() + PURGED;
    while let Err(error) = node.purge().await {
        assert!(Instant::now() < end, "{error}: {:?}", error.source());
        tokio::time::sleep(TRUST / 4).await;
    }
    assert_eq!(cluster.keys("blobs::*"), [orphan]);
    assert_eq!(keys(&cluster, "repository::*"), [""; 0]);
}

async fn assert_serves_on(setup: Setup) {
    let cluster = RedisCluster::start_as(setup).await;
    assert_serves(&cluster.url(), |pattern| keys(&cluster, pattern)).await;
    // The address names only a replica. The client finds the other servers through it.
    let replica = cluster.replica_of(&cluster.primary_of(HOME));
    let url = cluster.url_of(&[replica.server]);
    assert_serves(&url, |pattern| keys(&cluster, pattern)).await;
}

#[tokio::test]
async fn every_primary_holds_a_part_of_the_keys() {
    let cluster = RedisCluster::start().await;
    assert_serves(&cluster.url(), |pattern| keys(&cluster, pattern)).await;
    let bare = stocked().await;
    let node = node_at(&bare, &cluster.url_of(&[3]));
    all_in_memory(&[&node]).await;
    let having: BTreeSet<_> = cluster
        .keys("blobs::*")
        .into_iter()
        .map(|(server, _)| server)
        .collect();
    assert_eq!(having.len(), 3, "there are blobs at each primary");
    for i in 0..BLOBS {
        let key = hash(&digest(i));
        let at = cluster.primary_of(&key).server;
        assert_eq!(cluster.servers[at].cli(&["EXISTS", &key]), "1");
    }
    let at = cluster.primary_of(SET).server;
    assert_eq!(cluster.servers[at].cli(&["EXISTS", SET]), "1");
    let home = cluster.primary_of(HOME).server;
    assert_eq!(cluster.servers[home].cli(&["EXISTS", HOME]), "1");
    node.purge().await.unwrap();
    assert_eq!(keys(&cluster, "blobs::*"), [""; 0]);
    assert_eq!(keys(&cluster, "repository::*"), [""; 0]);

    // A server in the address may be down, or may have no data.
    let url = cluster.url_of(&[5]);
    let away = format!("@127.0.0.1:{},", free_port());
    assert_serves(&url.replace('@', &away), |pattern| keys(&cluster, pattern)).await;

    let wrong = cluster.url_with(&[0, 1], &format!("wrong-{PASSWORD}"));
    let named = ["WRONGPASS", "authentication"];
    assert_reason(&only_reads(config_at(wrong)).await, &named, &[PASSWORD]);
}

#[tokio::test]
async fn a_cluster_of_redis_6_2_works() {
    assert_serves_on(Setup::new(Version::Redis6_2, &[])).await;
}

#[tokio::test]
async fn a_cluster_of_valkey_works() {
    assert_serves_on(Setup::new(Version::Valkey, &[])).await;
}

#[tokio::test]
async fn a_cluster_with_tls_works() {
    let setup = Setup::new(Version::Redis, &[]);
    assert_serves_on(setup.with_tls(&Arc::new(Certificates::make_all()))).await;
}

/// If the address names another kind of server than there is, the error says so.
#[tokio::test]
async fn a_cluster_address_of_a_plain_server_is_reported() {
    let redis = Redis::start().await;
    let url = redis.url().replace("redis://", "redis+cluster://");
    assert_reason(&only_reads(config_at(url)).await, &["cluster"], &[]);
}

/// The replica that takes over has not received a delete. `lost` names a link and a blob whose keys
/// are at the failing primary.
async fn fails_over_late(cluster: &mut RedisCluster, failing: &Member, lost: Lost) {
    let bare = stocked().await;
    let url = cluster.url();
    let (first, second) = (node_at(&bare, &url), node_at(&bare, &url));
    all_in_memory(&[&first, &second]).await;
    let (primary, late) = (failing.server, cluster.replica_of(failing).server);
    let slots: Vec<_> = [SET, &hash(&lost.blob)]
        .map(|key| cluster.primary_of(key).server == primary)
        .into();
    let (has_link, has_blob) = (slots[0], slots[1]);
    let knows = |cluster: &RedisCluster, server: usize| {
        let server = &cluster.servers[server];
        (!has_link || lost.has_link(server)) && (!has_blob || lost.has_blob(server))
    };
    until("the replica knows what is to be deleted", || {
        knows(cluster, late)
    })
    .await;
    cluster.servers[late].signal(Signal::Stop);
    cluster.servers[primary].cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    lost.delete(&first).await;
    cluster.servers[primary].kill();
    cluster.servers[late].signal(Signal::Cont);
    assert!(
        knows(cluster, late),
        "the replica received the delete, so the test shows nothing"
    );

    tokio::select! {
        () = cluster.failed_over_from(failing) => {}
        () = lost.is_asked_for([&first, &second]) => unreachable!(),
    }
    lost.stays_gone([&first, &second]).await;
    cluster.servers[primary].restart_on_same_port().await;
    cluster.until_whole().await;
}

/// Returns a blob whose key is at this primary, or one whose key is elsewhere.
fn blob_at(cluster: &RedisCluster, primary: &Member, is_there: bool) -> u32 {
    let mut blobs = 4..BLOBS;
    let is_wanted = |i: &u32| (cluster.primary_of(&hash(&digest(*i))).id == primary.id) == is_there;
    blobs.find(is_wanted).expect("one of them")
}

#[tokio::test]
async fn a_failover_that_lost_a_delete_gives_no_stale_answer() {
    let mut cluster = RedisCluster::start().await;
    for key in [HOME, SET] {
        let failing = cluster.primary_of(key);
        let blob = blob_at(&cluster, &failing, true);
        let lost = Lost {
            link: digest(1),
            blob: digest(blob),
        };
        fails_over_late(&mut cluster, &failing, lost).await;
    }
}
