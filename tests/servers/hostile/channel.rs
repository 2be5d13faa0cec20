//! Tests messages from clients that are no nodes: the nodes trust none of them, and none of them
//! does harm.

use super::{MEMORY_HIT, REDIS_HIT};
use futures::StreamExt;
use layercache::CacheStatus;
use std::time::{Duration, Instant};
use test_support::nodes::{
    Bare, Node, PATIENCE, SETTLED, TRUST, add_silent_node, bare, digest, layers, node, put, stat,
    until, until_in_memory,
};
use test_support::redis::Redis;
use test_support::server::Signal;

const SHARED: &str = "layercache::{nodes}::all";

/// Publishes any bytes, including bytes that a command line cannot contain.
fn publish(redis: &Redis, channel: &str, message: &[u8]) {
    let escaped: String = message.iter().map(|byte| format!("\\{byte:03}")).collect();
    let script = format!("redis.call('PUBLISH', KEYS[1], '{escaped}')");
    redis.cli(&["EVAL", &script, "1", channel]);
}

fn message(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    [1, kind].into_iter().chain(numbers).collect()
}

/// Waits for the next message of this kind, and returns its channel and its content.
async fn capture(redis: &Redis, kind: u8) -> (String, Vec<u8>) {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.psubscribe("layercache::{nodes}::*").await.unwrap();
    let mut messages = listener.into_on_message();
    loop {
        let next = tokio::time::timeout(SETTLED * 5, messages.next()).await;
        let message = next.expect("a message").expect("a connection");
        let bytes = message.get_payload_bytes();
        if bytes.starts_with(&[1, kind]) {
            return (message.get_channel_name().to_owned(), bytes.to_vec());
        }
    }
}

async fn world() -> (Redis, Bare, [Node; 2]) {
    let (redis, bare) = (Redis::start().await, bare(Duration::ZERO));
    put(&bare, &digest(1)).await;
    let nodes = [(); 2].map(|()| node(&bare, &redis));
    for node in &nodes {
        until_in_memory(node, &digest(1)).await;
    }
    tokio::time::sleep(SETTLED).await;
    (redis, bare, nodes)
}

async fn receive_invalidations(nodes: &[Node; 2]) {
    let end = Instant::now() + PATIENCE;
    loop {
        for node in nodes {
            until_in_memory(node, &digest(1)).await;
        }
        let start = Instant::now();
        layers(&nodes[0]).unlink(&digest(1)).await.unwrap();
        let time = start.elapsed();
        for node in nodes {
            assert_eq!(stat(node, &digest(1)).await.0, None);
        }
        layers(&nodes[1]).link(&digest(1)).await.unwrap();
        if time < TRUST {
            return;
        }
        // On a busy machine a flood may have cost a connection, and with it the node's trust.
        assert!(
            start < end,
            "the change still waits for the other node: {time:?}"
        );
    }
}

/// A node that accepted a forged heartbeat would trust its memory for as long as another client
/// says.
#[tokio::test]
async fn a_forged_heartbeat_gives_no_trust() {
    let (redis, _bare, [node, _]) = world().await;
    for ahead in [1_000_000_000, u64::MAX / 2, u64::MAX] {
        until(&node, &digest(1), MEMORY_HIT).await;
        // The heartbeat is from one of the two nodes. The repetition covers both.
        for _ in 0..4 {
            let (channel, mut beat) = capture(&redis, b'H').await;
            let sent = beat[10..].try_into().map(u64::from_le_bytes).unwrap();
            beat[10..].copy_from_slice(&sent.saturating_add(ahead).to_le_bytes());
            publish(&redis, &channel, &beat);
            publish(&redis, SHARED, &beat);
        }
        until(&node, &digest(1), MEMORY_HIT).await;
        redis.signal(Signal::Stop);
        tokio::time::sleep(TRUST + TRUST / 4).await;
        let answer =
            tokio::time::timeout(Duration::from_millis(200), stat(&node, &digest(1))).await;
        redis.signal(Signal::Cont);
        let from_memory = answer.is_ok_and(|(_, status)| status == CacheStatus::Memory);
        assert!(!from_memory, "{ahead} ns ahead");
    }
}

#[tokio::test]
async fn a_foreign_acknowledgement_is_ignored() {
    let (redis, _bare, nodes) = world().await;
    add_silent_node(&redis);
    let start = Instant::now();
    let node = nodes[0].clone();
    let unlink = tokio::spawn(async move { layers(&node).unlink(&digest(1)).await });
    let (_, forged) = capture_during(&redis, unlink).await;
    // The change waited for the silent node in spite of the forged acknowledgements.
    assert!(start.elapsed() >= TRUST, "{:?}", start.elapsed());
    assert!(forged > 0);
    for node in &nodes {
        assert_eq!(stat(node, &digest(1)).await.0, None);
    }
}

