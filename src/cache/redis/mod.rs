//! The shared tier: Redis, with the keys of docker/distribution.

mod about;
mod address;
mod announce;
mod breaker;
mod call;
mod channel;
mod check_up;
mod cluster;
mod config;
mod connection;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod in_time;
mod inspect;
mod keys;
mod look_up;
mod many;
mod namespace;
mod plain;
mod purge;
mod rehearsal;
mod route;
mod scripts;
mod sentinel;
mod servers;
mod session;
mod shard;
mod slots;
#[cfg(test)]
mod tests;
mod tier;
mod trouble;
pub(crate) mod visit;

pub(crate) use check_up::check_up;
pub use config::RedisConfig;
pub use inspect::{Fence, Held, InRedis, Life, RedisEntry};

use super::shared::SharedSettings;
use crate::cache::deadline::Deadline;
use crate::coherence::Coherence;
use crate::layout::Layout;
use crate::link::{Key, MetaKey, MetaRef};
use crate::metrics::{BrokenValues, describe};
use crate::{Error, LayerMeta, Link};
use address::Address;
use announce::Forget;
use call::Fields;
use cluster::Cluster;
use connection::{Connection, Duty};
use fields::StoredPath;
use futures::FutureExt;
use futures::future::{BoxFuture, join, ready};
use keys::Keys;
use namespace::Claim;
use route::Route;
use scripts::Scripts;
use sentinel::Sentinels;
use servers::Servers;
use session::Node;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

/// A [`LayerInfoCache`](crate::LayerInfoCache) in Redis, shared by all nodes that use it.
///
/// Keys and fields are those of docker/distribution, with more fields beside them:
///
/// | key | type | holds |
/// |---|---|---|
/// | `repository::<name>::blobs` | set | the digests of the repository's layers |
/// | `repository::<name>::manifests` | set | the digests of its manifests |
/// | `blobs::<digest>` | hash | `path`, `length`, `e_tag`, `version`, `last_modified` (seconds since 1970), `attributes` |
/// | `blobs::<name>::<digest>` | hash | the same, of the copy that a repository has in a layout without shared blobs |
///
/// `size` and `digest`, which today's Go registry writes, are read as well, so that a Redis which
/// one has warmed answers here. What is missing, of another type or makes no sense is a miss and
/// is overwritten by the next fill; [`RedisConfig::ttl`] is set when a key is born and never
/// renewed by reads. The members of a set have no time of their own in Redis, so a set expires as
/// a whole, counted from its first member.
///
/// By itself this is the plain cache of the seed: without leases and fences, what is added late may
/// be from before a removal. [`TieredCache`](crate::TieredCache) has them.
///
/// # Cost
/// | | Redis round trips |
/// |---|---|
/// | `contains`, `meta`, `add`, `set_meta` | 1 |
/// | `remove`, `remove_meta` | 2 |
///
/// No backend is called; [`Registry`](crate::Registry) has the terms.
///
/// # Failure
/// No look-up takes longer than [`RedisConfig::timeout`], and no change longer than
/// [`RedisConfig::change_timeout`]. A connection is made when it is first
/// needed and again when it is lost; a server that does not answer is left alone by all but one probe
/// at a time.
///
/// # Servers
/// Redis 6.2 or newer, or Valkey: alone, known by sentinels, or a cluster; [`guide::redis`](crate::guide::redis)
/// says how each is reached, what it needs and what it promises.
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
    address: Address,
    servers: Servers,
    keys: Keys,
    scripts: Scripts,
    settings: SharedSettings,
    lease: Duration,
    trust: Duration,
    /// With a layout, a path is stored only if `store_path`, and believed only if the layout says
    /// the same.
    layout: Option<Arc<dyn Layout>>,
    store_path: bool,
    broken: BrokenValues,
    /// Whether the name space was named, so that it need not be known by the store's name.
    is_named: bool,
    /// What is cached here, as it is noted in Redis.
    storage: Option<String>,
    /// Our end of the channel, where memory is filled from here.
    node: Option<(Arc<Node>, Connection)>,
}

impl RedisCache {
    /// A cache in the Redis that `config` names. Does not connect yet, so it costs no round trip.
    ///
    /// # Errors
    /// An address that cannot be one is refused, and so are times that cannot work.
    pub fn new(config: RedisConfig) -> Result<Self, Error> {
        let address = config.check()?;
        describe();
        Ok(Self {
            servers: address.servers(config.timeout, None),
            address,
            keys: Keys::new(config.key_prefix()),
            scripts: Scripts::new(),
            settings: SharedSettings {
                ttl: config.ttl,
                fence: config.fence,
                policy: config.change_policy,
                timeout: config.timeout,
                change_timeout: config.change_timeout,
                trust: config.trust,
            },
            lease: config.lease,
            trust: config.trust,
            layout: None,
            store_path: config.store_path,
            broken: BrokenValues::new(),
            is_named: config.namespace.is_some(),
            storage: None,
            node: None,
        })
    }

