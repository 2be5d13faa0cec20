//! What a node does with the messages of the channel: it applies those that arrive, and waits for
//! acknowledgements of its own.

use crate::coherence::Coherence;
use crate::coherence::message::Message;
use crate::coherence::peers::{Action, Awaited, PeerSet, PeerTracker, Term};
use crate::coherence::trust::{Proof, Trust};
use crate::telemetry::metrics::{ChannelMeter, Gap};
use ::redis::{PushInfo, PushKind, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How many acknowledgements may wait to be sent, or to be read by one change. One for which there
/// is no room is dropped: the change then waits until the trust of the acknowledging node has
/// lapsed.
const MOST_ACKS: usize = 1024;

/// A node's end of the channel between nodes.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) node: u64,
    prefix: String,
    coherence: Arc<Coherence>,
    peers: Mutex<PeerTracker>,
    /// Takes the acknowledgements of the messages that a change waits for, by the id of the
    /// message.
    waiting: Mutex<HashMap<u64, mpsc::Sender<u64>>>,
    acks: mpsc::Sender<(u64, u64)>,
    meter: ChannelMeter,
}

/// Waits for the acknowledgements of one message.
#[derive(Debug)]
pub(crate) struct Waiting {
    channel: Arc<Channel>,
    id: u64,
    heard: mpsc::Receiver<u64>,
}

impl Channel {
    /// Creates a node's end of the channel, and the queue of the acknowledgements that it has to
    /// send.
    pub(crate) fn new(
        prefix: &str,
        coherence: Arc<Coherence>,
        term: Term,
    ) -> (Arc<Self>, mpsc::Receiver<(u64, u64)>) {
        let (acks, owed) = mpsc::channel(MOST_ACKS);
        let (node, now) = (fastrand::u64(..), Instant::now());
        let channel = Self {
            node,
            prefix: prefix.to_owned(),
            coherence,
            peers: Mutex::new(PeerTracker::new(node, term, now)),
            waiting: Mutex::default(),
            acks,
            meter: ChannelMeter::new(now),
        };
        (Arc::new(channel), owed)
    }

