//! How the cache uses Redis: [`RedisCache`] and its parts, with the keys of docker/distribution.

pub(crate) mod admin;
#[cfg(any(test, layercache_bends))]
mod bent_scripts;
mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod net;
pub(crate) mod node;
#[cfg(feature = "testing")]
pub(crate) mod script_texts;
#[cfg(feature = "testing")]
pub mod specified;
pub(crate) mod tier;

pub use config::RedisConfig;
pub use net::connector::{Connector, RedisStream};

use crate::cache::deadline::Deadline;
use crate::cache::shared::SharedSettings;
use crate::cache::storage::Storage;
use crate::coherence::Coherence;
use crate::coherence::rules::{Rule, kept};
use crate::layout::Layout;
use crate::telemetry::metrics::{broken_values, describe};
use crate::types::link::{Key, KeyKind};
use crate::types::namespace::Namespace;
use crate::types::{Error, runtime};
use futures::FutureExt;
use futures::future::{BoxFuture, join, ready};
use metrics::Counter;
use net::address::Address;
use net::cluster::Cluster;
use net::connect_error::{Failure, failed};
use net::connection::Connection;
use net::lifecycle::Lifecycle;
use net::sentinel::Sentinels;
use net::servers::{KeyedCommand, Replies, Servers};
use node::announce::Forget;
use node::channel;
use node::joined::Joined;
use node::namespace::NamespaceClaim;
use node::primary::NodeInCluster;
use node::space_claim::SpaceClaim;
use node::this_node::Node;
use std::sync::Arc;
use std::time::Duration;
use tier::keys::Keys;
use tier::scripts::Scripts;
use tokio::time::{Instant, sleep_until};

/// A [`LayerInfoCache`](crate::LayerInfoCache) in Redis, shared by all nodes that use it.
///
/// Keys and fields are those of docker/distribution; the hashes have a few fields more:
///
/// | key | type | holds |
/// |---|---|---|
/// | `repository::<name>::blobs` | set | the digests of the repository's layers |
/// | `repository::<name>::manifests` | set | the digests of the repository's manifests |
/// | `blobs::<digest>` | hash | `path`, `length`, `e_tag`, `version`, `last_modified` (seconds since 1970), `attributes` |
/// | `blobs::<name>::<digest>` | hash | the same fields, for a repository's own copy in a layout without shared blobs |
///
/// The cache also reads `size` and `digest`, which today's Go registry writes, so it can answer
/// from a Redis that a Go registry has filled. A value that is missing, invalid or of another type
/// is a miss, and the next fill overwrites it. The [TTL](RedisConfig::with_ttl) of a hash starts
/// with each write. Redis keeps no TTL for a member of a set, so a set expires as a whole, counted from
/// its first member. Reads never renew a TTL.
///
/// Used directly, this is a plain cache that writes without leases: an `add` that comes late may
/// bring back what was removed meanwhile. [`TieredCache`](crate::TieredCache) prevents that.
///
/// # Cost
/// [`guide::costs`](crate::guide::costs#the-plain-caches) has the round trips of each operation. No
/// operation calls a backend.
///
/// # Failure
/// A look-up takes at most [`RedisConfig::with_timeout`], a change at most
/// [`RedisConfig::with_change_timeout`]. The cache connects when it first needs a connection, and
/// again after a connection was lost. While a server does not answer, only one probe at a time asks it.
/// Without a tokio runtime with timers, each operation returns [`Error::Runtime`].
///
/// # Servers
/// Redis 6.2 or newer, or Valkey: a single server, a primary that sentinels watch, or a cluster.
/// [`guide::redis`](crate::guide::redis) says how to reach each, what it needs and what it
/// promises.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::{Digest, LayerInfoCache, Link, RedisCache, RedisConfig};
///
/// let cache = RedisCache::new(RedisConfig::new("redis://127.0.0.1"))?;
/// # let digest = "sha256:e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f".parse()?;
/// let link = Link::layer("library/alpine".parse()?, digest);
/// cache.add(&link).await?;
/// assert!(cache.contains(&link).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RedisCache {
    pub(crate) address: Address,
    pub(crate) servers: Servers,
    pub(crate) keys: Keys,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) settings: SharedSettings,
    pub(crate) lease_ttl: Duration,
    /// With a layout, a hash contains a path unless `omit_path` is set, and a stored path counts
    /// only if the layout agrees with it.
    pub(crate) layout: Option<Arc<dyn Layout>>,
    omit_path: bool,
    broken: [Counter; KeyKind::NAMES.len()],
    /// Whether the settings name a name space. If they do, the note in Redis omits the store's
    /// name.
    is_named: bool,
    /// The note in Redis that says which storage's facts are cached there.
    note: Option<String>,
    /// What the keys and channels of the nodes begin with. The keys of the facts may begin with more.
    pub(crate) node_prefix: String,
    /// The node and the connection of its channel; `None` if no memory is filled from this cache.
    pub(crate) joined: Option<Arc<Joined>>,
    /// The claim on the name space, if this is one of several name spaces of a cache.
    space: Option<SpaceClaim>,
}

