//! [`Channel`]: what a node does with the messages that other nodes send.

mod ack_wait;
#[cfg(test)]
mod tests;

use crate::coherence::Coherence;
use crate::coherence::action::{AckRequest, Action};
use crate::coherence::message::Message;
use crate::coherence::peers::PeerTracker;
use crate::coherence::peers::awaited::Awaited;
use crate::coherence::peers::peer_set::PeerSet;
use crate::coherence::peers::term::Term;
use crate::coherence::rules::{Rule, kept};
use crate::coherence::trust::{Proof, Trust};
use crate::telemetry::metrics::{ChannelMeter, Gap};
use ::redis::{PushInfo, PushKind, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

/// How many acknowledgements may wait to be sent, or to be read by one change. One for which there
/// is no room is dropped: the change then waits until the trust of the acknowledging node has
/// lapsed.
const MOST_ACKS: usize = 1024;

/// Returns the key of the set of nodes whose keys begin with `prefix`.
pub(crate) fn nodes_key(prefix: &str) -> String {
    format!("{prefix}layercache::{{nodes}}")
}

/// A node's end of the channel between nodes.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) node: u64,
    prefix: String,
    coherence: Arc<Coherence>,
    peers: Mutex<PeerTracker>,
    peer_count: AtomicU32,
    /// Takes the acknowledgements of the messages that a change waits for, by the id of the
    /// message.
    waiting: Mutex<HashMap<u64, mpsc::Sender<u64>>>,
    acks: mpsc::Sender<AckRequest>,
    meter: ChannelMeter,
}

impl Channel {
    /// Creates a node's end of the channel, and the queue of the acknowledgements that it has to
    /// send.
    pub(crate) fn new(
        prefix: &str,
        coherence: Arc<Coherence>,
        term: Term,
    ) -> (Arc<Self>, mpsc::Receiver<AckRequest>) {
        let (acks, pending) = mpsc::channel(MOST_ACKS);
        let (node, now) = (fastrand::u64(..), Instant::now());
        let channel = Self {
            node,
            prefix: prefix.to_owned(),
            coherence,
            peers: Mutex::new(PeerTracker::new(node, term, now)),
            peer_count: AtomicU32::new(0),
            waiting: Mutex::default(),
            acks,
            meter: ChannelMeter::new(now),
        };
        (Arc::new(channel), pending)
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
        let began = match kept(Rule::StandingCountsFromTheBegin) {
            true => began,
            false => began.map(|_| Instant::now()),
        };
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
        nodes_key(&self.prefix)
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

    /// Notes the set of nodes, which a heartbeat has read after `asked`.
    pub(crate) fn read_set(&self, set: &PeerSet, asked: Instant) {
        self.awaited(set, asked, Instant::now());
        let count = u32::try_from(set.nodes.len()).unwrap_or(u32::MAX);
        self.peer_count.store(count, Ordering::Relaxed);
    }

    /// Returns how many nodes were in the set when a heartbeat read it last.
    pub(crate) fn peer_count(&self) -> u32 {
        self.peer_count.load(Ordering::Relaxed)
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
        let action = peers.on_message(session, message);
        let ack = self.coherence.apply(&action, peers.term().trust);
        drop(peers);
        self.count(&action, is_readable);
        let queued = ack.map_or(Ok(()), |ack| self.acks.try_send(ack));
        if let Err(TrySendError::Full(_)) = queued {
            self.meter.limit_hits.increment(1);
        }
        if let Action::Acknowledged { from, id } = action
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
    fn count(&self, action: &Action, is_readable: bool) {
        match action {
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

    /// Returns which nodes have to acknowledge a message that was published between `asked` and
    /// `published`.
    pub(crate) fn awaited(&self, set: &PeerSet, asked: Instant, published: Instant) -> Awaited {
        self.peers().awaited(set, asked, published)
    }
}
