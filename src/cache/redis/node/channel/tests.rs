//! Tests of the channel, without a connection.

use super::ack_wait::AckWait;
use super::*;
use crate::coherence::peers::peer_set::Peer;
use tokio::time::timeout;

const EPOCH: u64 = 5;
const TRUST: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_millis(100);
const TERM: Term = Term {
    trust: TRUST,
    margin: MARGIN,
};

/// Returns a channel that has been connected for long enough to know the set of nodes, and the
/// queue of its acknowledgements.
async fn connected() -> (Arc<Channel>, mpsc::Receiver<AckRequest>) {
    let coherence = Arc::new(Coherence::among_others());
    let (channel, acks) = Channel::new("", coherence, TERM);
    channel.connected(1);
    channel.noted(1, EPOCH, 0);
    let long = TRUST + MARGIN * 2;
    tokio::time::advance(long).await;
    channel.noted(1, EPOCH, long.as_millis() as u64);
    (channel, acks)
}

fn set(channel: &Channel, others: &[u64]) -> PeerSet {
    let time = (TRUST + MARGIN * 2).as_millis() as u64;
    let peer = |node| Peer {
        node,
        trust: TRUST,
        time,
    };
    let nodes = others.iter().copied().chain([channel.node]);
    let nodes = nodes.map(peer).collect();
    PeerSet {
        epoch: EPOCH,
        time,
        nodes,
    }
}

async fn time_of(waiting: AckWait, set: PeerSet) -> Duration {
    let start = Instant::now();
    waiting.over(set, start, start).await;
    start.elapsed()
}

