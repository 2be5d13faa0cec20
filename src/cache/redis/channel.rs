//! The channel between nodes: who hears of a change, and who has said so.
//!
//! A node subscribes the shared channel and one of its own on the connection that it also asks
//! through, the shared one first. What arrives is applied there, in order: a heartbeat that came
//! back proves that every message before it has been applied.

use super::wire::Message;
use crate::coherence::Coherence;
use ::redis::{PushInfo, PushKind, Value};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long a heartbeat is good for.
pub(super) const TERM: Duration = Duration::from_secs(2);

/// How much longer than [`TERM`] is waited for one who does not answer: clocks differ in speed, and
/// Redis tells time in milliseconds.
const MARGIN: Duration = Duration::from_millis(100);

/// How many acknowledgements may wait to be sent. One that has no room is not sent: its sender waits
/// until our trust has lapsed.
const MOST_ACKS: usize = 1024;

/// A node's end of the channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) node: u64,
    prefix: String,
    coherence: Arc<Coherence>,
    base: Instant,
    state: Mutex<State>,
    acks: mpsc::Sender<(u64, u64)>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Session>,
    /// Who has acknowledged the messages that are waited for.
    waiting: HashMap<u64, mpsc::UnboundedSender<u64>>,
}

/// One connection's time.
#[derive(Debug, Clone, Copy)]
struct Session {
    number: u64,
    began: Instant,
    /// Which set of nodes it is, and since when that is known.
    born: Option<(u64, Instant)>,
    /// When a heartbeat was noted last, by our clock and by Redis's.
    noted: Option<(Instant, u64)>,
}

/// What the script that publishes a message says of the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Roll {
    /// Which set of nodes it is.
    pub(super) born: u64,
    /// Redis's time, in milliseconds.
    pub(super) time: u64,
    /// Who was seen within twice [`TERM`].
    pub(super) nodes: HashSet<u64>,
}

/// Waits for the acknowledgements of one message.
#[derive(Debug)]
pub(super) struct Waiting {
    channel: Arc<Channel>,
    id: u64,
    heard: mpsc::UnboundedReceiver<u64>,
}