impl RedisCache {
    /// Creates a cache in the Redis that `config` names. Does not connect yet, so it costs no round
    /// trip.
    ///
    /// # Errors
    /// Returns an error if the address is invalid, or another setting is, and [`Error::Runtime`] in
    /// a tokio runtime without timers or without I/O.
    pub fn new(config: RedisConfig) -> Result<Self, Error> {
        runtime::check_here()?;
        let address = config.check()?;
        if config.connector.0.is_none() {
            runtime::has_io()?;
        }
        describe();
        Ok(Self {
            servers: address.servers(config.timeout, None),
            address,
            keys: Keys::new(config.fact_prefix()),
            node_prefix: config.key_prefix(),
            scripts: Arc::new(Scripts::new()),
            settings: SharedSettings {
                ttl: config.ttl,
                fence_ttl: config.fence_ttl,
                policy: config.change_policy,
                timeout: config.timeout,
                change_timeout: config.change_timeout,
                trust_timeout: config.trust_timeout,
            },
            lease_ttl: config.lease_ttl,
            layout: None,
            omit_path: config.omit_path,
            broken: broken_values(),
            is_named: config.namespace.is_some(),
            note: None,
            joined: None,
            space: None,
        })
    }

    pub(crate) fn with_layout(mut self, layout: Arc<dyn Layout>) -> Self {
        self.layout = Some(layout);
        self
    }

    /// Makes this the cache of a storage.
    pub(crate) fn of_storage(mut self, storage: &Storage) -> Self {
        self.note = Some(match self.is_named {
            true => storage.note_of_layout(),
            false => storage.note(),
        });
        self.with_layout(Arc::clone(&storage.layout))
    }

    /// Returns a name space of this cache: the same servers and the same node, with keys of its own.
    pub(crate) fn in_namespace(&self, name: &Namespace, storage: Option<&Storage>) -> Self {
        let prefix = config::in_namespace(self.keys.prefix(), name.as_str());
        let nodes = channel::nodes_key(&self.node_prefix);
        let note = storage.map_or_else(|| "own backend".to_owned(), Storage::note);
        Self {
            address: self.address.clone(),
            servers: self.servers.clone(),
            scripts: Arc::clone(&self.scripts),
            settings: self.settings,
            lease_ttl: self.lease_ttl,
            layout: storage.map(|storage| Arc::clone(&storage.layout)),
            omit_path: self.omit_path,
            broken: broken_values(),
            is_named: self.is_named,
            note: None,
            node_prefix: self.node_prefix.clone(),
            joined: self.joined.clone(),
            space: Some(SpaceClaim::new(&note, &prefix, &nodes)),
            keys: Keys::new(prefix),
        }
    }