    pub(crate) fn with_layout(mut self, layout: Arc<dyn Layout>) -> Self {
        self.layout = Some(layout);
        self
    }

    /// The same, for a node that caches this store, as the layout lays it out.
    pub(crate) fn of_store(mut self, store: &impl Display, layout: Arc<dyn Layout>) -> Self {
        let name = (!self.is_named).then(|| store.to_string());
        self.storage = Some(namespace::storage(name.as_deref(), layout.as_ref()));
        self.with_layout(layout)
    }

    /// The same, as a node among others that share this Redis.
    pub(crate) fn join(mut self, coherence: Arc<Coherence>) -> Self {
        let claim = self.storage.take().map(Claim::new);
        let node = Arc::new(Node::new(self.keys.prefix(), coherence, self.trust, claim));
        let servers = self
            .address
            .servers(self.settings.timeout, Some(Arc::clone(&node)));
        let home = match &servers {
            Servers::One(connection) => connection.clone(),
            Servers::Cluster(cluster) => cluster.join(Arc::clone(&node)),
        };
        home.begin();
        self.servers = servers;
        self.node = Some((node, home));
        self
    }

    pub(crate) const fn settings(&self) -> SharedSettings {
        self.settings
    }

    /// The path that a hash which names `stored`, or none, may name, as the layout says it.
    fn path_of(&self, meta: MetaRef<'_>, stored: Option<&str>) -> StoredPath {
        let Some(layout) = &self.layout else {
            return StoredPath::Any;
        };
        let path = match meta {
            MetaRef::Shared(digest) => {
                if stored.is_some_and(|stored| layout.is_blob_path(digest, stored)) {
                    return StoredPath::Stored;
                }
                layout.blob_path(digest)
            }
            MetaRef::Own(link) => layout.link_path(&link.to_owned()),
        };
        match path {
            Some(path) => StoredPath::Only(path.into()),
            None => StoredPath::None,
        }
    }

    /// Whose meta belongs to a membership, as the layout says it.
    fn meta_of(&self, link: &Link) -> MetaKey {
        let layout = self.layout.as_ref();
        match layout.is_none_or(|layout| layout.blob_path(&link.digest).is_some()) {
            true => MetaKey::Shared(link.digest),
            false => MetaKey::Own(link.clone()),
        }
    }

    /// Tells all other nodes. What it returns is over when none of them can answer from before, be
    /// it from memory or from a primary that another one has replaced: that one is believed for as
    /// long as memory is, after whoever asks here was connected to the new one at the latest.
    async fn tell(
        &self,
        what: Forget<'_>,
        keys: &[Key],
        deadline: Deadline,
    ) -> Result<BoxFuture<'static, ()>, Error> {
        let Some((node, home)) = &self.node else {
            return Ok(ready(()).boxed());
        };
        let others = node.publish(home, what, deadline).await?;
        let subjects: Vec<_> = keys.iter().map(|key| self.keys.subject(key)).collect();
        let since = self.servers.since(subjects.iter().map(String::as_bytes));
        match since.map(|since| since + node.channel.doubt()) {
            Some(end) if end > Instant::now() => {
                Ok(join(others, sleep_until(end)).map(|_| ()).boxed())
            }
            _ => Ok(others),
        }
    }

    /// The fields of a hash: those to set, and the names of those to remove.
    fn fields(&self, meta: &LayerMeta) -> Fields {
        fields::write(meta, self.store_path || self.layout.is_none())
    }
}

/// The last of the handles says goodbye, where there is a runtime for it: nobody has to wait for a node
/// that is gone.
impl Drop for RedisCache {
    fn drop(&mut self) {
        if let (Some((node, home)), Ok(runtime)) = (self.node.take(), Handle::try_current()) {
            runtime.spawn(async move { node.leave(&home).await });
        }
    }
}

impl Address {
    /// What is there, for a node or for nobody in particular.
    fn servers(&self, timeout: Duration, node: Option<Arc<Node>>) -> Servers {
        let route = match self.clone() {
            Self::One(server) => Route::Fixed(server),
            Self::Sentinel {
                sentinels,
                service,
                primary,
            } => Route::Sentinels(Sentinels::new(sentinels, service, primary)),
            Self::Cluster { seeds } => return Servers::Cluster(Cluster::new(seeds, timeout)),
        };
        let duty = node.map_or(Duty::Plain, Duty::Channel);
        Servers::One(Connection::new(route, duty, timeout))
    }
}
