//! Tests how a fix affects nodes, and what it leaves behind.

use super::{World, as_go, dump, link_path};
use layercache::{CacheStatus, Link};
use layercache_cli::admin::Audit;
use object_store::ObjectStoreExt;
use std::net::Ipv4Addr;
use std::time::Duration;
use test_support::nodes::{
    LENGTH, SETTLED, bare, blob_path, config, config_at, digest, eventually, hash, name, node, put,
    stat, until, until_in_memory,
};
use test_support::redis::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The record of servers. A node that connects to a server without an entry here purges it.
const RECORD: &str = "layercache::{nodes}::servers";

#[tokio::test]
async fn a_running_node_forgets_a_fixed_finding() {
    let (bare, redis) = (bare(Duration::ZERO), Redis::start().await);
    let node = node(&bare, &redis);
    tokio::time::sleep(SETTLED).await;
    let (gone, stays) = (digest(1), digest(2));
    for digest in [gone, stays] {
        put(&bare, &digest).await;
        until_in_memory(&node, &digest).await;
    }
    bare.delete(&blob_path(&gone)).await.unwrap();
    bare.delete(&link_path(&Link::layer(name(), gone)))
        .await
        .unwrap();
    until_in_memory(&node, &gone).await;

    let audit = || Audit::new(bare.clone(), config(&redis)).unwrap();
    let output = World::run(audit()).await.unwrap();
    assert_eq!(output.report.findings(), 2);
    until_in_memory(&node, &gone).await;

    let output = World::run(audit().fix(true)).await.unwrap();
    assert_eq!(output.report.removed, 2);
    let answer = stat(&node, &gone).await;
    assert_eq!(
        answer,
        (None, CacheStatus::Miss),
        "the node answers without the fixed facts at once, because the audit has waited"
    );
    assert_eq!(
        stat(&node, &stays).await,
        (Some(LENGTH), CacheStatus::Memory)
    );
    put(&bare, &gone).await;
    until(&node, &gone, (Some(LENGTH), CacheStatus::Memory)).await;
}

/// Keys that Go registries have cached, of which one is stale.
async fn cached_by_go_registries() -> World {
    let world = World::new().await;
    for i in 1..10 {
        world.cached(i).await;
    }
    world.store.delete(&blob_path(&digest(1))).await.unwrap();
    world
}

#[tokio::test]
async fn a_new_node_keeps_the_keys_of_go_registries() {
    let world = cached_by_go_registries().await;
    assert_eq!(world.fix().await.report.removed, 2);
    let after = world.dump();
    let first = test_support::nodes::bare(Duration::ZERO);
    let _node = node(&first, &world.redis);
    let is_recorded = || world.redis.cli(&["EXISTS", RECORD]) == "1";
    eventually("a record", is_recorded).await;
    let ours = |line: &String| !line.starts_with("layercache::");
    let now: Vec<_> = dump(&world.redis).into_iter().filter(ours).collect();
    assert_eq!(now, after);
}

/// Nodes have used the server before, and it was restarted since. The next node purges everything.
/// An audit does not, and leaves the purge to that node.
#[tokio::test]
async fn an_audit_does_not_purge_a_server_that_is_not_on_record() {
    let world = cached_by_go_registries().await;
    world.redis.cli(&["SADD", RECORD, "another"]);
    let before = world.dump();
    let output = world.fix().await;
    assert_eq!(output.report.removed, 2);
    let after = world.dump();
    let is_gone = |line: &&String| !after.contains(line);
    let gone: Vec<_> = before.iter().filter(is_gone).collect();
    // The set without one member, the hash, and the media type.
    assert_eq!(gone.len(), 3, "{gone:?}");
    assert_eq!(world.redis.cli(&["SMEMBERS", RECORD]), "another");
}

/// If a client caches the same facts again at once, the audit reports that.
#[tokio::test(flavor = "multi_thread")]
async fn a_finding_that_is_cached_again_is_reported() {
    let world = World::new().await;
    let digest = digest(1);
    let [add, ..] = as_go(&name(), &digest, LENGTH);
    world.redis.cli(&add.split(' ').collect::<Vec<_>>());
    // Another client adds the membership after each command of the audit.
    let port = between_commands(world.redis.address(), add).await;
    let redis = config_at(format!("redis://127.0.0.1:{port}"));
    let audit = Audit::new(world.store.clone(), redis).unwrap();
    let output = World::run(audit.fix(true)).await.unwrap();
    let report = &output.report;
    assert_eq!(
        (report.findings(), report.removed, report.returned),
        (1, 0, 1)
    );
}

/// Starts a proxy in front of a Redis, and returns its port. After each reply of Redis, and before
/// its client has it, the proxy sends this command.
async fn between_commands(address: String, command: String) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(adding(client, address.clone(), format!("{command}\r\n")));
        }
    });
    port
}

async fn adding(mut client: TcpStream, address: String, command: String) -> std::io::Result<()> {
    let mut server = TcpStream::connect(&address).await?;
    let mut other = TcpStream::connect(&address).await?;
    let (mut requests, mut to_client) = client.split();
    let (mut replies, mut to_server) = server.split();
    let back = async {
        let (mut reply, mut answer) = ([0; 4096], [0; 64]);
        loop {
            let length = replies.read(&mut reply).await?;
            other.write_all(command.as_bytes()).await?;
            let answered = other.read(&mut answer).await?;
            if length == 0 || answered == 0 {
                return Ok(());
            }
            to_client.write_all(&reply[..length]).await?;
        }
    };
    tokio::select! {
        sent = tokio::io::copy(&mut requests, &mut to_server) => sent.map(drop),
        ended = back => ended,
    }
}

/// A full Redis accepts no writes, but wrong entries are removed nevertheless.
#[tokio::test]
async fn findings_in_a_full_redis_are_removed() {
    let world = cached_by_go_registries().await;
    world.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let output = world.fix().await;
    assert_eq!(output.report.removed, 2);
    world.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(world.redis.cli(&["EXISTS", &hash(&digest(1))]), "0");
}