    /// Makes this cache a node among the others that share the Redis, and begins to connect.
    pub(crate) fn join(mut self, coherence: Arc<Coherence>) -> Self {
        let claim = self.note.take().map(NamespaceClaim::new);
        let node = Arc::new(Node::new(
            &self.node_prefix,
            coherence,
            self.settings.trust_timeout,
            claim,
        ));
        let servers = self
            .address
            .servers(self.settings.timeout, Some(Arc::clone(&node)));
        let home = match &servers {
            Servers::One(connection) => connection.clone(),
            Servers::Cluster(cluster) => {
                let lifecycle: Arc<dyn Lifecycle<Connection>> = Arc::clone(&node) as _;
                let home = cluster.connection_of(&node.channel.nodes_key(), lifecycle);
                let member = NodeInCluster {
                    node: Arc::clone(&node),
                    home: home.clone(),
                };
                cluster.join(Arc::new(member), home.clone());
                home
            }
        };
        home.begin();
        self.servers = servers;
        self.joined = Some(Arc::new(Joined { node, home }));
        self
    }

    pub(crate) const fn settings(&self) -> SharedSettings {
        self.settings
    }

    /// Runs commands as [`Servers::run`] does, once the claim on the name space holds.
    pub(crate) async fn run(
        &self,
        operation: &'static str,
        commands: Vec<KeyedCommand>,
        deadline: Deadline,
    ) -> Result<Replies, Error> {
        self.claim(operation, deadline).await?;
        self.servers.run(operation, commands, deadline).await
    }

    /// Waits until this node may use its name space in Redis.
    pub(crate) async fn claim(
        &self,
        operation: &'static str,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let Some((claim, joined)) = self.space.as_ref().zip(self.joined.as_ref()) else {
            return Ok(());
        };
        let staked = claim.stake(&joined.home, deadline).await;
        staked.map_err(|failure| failed(operation, failure))
    }

    /// Returns an error if the connection on which the claim held was lost meanwhile: the answers
    /// may then come from a server where another storage is noted.
    pub(crate) fn still_claimed(&self, operation: &'static str) -> Result<(), Error> {
        match self.space.as_ref().zip(self.joined.as_ref()) {
            Some((claim, joined)) if !claim.holds(&joined.home) => {
                Err(failed(operation, Failure::Lost(None)))
            }
            _ => Ok(()),
        }
    }

    /// Tells all other nodes what to forget. The returned future ends when no node can still answer
    /// with the old values, neither from its memory nor from a primary that was replaced. A node
    /// may use a replaced primary for as long as its memory, counted at the latest from when this
    /// node connected to the new primary.
    async fn tell(
        &self,
        what: Forget<'_>,
        keys: &[Key],
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        let Some(joined) = &self.joined else {
            return Ok(ready(()).boxed());
        };
        let Joined { node, home } = joined.as_ref();
        let others = node.publish(home, what, deadline).await?;
        let subjects = keys.iter().map(|key| self.keys.subject(key.into()));
        let subjects: Vec<_> = subjects.collect();
        let since = self.servers.since(subjects.iter().map(String::as_bytes));
        match since.map(|since| since + node.channel.longest_trust()) {
            Some(end) if end > Instant::now() && kept(Rule::WaitForTheOldPrimary) => {
                Ok(join(others, sleep_until(end)).map(|_| ()).boxed())
            }
            _ => Ok(others),
        }
    }
}

impl Address {
    /// Returns the servers at this address, for `node` or for plain use. Does not connect yet.
    fn servers(&self, timeout: Duration, node: Option<Arc<Node>>) -> Servers {
        let lifecycle = node.map(|node| node as Arc<dyn Lifecycle<Connection>>);
        Servers::One(match self.clone() {
            Self::One(server) => Connection::new(server, lifecycle, timeout),
            Self::Sentinel {
                sentinels,
                service,
                primary,
            } => {
                let sentinels = Sentinels::new(sentinels, service, primary);
                Connection::new(sentinels, lifecycle, timeout)
            }
            Self::Cluster { seeds } => return Servers::Cluster(Cluster::new(seeds, timeout)),
        })
    }
}