/// Forges acknowledgements until the change is over, and returns their number.
async fn capture_during(
    redis: &Redis,
    change: tokio::task::JoinHandle<Result<(), layercache::Error>>,
) -> (String, usize) {
    let (channel, _) = capture(redis, b'H').await;
    let mut forged = 0;
    while !change.is_finished() {
        for (from, id) in [
            (12345, fastrand::u64(..)),
            (12345, 0),
            (fastrand::u64(..), 0),
        ] {
            publish(redis, SHARED, &message(b'A', &[from, id]));
            publish(redis, &channel, &message(b'A', &[from, id]));
            forged += 1;
        }
        tokio::task::yield_now().await;
    }
    change.await.unwrap().unwrap();
    (channel, forged)
}

/// If nodes acknowledged such a message, it would cost a command of every node.
#[tokio::test]
async fn a_message_without_an_id_is_not_acknowledged() {
    let (redis, _bare, nodes) = world().await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut listener = client.get_async_pubsub().await.unwrap();
    listener.psubscribe("layercache::{nodes}::*").await.unwrap();
    let mut messages = listener.into_on_message();
    let (unknown, name, last) = (5, 9, 7);
    for _ in 0..20 {
        publish(&redis, SHARED, &message(b'I', &[unknown, 0, name]));
        publish(&redis, SHARED, &message(b'F', &[unknown, 0]));
    }
    publish(&redis, SHARED, &message(b'I', &[unknown, last, name]));
    // Each node acknowledges in order, so only the last message may be acknowledged.
    let mut acknowledged = 0;
    while acknowledged < nodes.len() {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let next = next.expect("an acknowledgement").expect("a connection");
        let bytes = next.get_payload_bytes();
        if bytes.starts_with(&[1, b'A']) {
            assert_eq!(bytes[10..], u64::to_le_bytes(last));
            acknowledged += 1;
        }
    }
}

/// Sends random messages of all kinds. The nodes forget their memory, and still receive each
/// other's messages.
#[tokio::test]
async fn nodes_survive_a_flood_of_random_messages() {
    let (redis, _bare, nodes) = world().await;
    let mut random = fastrand::Rng::with_seed(7);
    let (private, _) = capture(&redis, b'H').await;
    for i in 0..600 {
        let kind = *random.choice(b"IFAHZ\0").unwrap();
        let numbers: Vec<_> = (0..random.usize(0..6)).map(|_| random.u64(..)).collect();
        let mut bytes = message(kind, &numbers);
        if random.bool() {
            bytes[0] = random.u8(..);
        }
        if random.bool() {
            bytes.truncate(random.usize(0..=bytes.len()));
        }
        let channel = if i % 2 == 0 { SHARED } else { &private };
        publish(&redis, channel, &bytes);
    }
    receive_invalidations(&nodes).await;
}

/// The node keeps nothing of a huge message, and receives the messages after it.
#[tokio::test]
async fn a_message_of_many_megabytes_clears_memory_and_the_node_goes_on() {
    let (redis, _bare, nodes) = world().await;
    for start in ["\\001I", "\\001F", "\\001A", "\\001H", "\\002I", ""] {
        until(&nodes[1], &digest(1), MEMORY_HIT).await;
        let script =
            format!("redis.call('PUBLISH', KEYS[1], '{start}' .. string.rep('x', 16000016))");
        redis.cli(&["EVAL", &script, "1", SHARED]);
        let end = Instant::now() + SETTLED * 10;
        while stat(&nodes[1], &digest(1)).await != REDIS_HIT {
            assert!(Instant::now() < end, "{start:?} was ignored");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    receive_invalidations(&nodes).await;
}

/// Each message asks for an acknowledgement, which is more than the nodes ever send. Afterwards the
/// nodes acknowledge each other's messages again.
#[tokio::test]
async fn nodes_survive_a_flood_of_forged_invalidations() {
    let (redis, _bare, nodes) = world().await;
    let flood = "for i = 1, 50000 do redis.call('PUBLISH', KEYS[1],
        '\\001I' .. struct.pack('<I8I8I8', i, i, i)) end";
    redis.cli(&["EVAL", flood, "1", SHARED]);
    receive_invalidations(&nodes).await;
}