    // Each change of either is complete, so a panic in another thread leaves it valid.
    fn peers(&self) -> MutexGuard<'_, PeerTracker> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<u64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn term(&self) -> Term {
        self.peers().term()
    }

    /// Returns the trust of the node: until when its memory may answer, and its server may be
    /// asked.
    pub(crate) fn trust(&self) -> &Trust {
        &self.coherence.trust
    }

    /// Notes a proof about the server of this session, which counts from `began`. Without `began`,
    /// no such proof is needed.
    pub(crate) fn proven(&self, session: u64, proof: Proof, began: Option<Instant>) {
        let peers = self.peers();
        if peers.is(session) {
            match began {
                Some(began) => self.trust().proven(proof, began, peers.term().trust),
                None => self.trust().needs_no(proof),
            }
        }
    }

    /// Returns how long any node may go on trusting what it once knew.
    pub(crate) fn longest_trust(&self) -> Duration {
        self.peers().longest_trust(Instant::now())
    }

    /// Returns the name of the channel that all nodes subscribe to.
    pub(crate) fn shared_name(&self) -> String {
        format!("{}layercache::{{nodes}}::all", self.prefix)
    }

    /// Returns the name of the channel that only `node` subscribes to.
    pub(crate) fn private_name(&self, node: u64) -> String {
        format!("{}layercache::{{nodes}}::{node:016x}", self.prefix)
    }

    /// Returns the key of the set of nodes. The set has the time of each node's last heartbeat.
    pub(crate) fn nodes_key(&self) -> String {
        format!("{}layercache::{{nodes}}", self.prefix)
    }

    /// Returns this node's member of the set: its number, and how long it trusts, in milliseconds.
    pub(crate) fn member(&self) -> String {
        format!("{}:{}", self.node, self.term().trust.as_millis())
    }

    /// Notes that both channels are subscribed on a new connection.
    pub(crate) fn connected(&self, session: u64) {
        let mut peers = self.peers();
        self.coherence.connected();
        self.meter.resynced.increment(1);
        let now = Instant::now();
        self.meter.observe(false, now);
        peers.connect(session, now);
    }

    /// Notes that a connection is lost. If it was the node's, its trust ends.
    pub(crate) fn disconnected(&self, session: u64, gap: Option<Gap>) {
        let mut peers = self.peers();
        if peers.disconnect(session) {
            self.coherence.disconnected();
            if let Some(gap) = gap {
                self.meter.gap(gap);
            }
        }
        let now = Instant::now();
        self.meter.observe(self.coherence.trust.holds(now), now);
    }

    /// Notes in the metrics whether memory is trusted. Trust lapses without an event.
    pub(crate) fn observe(&self) {
        let now = Instant::now();
        let trusts = self.coherence.trust.holds(now);
        if self.meter.observe(trusts, now) && !trusts {
            self.meter.gap(Gap::Lapsed);
        }
    }

    /// Returns the heartbeat to send now.
    pub(crate) fn heartbeat(&self, session: u64) -> Message {
        self.peers().heartbeat(session, Instant::now())
    }

    /// Notes that Redis has recorded a heartbeat, in the set of nodes with this epoch, at this time
    /// of Redis's clock.
    pub(crate) fn noted(&self, session: u64, epoch: u64, time: u64) {
        self.peers().noted(session, (epoch, time), Instant::now());
    }

    /// Applies a push message. The task that reads the connection calls this for each message in
    /// order, so it never blocks for long. Returns whether the node can no longer use the
    /// connection.
    pub(crate) fn push(&self, session: u64, push: &PushInfo) -> bool {
        match push.kind {
            PushKind::Message => {
                let message = match push.data.as_slice() {
                    [_, Value::BulkString(bytes)] => Message::read(bytes),
                    _ => None,
                };
                self.on_message(session, message);
                false
            }
            // The node never unsubscribes, so another client has made the server do it.
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                self.disconnected(session, Some(Gap::Unsubscribed));
                true
            }
            PushKind::Disconnection => {
                self.disconnected(session, Some(Gap::Closed));
                true
            }
            _ => false,
        }
    }

    fn on_message(&self, session: u64, message: Option<Message>) {
        let is_readable = message.is_some();
        let peers = self.peers();
        let heard = peers.on_message(session, message);
        let owed = self.coherence.apply(&heard, peers.term().trust);
        drop(peers);
        self.count(&heard, is_readable);
        let sent = owed.map_or(Ok(()), |owed| self.acks.try_send(owed));
        if let Err(TrySendError::Full(_)) = sent {
            self.meter.limit_hits.increment(1);
        }
        if let Action::Acknowledged { from, id } = heard
            && let Some(waiting) = self.waiting().get(&id)
        {
            // Without room the acknowledgement is dropped: the change waits until that node has
            // lost its trust.
            if let Err(TrySendError::Full(_)) = waiting.try_send(from) {
                self.meter.limit_hits.increment(1);
            }
        }
    }

    /// Counts the messages of other nodes, and records how long a heartbeat took.
    fn count(&self, heard: &Action, is_readable: bool) {
        match heard {
            Action::Forget { from, names, .. } if *from != self.node => {
                self.meter.remote.increment(names.len() as u64);
            }
            Action::Flush {
                from: Some(from), ..
            } if *from != self.node => self.meter.purged.increment(1),
            Action::Flush { .. } if !is_readable => {
                self.meter.gap(Gap::Unreadable);
                self.meter.resynced.increment(1);
            }
            Action::Beat { sent } => {
                self.meter.lag.record(sent.elapsed());
                self.observe();
            }
            _ => {}
        }
    }

    /// Begins to take the acknowledgements of the message `id`, which is not yet sent.
    pub(crate) fn wait_for(self: &Arc<Self>, id: u64) -> Waiting {
        let (sender, heard) = mpsc::channel(MOST_ACKS);
        self.waiting().insert(id, sender);
        Waiting {
            channel: Arc::clone(self),
            id,
            heard,
        }
    }

    /// Returns which nodes have to acknowledge a message that was published between `asked` and
    /// `published`.
    pub(crate) fn awaited(&self, set: &PeerSet, asked: Instant, published: Instant) -> Awaited {
        self.peers().awaited(set, asked, published)
    }
}