impl Channel {
    /// A node's end, and where the acknowledgements that it owes come out.
    pub(super) fn new(
        prefix: &str,
        coherence: Arc<Coherence>,
    ) -> (Arc<Self>, mpsc::Receiver<(u64, u64)>) {
        let (acks, owed) = mpsc::channel(MOST_ACKS);
        let channel = Self {
            node: fastrand::u64(..),
            prefix: prefix.to_owned(),
            coherence,
            base: Instant::now(),
            state: Mutex::default(),
            acks,
        };
        (Arc::new(channel), owed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its changes, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel that all nodes hear.
    pub(super) fn shared_name(&self) -> String {
        format!("{}layercache::{{nodes}}::all", self.prefix)
    }

    /// The channel that one node hears.
    pub(super) fn private_name(&self, node: u64) -> String {
        format!("{}layercache::{{nodes}}::{node:016x}", self.prefix)
    }

    /// The set of nodes, with the time when each was seen.
    pub(super) fn nodes_key(&self) -> String {
        format!("{}layercache::{{nodes}}", self.prefix)
    }

    /// Both channels are subscribed on a new connection: what was missed meanwhile is forgotten.
    pub(super) fn begin(&self, number: u64) {
        self.coherence.trust.lose();
        self.coherence.generations.flush();
        self.state().session = Some(Session {
            number,
            began: Instant::now(),
            born: None,
            noted: None,
        });
    }

    /// A connection is lost, and trust with it.
    pub(super) fn lose(&self, number: u64) {
        let mut state = self.state();
        if state
            .session
            .is_some_and(|session| session.number == number)
        {
            state.session = None;
            self.coherence.trust.lose();
        }
    }

    /// The heartbeat to send now.
    pub(super) fn heartbeat(&self, session: u64) -> Message {
        let sent = Instant::now().saturating_duration_since(self.base);
        Message::Heartbeat {
            session,
            sent: u64::try_from(sent.as_nanos()).unwrap_or(0),
        }
    }

    /// A heartbeat was noted in this set of nodes, at this time of Redis's.
    pub(super) fn noted(&self, number: u64, born: u64, time: u64) {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(session) = &mut state.session
            && session.number == number
        {
            session.noted = Some((now, time));
            if session.born.is_none_or(|(known, _)| known != born) {
                session.born = Some((born, now));
            }
        }
    }

    /// Applies what arrived on a connection. Called in order, by the task that reads it; never
    /// blocks.
    pub(super) fn push(&self, session: u64, push: &PushInfo) {
        match push.kind {
            PushKind::Message => match push.data.as_slice() {
                [_, Value::BulkString(bytes)] => self.hear(session, bytes),
                _ => self.coherence.generations.flush(),
            },
            PushKind::Disconnection | PushKind::Unsubscribe => self.lose(session),
            _ => {}
        }
    }

    fn hear(&self, session: u64, bytes: &[u8]) {
        match Message::read(bytes) {
            Some(Message::Invalidate { from, id, names }) => {
                for name in names {
                    self.coherence.generations.bump_named(name);
                }
                self.owe(from, id);
            }
            Some(Message::Flush { from, id }) => {
                self.coherence.generations.flush();
                self.owe(from, id);
            }
            Some(Message::Acknowledge { from, id }) => {
                if let Some(waiting) = self.state().waiting.get(&id) {
                    let _ = waiting.send(from);
                }
            }
            Some(Message::Heartbeat { session: of, sent }) => {
                let current = self.state().session.map(|session| session.number);
                if of == session && current == Some(session) {
                    let sent = self.base + Duration::from_nanos(sent);
                    self.coherence.trust.heard(sent, TERM);
                }
            }
            // Of a later version, or damaged: it may have been any of these.
            None => self.coherence.generations.flush(),
        }
    }

    fn owe(&self, to: u64, id: u64) {
        if to != self.node {
            let _ = self.acks.try_send((to, id));
        }
    }

    /// Waits for the acknowledgements of the message `id`, which is not yet sent.
    pub(super) fn wait_for(self: &Arc<Self>, id: u64) -> Waiting {
        let (sender, heard) = mpsc::unbounded_channel();
        self.state().waiting.insert(id, sender);
        Waiting {
            channel: Arc::clone(self),
            id,
            heard,
        }
    }

    /// Whether the roll says who may trust its memory. It does not while we have not known the set
    /// of nodes for long enough to have heard of all of them, or if Redis's clock was set.
    fn is_known(&self, roll: &Roll, now: Instant) -> bool {
        let Some(session) = self.state().session else {
            return false;
        };
        let (Some((born, since)), Some((noted, time))) = (session.born, session.noted) else {
            return false;
        };
        let long_enough = |since: Instant| now.saturating_duration_since(since) > TERM + MARGIN;
        let ours = u64::try_from(now.saturating_duration_since(noted).as_millis());
        let theirs = roll.time.checked_sub(time);
        let clock_is_steady = match (ours, theirs) {
            // The roll goes back twice the term, so a smaller step hides nobody.
            (Ok(ours), Some(theirs)) => ours.abs_diff(theirs) < TERM.as_millis() as u64 / 2,
            _ => false,
        };
        born == roll.born
            && long_enough(since)
            && long_enough(session.began)
            && clock_is_steady
            && roll.nodes.contains(&self.node)
    }
}

impl Waiting {
    /// Returns when all who may trust their memory have said that they forgot, or when nobody can
    /// trust any more what it knew at `published`.
    pub(super) async fn over(mut self, mut roll: Roll, published: Instant) {
        let end = published + TERM + MARGIN;
        if self.channel.is_known(&roll, published) {
            roll.nodes.remove(&self.channel.node);
            while !roll.nodes.is_empty() {
                match timeout_at(end, self.heard.recv()).await {
                    Ok(Some(node)) => drop(roll.nodes.remove(&node)),
                    _ => break,
                }
            }
            if roll.nodes.is_empty() {
                return;
            }
        }
        tokio::time::sleep_until(end).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.channel.state().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORN: u64 = 5;

    /// A channel that has been connected for long enough, and what it owes.
    async fn settled() -> (Arc<Channel>, mpsc::Receiver<(u64, u64)>) {
        let coherence = Arc::new(Coherence::among_others());
        let (channel, owed) = Channel::new("", coherence);
        channel.begin(1);
        channel.noted(1, BORN, 0);
        let long = TERM + MARGIN * 2;
        tokio::time::advance(long).await;
        channel.noted(1, BORN, long.as_millis() as u64);
        (channel, owed)
    }

    fn roll(channel: &Channel, others: &[u64]) -> Roll {
        let nodes = others.iter().copied().chain([channel.node]).collect();
        let time = (TERM + MARGIN * 2).as_millis() as u64;
        Roll {
            born: BORN,
            time,
            nodes,
        }
    }

    async fn time_of(waiting: Waiting, roll: Roll) -> Duration {
        let start = Instant::now();
        waiting.over(roll, start).await;
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
        let time = time_of(channel.wait_for(7), roll(&channel, &[])).await;
        assert_eq!(time, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn all_others_have_to_say_so_about_this_very_message() {
        let (channel, _owed) = settled().await;
        let waiting = channel.wait_for(7);
        for (from, id) in [(20, 7), (30, 6)] {
            channel.push(1, &message(&Message::Acknowledge { from, id }));
        }
        let time = time_of(waiting, roll(&channel, &[20, 30])).await;
        assert_eq!(time, TERM + MARGIN, "30 has acknowledged another message");
        let waiting = channel.wait_for(8);
        for from in [20, 30] {
            channel.push(1, &message(&Message::Acknowledge { from, id: 8 }));
        }
        let steady = Roll {
            time: roll(&channel, &[]).time + time.as_millis() as u64,
            ..roll(&channel, &[20, 30])
        };
        assert_eq!(time_of(waiting, steady).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_roll_that_says_too_little_is_waited_out() {
        let (channel, _owed) = settled().await;
        let whole = roll(&channel, &[]);
        for bent in [
            Roll {
                born: 6,
                ..whole.clone()
            },
            Roll {
                time: 0,
                ..whole.clone()
            },
            Roll {
                time: whole.time + 10_000,
                ..whole.clone()
            },
            Roll {
                nodes: HashSet::new(),
                ..whole.clone()
            },
        ] {
            let (channel, _owed) = settled().await;
            let own = bent.nodes.is_empty();
            let nodes = if own {
                HashSet::new()
            } else {
                HashSet::from([channel.node])
            };
            let bent = Roll { nodes, ..bent };
            assert_eq!(time_of(channel.wait_for(7), bent).await, TERM + MARGIN);
        }
        channel.begin(2);
        channel.noted(2, BORN, whole.time);
        let time = time_of(channel.wait_for(7), whole).await;
        assert_eq!(time, TERM + MARGIN, "it has just connected");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_is_applied_and_owed() {
        let (channel, mut owed) = settled().await;
        let generations = &channel.coherence.generations;
        let key = crate::Digest::Sha256([1; 32]);
        let names = vec![crate::link::WireName::wire_name(&key)];
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
            let before = generations.stamp(&key);
            channel.push(1, &push);
            assert_ne!(generations.stamp(&key), before, "{push:?}");
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
        channel.lose(1);
        assert!(!trusts());
        channel.push(1, &message(&old));
        assert!(!trusts(), "of a connection that is lost");
        channel.begin(2);
        channel.push(2, &message(&old));
        assert!(!trusts(), "of a connection before this one");
        channel.push(2, &message(&channel.heartbeat(2)));
        assert!(trusts());
        tokio::time::advance(TERM).await;
        assert!(!trusts());
    }
}
