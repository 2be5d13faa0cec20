//! How commands reach a cluster: a connection to each of its primaries, and the way from a key to
//! the right one.

mod look;
mod purge;
mod run;
mod slot_primary;

pub(crate) use purge::is_moving;

use crate::cache::redis::net::address::{HostPort, Server};
use crate::cache::redis::net::connect_error::ConnectError;
use crate::cache::redis::net::connection::Connection;
use crate::cache::redis::net::lifecycle::Lifecycle;
use crate::cache::redis::net::slots::{SlotMap, slot_of};
use crate::coherence::used_connections::UsedConnections;
use slot_primary::SlotPrimary;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The connections to the primaries of a cluster.
///
/// redis-rs has a cluster client. It repeats commands and reconnects by itself, and does not say
/// which command went through which connection. The node would then not notice that a fence may be
/// lost, or that a primary has to be purged.
#[derive(Debug)]
pub(crate) struct Cluster {
    me: Weak<Self>,
    seeds: Vec<Server>,
    deadline: Duration,
    map: watch::Sender<Known>,
    /// The connection to each primary. The map is ordered: a run of the simulation can be repeated
    /// only if nothing depends on the order in a hash table.
    connections: Mutex<BTreeMap<HostPort, Connection>>,
    /// Locked by the task that asks for the map. Contains when the map was last asked for.
    asking: tokio::sync::Mutex<Option<Instant>>,
    /// The node that uses the cluster, and the connection of its channel.
    node: OnceLock<(Arc<dyn ClusterNode>, Connection)>,
}

/// What a cluster has to know of the node that uses it.
pub(crate) trait ClusterNode: Debug + Send + Sync {
    /// Returns the lifecycle of a new connection to one of the primaries.
    fn lifecycle(
        &self,
        cluster: Weak<Cluster>,
        primary: HostPort,
    ) -> Arc<dyn Lifecycle<Connection>>;

    /// Returns the longest time for which any node may trust what it has read, with its margin.
    fn longest_trust(&self) -> Duration;
}

/// Which primary serves which slots, as far as is known.
#[derive(Debug, Clone)]
enum Known {
    NotYet,
    Map(Arc<SlotMap>),
    /// No server has sent a map yet, for this reason.
    Never(ConnectError),
}

impl Cluster {
    pub(crate) fn new(seeds: Vec<Server>, deadline: Duration) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            seeds,
            deadline,
            map: watch::Sender::new(Known::NotYet),
            connections: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            node: OnceLock::new(),
        })
    }

    /// Returns a new connection to the primary that serves the slot of this key, whichever server
    /// that is.
    pub(crate) fn connection_of(
        &self,
        key: &str,
        lifecycle: Arc<dyn Lifecycle<Connection>>,
    ) -> Connection {
        let primary = SlotPrimary {
            cluster: Weak::clone(&self.me),
            slot: slot_of(key.as_bytes()),
        };
        Connection::new(primary, Some(lifecycle), self.deadline)
    }

    /// Makes this the cluster of a node, whose channel has the connection `home`.
    pub(crate) fn join(&self, node: Arc<dyn ClusterNode>, home: Connection) {
        self.node.get_or_init(|| (node, home));
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<HostPort, Connection>> {
        // Each change of it is complete, so a panic in another thread leaves it valid.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> Option<Arc<SlotMap>> {
        match &*self.map.borrow() {
            Known::Map(map) => Some(Arc::clone(map)),
            Known::NotYet | Known::Never(_) => None,
        }
    }

    /// Returns the numbers of the connections that are up.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let home = self.node.get().and_then(|(_, home)| home.session());
        let connections = self.connections();
        let numbers = connections.values().filter_map(Connection::session);
        home.into_iter().chain(numbers).collect()
    }

    /// Returns all connections, with that of the node's channel.
    pub(crate) fn up(&self) -> UsedConnections {
        let connections: Vec<_> = self.connections().values().cloned().collect();
        let mut used = UsedConnections::default();
        for connection in &connections {
            used.and(connection.session());
            self.note_recent(&mut used, connection);
        }
        self.add_home(&mut used);
        used
    }

    /// Adds the connection of the node's channel, because the node publishes through it.
    pub(crate) fn add_home(&self, used: &mut UsedConnections) {
        if let Some((_, home)) = self.node.get() {
            used.and(home.session());
        }
    }

    /// Notes whether a connection is recent. Other nodes may then still act on what they read from
    /// the previous primary.
    pub(crate) fn note_recent(&self, used: &mut UsedConnections, connection: &Connection) {
        if let (Some((node, _)), Some(since)) = (self.node.get(), connection.since()) {
            let until = since + node.longest_trust();
            if Instant::now() < until {
                used.recent_until(until);
            }
        }
    }

    /// Returns since when all connections that lead to these keys have been up; without keys, the
    /// connections to all primaries.
    pub(crate) fn since<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Instant {
        let known = self.known();
        let named = keys.map(|key| known.as_ref()?.primary_of(slot_of(key)).cloned());
        let mut places: Vec<_> = named.collect();
        if places.is_empty() {
            let all = known.iter().flat_map(|map| map.primaries());
            places = all.map(Some).collect();
        }
        let since = places
            .into_iter()
            .map(|place| self.connection_to(&place?).since());
        let now = Instant::now();
        // A connection that is not up counts as new: it may come to lead to another server.
        since.map(|since| since.unwrap_or(now)).max().unwrap_or(now)
    }

    /// Returns a name whose slot this primary serves, after the first `after` such names.
    pub(crate) fn tag_of(&self, place: &HostPort, after: usize) -> Option<String> {
        self.known()?.tags_of(place, after)
    }

    /// Returns the connection to a primary, and adds it if there is none.
    pub(crate) fn connection_to(&self, place: &HostPort) -> Connection {
        let mut connections = self.connections();
        let connection = connections.entry(place.clone()).or_insert_with(|| {
            let lifecycle = self
                .node
                .get()
                .map(|(node, _)| node.lifecycle(Weak::clone(&self.me), place.clone()));
            Connection::new(self.server(place.clone()), lifecycle, self.deadline)
        });
        connection.clone()
    }

    /// Closes the connections to all primaries for good.
    pub(crate) fn close(&self) {
        for connection in self.connections().values() {
            connection.close();
        }
    }
}