impl Waiting {
    /// Waits until all nodes that may trust their memory have acknowledged, or until no node can
    /// still trust what it knew at `published`. `asked` is when the node began to publish.
    pub(crate) async fn over(mut self, set: PeerSet, asked: Instant, published: Instant) {
        let mut awaited = self.channel.awaited(&set, asked, published);
        while !awaited.is_over(Instant::now()) {
            match timeout_at(awaited.end(), self.heard.recv()).await {
                Ok(Some(node)) => awaited.acknowledged(node),
                // The sender lives as long as this, so `None` does not come.
                Ok(None) | Err(_) => sleep_until(awaited.end()).await,
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.channel.waiting().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::coherence::peers::Peer;
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
    async fn settled() -> (Arc<Channel>, mpsc::Receiver<(u64, u64)>) {
        let coherence = Arc::new(Coherence::among_others());
        let (channel, owed) = Channel::new("", coherence, TERM);
        channel.connected(1);
        channel.noted(1, EPOCH, 0);
        let long = TRUST + MARGIN * 2;
        tokio::time::advance(long).await;
        channel.noted(1, EPOCH, long.as_millis() as u64);
        (channel, owed)
    }

    fn set(channel: &Channel, others: &[u64]) -> PeerSet {
        let time = (TRUST + MARGIN * 2).as_millis() as u64;
        let seen = |node| Peer {
            node,
            trust: TRUST,
            time,
        };
        let nodes = others.iter().copied().chain([channel.node]);
        let nodes = nodes.map(seen).collect();
        PeerSet {
            epoch: EPOCH,
            time,
            nodes,
        }
    }

    async fn time_of(waiting: Waiting, set: PeerSet) -> Duration {
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
    async fn a_node_that_is_alone_waits_for_nobody() {
        let (channel, _owed) = settled().await;
        let time = time_of(channel.wait_for(7), set(&channel, &[])).await;
        assert_eq!(time, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn all_others_have_to_say_so_about_this_very_message() {
        let (channel, _owed) = settled().await;
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
        let steady = PeerSet {
            time: set(&channel, &[]).time + time.as_millis() as u64,
            ..set(&channel, &[20, 30])
        };
        assert_eq!(time_of(waiting, steady).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_acknowledgements_is_bounded_and_waited_out() {
        let coherence = Arc::new(Coherence::among_others());
        let make = || Channel::new("", coherence, TERM);
        let ((channel, _owed), hits) = crate::telemetry::metrics::counted(make);
        channel.connected(1);
        let waiting = channel.wait_for(7);
        for from in (0..MOST_ACKS as u64 + 10).chain([u64::MAX]) {
            channel.push(1, &message(&Message::Acknowledge { from, id: 7 }));
        }
        assert_eq!(
            (waiting.heard.len(), hits("acknowledgements")),
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
    async fn one_who_trusts_longer_is_waited_for_longer() {
        let (channel, _owed) = settled().await;
        let mut set = set(&channel, &[20]);
        set.nodes[0].trust = TRUST * 3;
        let time = time_of(channel.wait_for(7), set).await;
        assert_eq!(time, (TRUST + MARGIN) * 3, "with a margin of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_says_to_trust_for_ever_is_nobody() {
        let (channel, _owed) = settled().await;
        let mut bent = set(&channel, &[20]);
        bent.nodes[0].trust = Duration::from_millis(u64::MAX);
        let time = timeout(TRUST * 4, time_of(channel.wait_for(7), bent)).await;
        let time = time.expect("an end");
        assert_eq!(time, TRUST + MARGIN);
        let steady = PeerSet {
            time: set(&channel, &[]).time + time.as_millis() as u64,
            ..set(&channel, &[20])
        };
        let time = time_of(channel.wait_for(8), steady).await;
        assert_eq!(time, TRUST + MARGIN, "and is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_was_not_seen_for_long_is_not_waited_for() {
        let (channel, _owed) = settled().await;
        let mut set = set(&channel, &[20]);
        set.nodes[0].time = 0;
        set.nodes[0].trust = TRUST / 20;
        assert_eq!(time_of(channel.wait_for(7), set).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_roll_that_says_too_little_is_waited_out() {
        let (channel, _owed) = settled().await;
        let whole = set(&channel, &[]);
        for bent in [
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
            let (settled, _owed) = settled().await;
            let nodes = bent.nodes.iter().map(|seen| Peer {
                node: settled.node,
                ..*seen
            });
            let nodes = nodes.collect();
            let bent = PeerSet { nodes, ..bent };
            assert_eq!(time_of(settled.wait_for(7), bent).await, TRUST + MARGIN);
        }
        channel.connected(2);
        channel.noted(2, EPOCH, whole.time);
        let time = time_of(channel.wait_for(7), whole).await;
        assert_eq!(time, TRUST + MARGIN, "it has just connected");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_is_applied_and_owed() {
        let (channel, mut owed) = settled().await;
        let generations = &channel.coherence.generations;
        let key = crate::types::Digest::Sha256([1; 32]);
        let names = vec![crate::types::link::WireName::wire_name(&key)];
        let (from, id) = (9, 3);
        let unknown = PushInfo {
            kind: PushKind::Message,
            data: vec![Value::Nil, Value::BulkString(vec![2, b'?'])],
        };
        for (push, owes) in [
            (message(&Message::Invalidate { from, id, names }), true),
            (message(&Message::Flush { from, id }), true),
            (unknown, false),
        ] {
            let fence = generations.begin(&key);
            channel.push(1, &push);
            assert_eq!(generations.end(fence), None, "{push:?} disturbs nothing");
            assert_eq!(owed.try_recv().ok(), owes.then_some((from, id)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_gives_trust_in_its_own_session_only() {
        let (channel, _owed) = settled().await;
        let trusts = || channel.coherence.trust.holds(Instant::now());
        let old = channel.heartbeat(1);
        channel.push(1, &message(&old));
        assert!(trusts());
        channel.disconnected(1, None);
        assert!(!trusts());
        channel.push(1, &message(&old));
        assert!(!trusts(), "of a connection that is lost");
        channel.connected(2);
        channel.push(2, &message(&old));
        assert!(!trusts(), "of a connection before this one");
        channel.push(2, &message(&channel.heartbeat(2)));
        assert!(trusts());
        for ahead in [1, 1_000_000, u64::MAX / 2, u64::MAX] {
            let Message::Heartbeat { session, sent } = channel.heartbeat(2) else {
                panic!("no heartbeat");
            };
            let sent = sent.saturating_add(ahead);
            channel.push(2, &message(&Message::Heartbeat { session, sent }));
        }
        tokio::time::advance(TRUST).await;
        assert!(!trusts(), "by a heartbeat that was never sent");
    }
}