fn message(message: &Message) -> PushInfo {
    PushInfo {
        kind: PushKind::Message,
        data: vec![Value::Nil, Value::BulkString(message.write())],
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_peers_does_not_wait() {
    let (channel, _acks) = connected().await;
    let time = time_of(channel.wait_for(7), set(&channel, &[])).await;
    assert_eq!(time, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn every_peer_has_to_acknowledge_this_message() {
    let (channel, _acks) = connected().await;
    let waiting = channel.wait_for(7);
    for (from, id) in [(20, 7), (30, 6)] {
        channel.push(1, &message(&Message::Acknowledge { from, id }));
    }
    let time = time_of(waiting, set(&channel, &[20, 30])).await;
    assert_eq!(time, TRUST + MARGIN, "30 has acknowledged another message");
    let waiting = channel.wait_for(8);
    for from in [20, 30] {
        channel.push(1, &message(&Message::Acknowledge { from, id: 8 }));
    }
    let later = PeerSet {
        time: set(&channel, &[]).time + time.as_millis() as u64,
        ..set(&channel, &[20, 30])
    };
    assert_eq!(time_of(waiting, later).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_acknowledgements_is_bounded_and_the_change_waits_for_the_end_of_trust() {
    let coherence = Arc::new(Coherence::among_others());
    let make = || Channel::new("", coherence, TERM);
    let ((channel, _acks), hits) = crate::telemetry::metrics::counted(make);
    channel.connected(1);
    let waiting = channel.wait_for(7);
    for from in (0..MOST_ACKS as u64 + 10).chain([u64::MAX]) {
        channel.push(1, &message(&Message::Acknowledge { from, id: 7 }));
    }
    assert_eq!(
        (waiting.acks.len(), hits("acknowledgements")),
        (MOST_ACKS, 11)
    );
    let time = time_of(waiting, set(&channel, &[u64::MAX])).await;
    assert_eq!(time, TRUST + MARGIN);
    let names = Vec::new();
    for id in 0..MOST_ACKS as u64 + 5 {
        let names = names.clone();
        channel.push(
            1,
            &message(&Message::Invalidate {
                from: 9,
                id: id + 1,
                names,
            }),
        );
    }
    assert_eq!(hits("acknowledgements"), 16);
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_longer_for_a_peer_that_trusts_longer() {
    let (channel, _acks) = connected().await;
    let mut set = set(&channel, &[20]);
    set.nodes[0].trust = TRUST * 3;
    let time = time_of(channel.wait_for(7), set).await;
    assert_eq!(
        time,
        (TRUST + MARGIN) * 3,
        "the margin grows with the trust"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_claims_to_trust_for_ever_is_ignored() {
    let (channel, _acks) = connected().await;
    let mut odd = set(&channel, &[20]);
    odd.nodes[0].trust = Duration::from_millis(u64::MAX);
    let time = timeout(TRUST * 4, time_of(channel.wait_for(7), odd)).await;
    let time = time.expect("the wait ends");
    assert_eq!(time, TRUST + MARGIN);
    let later = PeerSet {
        time: set(&channel, &[]).time + time.as_millis() as u64,
        ..set(&channel, &[20])
    };
    let time = time_of(channel.wait_for(8), later).await;
    assert_eq!(
        time,
        TRUST + MARGIN,
        "the node has not remembered the claim"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_not_seen_for_long_is_not_waited_for() {
    let (channel, _acks) = connected().await;
    let mut set = set(&channel, &[20]);
    set.nodes[0].time = 0;
    set.nodes[0].trust = TRUST / 20;
    assert_eq!(time_of(channel.wait_for(7), set).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_set_that_is_not_known_makes_the_change_wait_for_the_end_of_trust() {
    let (channel, _acks) = connected().await;
    let whole = set(&channel, &[]);
    for odd in [
        PeerSet {
            epoch: 6,
            ..whole.clone()
        },
        PeerSet {
            time: 0,
            ..whole.clone()
        },
        PeerSet {
            time: whole.time + 10_000,
            ..whole.clone()
        },
        PeerSet {
            nodes: Vec::new(),
            ..whole.clone()
        },
    ] {
        let (other, _acks) = connected().await;
        let nodes = odd.nodes.iter().map(|peer| Peer {
            node: other.node,
            ..*peer
        });
        let nodes = nodes.collect();
        let odd = PeerSet { nodes, ..odd };
        assert_eq!(time_of(other.wait_for(7), odd).await, TRUST + MARGIN);
    }
    channel.connected(2);
    channel.noted(2, EPOCH, whole.time);
    let time = time_of(channel.wait_for(7), whole).await;
    assert_eq!(time, TRUST + MARGIN, "the node has just connected");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_applied_and_then_acknowledged() {
    let (channel, mut acks) = connected().await;
    let generations = &channel.coherence.generations;
    let key = crate::types::Digest::Sha256([1; 32]);
    let names = vec![crate::types::link::WireName::wire_name(&key)];
    let (from, id) = (9, 3);
    let unknown = PushInfo {
        kind: PushKind::Message,
        data: vec![Value::Nil, Value::BulkString(vec![2, b'?'])],
    };
    for (push, is_acknowledged) in [
        (message(&Message::Invalidate { from, id, names }), true),
        (message(&Message::Flush { from, id }), true),
        (unknown, false),
    ] {
        let fence = generations.begin(&key);
        channel.push(1, &push);
        assert_eq!(generations.end(fence), None, "{push:?} changed nothing");
        let ack = AckRequest { to: from, id };
        assert_eq!(acks.try_recv().ok(), is_acknowledged.then_some(ack));
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_gives_trust_in_its_own_session_only() {
    let (channel, _acks) = connected().await;
    let trusts = || channel.coherence.trust.holds(Instant::now());
    let old = channel.heartbeat(1);
    channel.push(1, &message(&old));
    assert!(trusts());
    channel.disconnected(1, None);
    assert!(!trusts());
    channel.push(1, &message(&old));
    assert!(!trusts(), "the heartbeat came through a lost connection");
    channel.connected(2);
    channel.push(2, &message(&old));
    assert!(
        !trusts(),
        "the heartbeat was sent on the connection before this one"
    );
    channel.push(2, &message(&channel.heartbeat(2)));
    assert!(trusts());
    for ahead in [1, 1_000_000, u64::MAX / 2, u64::MAX] {
        let Message::Heartbeat { session, sent } = channel.heartbeat(2) else {
            panic!("not a heartbeat");
        };
        let sent = sent.saturating_add(ahead);
        channel.push(2, &message(&Message::Heartbeat { session, sent }));
    }
    tokio::time::advance(TRUST).await;
    assert!(
        !trusts(),
        "a heartbeat that this node never sent gave trust"
    );
}
