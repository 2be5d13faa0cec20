//! A cluster: a connection to each of its primaries, and the way from a key to the right one.

mod look;
mod purge;
mod run;

pub(super) use purge::is_moving;

use super::address::{Place, Server};
use super::connection::{Connection, Duty};
use super::route::Route;
use super::session::Node;
use super::shard::Shard;
use super::slots::{SlotMap, slot_of};
use super::trouble::Trouble;
use crate::coherence::through::Through;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The primaries of a cluster.
///
/// redis-rs has a cluster client, but it repeats commands and reconnects on its own, without saying
/// which of them went through which connection: a fence that may have been lost would go unnoticed,
/// and so would a primary that has to be purged.
#[derive(Debug)]
pub(super) struct Cluster {
    me: Weak<Self>,
    seeds: Vec<Server>,
    deadline: Duration,
    map: watch::Sender<Known>,
    lines: Mutex<HashMap<Place, Connection>>,
    /// Held by the one who asks who serves what; when that was asked last.
    asking: tokio::sync::Mutex<Option<Instant>>,
    /// Whose cluster it is, and its end of the channel.
    node: OnceLock<(Arc<Node>, Connection)>,
}

/// Who serves what, as far as is known.
#[derive(Debug, Clone)]
enum Known {
    NotYet,
    Map(Arc<SlotMap>),
    /// Nobody has ever said it, and this is why.
    Never(Trouble),
}

impl Cluster {
    pub(super) fn new(seeds: Vec<Server>, deadline: Duration) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            seeds,
            deadline,
            map: watch::Sender::new(Known::NotYet),
            lines: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            node: OnceLock::new(),
        })
    }

    /// Makes it a node's, and begins to connect where there is a runtime for it. Returns the node's
    /// end of the channel: on one primary, always that which serves the slot of the set of nodes.
    pub(super) fn join(self: &Arc<Self>, node: Arc<Node>) -> Connection {
        let slot = slot_of(node.channel.nodes_key().as_bytes());
        let route = Route::Slot(Weak::clone(&self.me), slot);
        let home = Connection::new(route, Duty::Channel(Arc::clone(&node)), self.deadline);
        let (_, home) = self.node.get_or_init(|| (node, home));
        home.begin();
        home.clone()
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Place, Connection>> {
        // It is whole between any two of its changes, whoever panicked.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Option<Arc<SlotMap>> {
        match &*self.map.borrow() {
            Known::Map(map) => Some(Arc::clone(map)),
            Known::NotYet | Known::Never(_) => None,
        }
    }

    /// The numbers of the connections that are up.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let home = self.node.get().and_then(|(_, home)| home.session());
        let lines = self.lines();
        let lines = lines.values().filter_map(Connection::session);
        home.into_iter().chain(lines).collect()
    }

    /// All connections, with the node's end of the channel.
    pub(super) fn up(&self) -> Through {
        let lines: Vec<_> = self.lines().values().cloned().collect();
        let mut through = Through::default();
        for line in &lines {
            through.and(line.session());
            self.note_recent(&mut through, line);
        }
        self.through_home(&mut through);
        through
    }

    /// The node publishes through its end of the channel, so that connection counts as well.
    pub(super) fn through_home(&self, through: &mut Through) {
        if let Some((_, home)) = self.node.get() {
            through.and(home.session());
        }
    }

    /// Where a connection is recent, others may have believed the primary before, and kept what it told
    /// them.
    pub(super) fn note_recent(&self, through: &mut Through, line: &Connection) {
        if let (Some((node, _)), Some(since)) = (self.node.get(), line.since()) {
            let until = since + node.channel.doubt();
            if Instant::now() < until {
                through.recent_until(until);
            }
        }
    }

    /// Since when all the connections have been up that lead to these keys; to all primaries, if
    /// none are named.
    pub(super) fn since<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Instant {
        let known = self.known();
        let named = keys.map(|key| known.as_ref()?.primary_of(slot_of(key)).cloned());
        let mut places: Vec<_> = named.collect();
        if places.is_empty() {
            let all = known.iter().flat_map(|map| map.primaries());
            places = all.map(Some).collect();
        }
        let since = places.into_iter().map(|place| self.line(&place?).since());
        let now = Instant::now();
        // Where one is not up, another one may come.
        since.map(|since| since.unwrap_or(now)).max().unwrap_or(now)
    }

    /// A name whose slot this primary serves, after so many others.
    pub(super) fn tag_of(&self, place: &Place, after: usize) -> Option<String> {
        self.known()?.tags_of(place, after)
    }

    /// The connection to a primary.
    pub(super) fn line(&self, place: &Place) -> Connection {
        let mut lines = self.lines();
        let line = lines.entry(place.clone()).or_insert_with(|| {
            let duty = match self.node.get() {
                Some((node, home)) => Duty::Shard(Shard::new(
                    Arc::clone(node),
                    home.clone(),
                    Weak::clone(&self.me),
                    place.clone(),
                )),
                None => Duty::Plain,
            };
            let route = Route::Fixed(self.server(place.clone()));
            Connection::new(route, duty, self.deadline)
        });
        line.clone()
    }

    /// Connects no more.
    pub(super) fn close(&self) {
        for line in self.lines().values() {
            line.close();
        }
    }
}
