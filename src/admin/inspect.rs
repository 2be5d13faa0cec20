//! What Redis and the storage say of one blob in one repository, side by side.

use crate::admin::{Held, InRedis};
use crate::layout::Layout;
use crate::read_through::Backend;
use crate::store::StoreBackend;
use crate::{
    BoxError, Digest, Error, LayerMeta, Link, LinkKind, LinkState, RedisCache, RedisConfig,
    RepositoryName,
};
use futures::future::OptionFuture;
use object_store::ObjectStore;
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// What Redis and the storage say of a blob in a repository.
///
/// What nodes have in memory is in their processes, and cannot be asked for; it is never more than Redis
/// has told them.
///
/// ```
/// use layercache::admin::Inspection;
///
/// fn verdict(seen: &Inspection) -> String {
///     match seen.disagreements.first() {
///         None => format!("all agree on {} in {}", seen.digest, seen.repository),
///         Some(first) => first.to_string(),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The repository.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
    /// What Redis has.
    pub redis: InRedis,
    /// What is true.
    pub storage: InStorage,
    /// Where Redis would answer otherwise than the storage. What was being changed meanwhile is not
    /// here.
    pub disagreements: Vec<Disagreement>,
}

/// What the storage has of a blob in a repository.
///
/// ```
/// use layercache::LinkState;
/// use layercache::admin::InStorage;
///
/// /// Whether a pull of this layer would succeed.
/// fn may_be_pulled(storage: &InStorage) -> bool {
///     matches!(storage.layer, Some(LinkState::Linked(_))) && storage.meta.is_some()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InStorage {
    /// The membership as a layer; `None` where the layout keeps no such.
    pub layer: Option<LinkState>,
    /// The membership as a manifest; `None` where the layout keeps no such.
    pub manifest: Option<LinkState>,
    /// The blob. Where repositories share no content, that of this repository.
    pub meta: Option<LayerMeta>,
}

/// Where Redis and the storage disagree.
///
/// ```
/// use layercache::LinkKind;
/// use layercache::admin::Disagreement;
///
/// let disagreement = Disagreement::Member { kind: LinkKind::Layer };
/// assert!(disagreement.to_string().contains("the storage denies it"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disagreement {
    /// Redis says that the blob is in the repository, the storage denies it: whoever may pull from the
    /// repository may pull the blob.
    Member {
        /// As what.
        kind: LinkKind,
    },
    /// Redis has the meta of a blob that the storage does not have.
    Blob,
    /// Redis says something else of the blob.
    Field {
        /// Of what: `path`, `length`, `e_tag`, `version` or `last_modified`.
        name: &'static str,
        /// What Redis says.
        redis: String,
        /// What the storage says.
        storage: String,
    },
    /// What stands in Redis is nothing that a node believes. It is a miss, and the next fill overwrites it.
    Broken {
        /// Where it stands.
        key: String,
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member { kind } => {
                let kind = match kind {
                    LinkKind::Layer => "layer",
                    LinkKind::Manifest => "manifest",
                };
                write!(
                    f,
                    "Redis says that the repository has it as a {kind}, the storage denies it"
                )
            }
            Self::Blob => f.write_str("Redis describes a blob that the storage does not have"),
            Self::Field {
                name,
                redis,
                storage,
            } => write!(f, "{name} is {redis} in Redis, {storage} in the storage"),
            Self::Broken { key } => {
                write!(f, "what stands in `{key}` is nothing that a node believes")
            }
        }
    }
}

/// Asks Redis and the storage what they have of a blob in a repository, and says where they disagree.
///
/// Writes nothing, joins no channel, and is no node: nobody waits for it.
///
/// ```
/// use layercache::RedisConfig;
/// use layercache::admin::inspect;
/// use layercache::layout::Distribution;
/// use object_store::local::LocalFileSystem;
/// use std::sync::Arc;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let seen = inspect(
///     &RedisConfig::new("redis://127.0.0.1"),
///     Arc::new(LocalFileSystem::new_with_prefix("/srv/registry")?),
///     Arc::new(Distribution::default()),
///     &"library/alpine".parse()?,
///     &format!("sha256:{}", "ab".repeat(32)).parse()?,
/// )
/// .await?;
/// for disagreement in &seen.disagreements {
///     println!("{disagreement}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Cost
/// | | Redis round trips | calls of the store |
/// |---|---|---|
/// | they agree | 1 | 3: two links are read, a blob is asked for |
/// | they do not | 2: what is said twice counts | the same |
///
/// # Errors
/// If Redis or the storage cannot be asked; a setting that does not work.
///
/// # Cancellation
/// May be dropped at any time.
pub async fn inspect(
    redis: &RedisConfig,
    store: Arc<dyn ObjectStore>,
    layout: Arc<dyn Layout>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Inspection, Error> {
    let cache = RedisCache::new(redis.clone())?.with_layout(Arc::clone(&layout));
    // Redis first: what it has then, and still has after the storage denied it, nobody takes back.
    let mut redis = cache.inspect(repository, digest).await?;
    let storage = in_storage(store, layout, repository, digest).await?;
    let mut disagreements = compare(&redis, &storage);
    if !disagreements.is_empty() {
        redis = cache.inspect(repository, digest).await?;
        let now = compare(&redis, &storage);
        disagreements.retain(|one| now.contains(one));
    }
    Ok(Inspection {
        repository: repository.clone(),
        digest: *digest,
        redis,
        storage,
        disagreements,
    })
}

async fn in_storage(
    store: Arc<dyn ObjectStore>,
    layout: Arc<dyn Layout>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<InStorage, Error> {
    let layer = Link::layer(repository.clone(), *digest);
    let manifest = Link::manifest(repository.clone(), *digest);
    let [has_layers, has_manifests] =
        [&layer, &manifest].map(|link| layout.link_path(link).is_some());
    let backend = StoreBackend::new(Arc::new(store), layout);
    let link = |link, is_kept: bool| {
        let backend = &backend;
        OptionFuture::from(is_kept.then_some(async move { backend.link(link).await }))
    };
    let meta = OptionFuture::from(backend.shares_blobs().then(|| backend.describe(digest)));
    let (layer, manifest, meta) = futures::future::join3(
        link(&layer, has_layers),
        link(&manifest, has_manifests),
        meta,
    )
    .await;
    let [layer, manifest] = [layer, manifest].map(|link| link.transpose().map_err(backend_failed));
    let (layer, manifest) = (layer?, manifest?);
    let meta = match (meta, layer.as_ref().or(manifest.as_ref())) {
        (Some(meta), _) => meta.map_err(backend_failed)?,
        // The object that is the membership is the blob.
        (None, Some(LinkState::Linked(object))) => object.clone(),
        (None, _) => None,
    };
    Ok(InStorage {
        layer,
        manifest,
        meta,
    })
}

fn backend_failed(error: BoxError) -> Error {
    Error::backend(error)
}

fn compare(redis: &InRedis, storage: &InStorage) -> Vec<Disagreement> {
    let mut all = Vec::new();
    let members = [
        (LinkKind::Layer, &redis.layer, &storage.layer),
        (LinkKind::Manifest, &redis.manifest, &storage.manifest),
    ];
    for (kind, entry, truth) in members {
        if entry.fence.is_some() {
            continue;
        }
        match (&entry.value, truth) {
            (Held::Broken, _) => all.push(Disagreement::Broken {
                key: entry.key.clone(),
            }),
            (Held::Found(()), Some(LinkState::Absent | LinkState::Broken) | None) => {
                all.push(Disagreement::Member { kind });
            }
            (Held::Found(()), Some(LinkState::Linked(_))) | (Held::Absent, _) => {}
        }
    }
    if redis.meta.fence.is_some() {
        return all;
    }
    match (&redis.meta.value, &storage.meta) {
        (Held::Broken, _) => all.push(Disagreement::Broken {
            key: redis.meta.key.clone(),
        }),
        (Held::Found(_), None) => all.push(Disagreement::Blob),
        (Held::Found(meta), Some(truth)) => all.extend(differences(meta, truth)),
        (Held::Absent, _) => {}
    }
    all
}

/// Where a meta says something that is not so; what it leaves out it does not say.
fn differences(meta: &LayerMeta, truth: &LayerMeta) -> impl Iterator<Item = Disagreement> {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let time = |meta: &LayerMeta| {
        let since = meta.last_modified()?.duration_since(UNIX_EPOCH).ok()?;
        Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
    };
    let path = |meta: &LayerMeta| Some(meta.path().to_owned());
    let length = |meta: &LayerMeta| Some(meta.length().to_string());
    let fields = [
        ("path", path(meta), path(truth)),
        ("length", length(meta), length(truth)),
        ("e_tag", text(meta.e_tag()), text(truth.e_tag())),
        ("version", text(meta.version()), text(truth.version())),
        ("last_modified", time(meta), time(truth)),
    ];
    fields.into_iter().filter_map(|(name, redis, storage)| {
        let redis = redis?;
        let storage = storage.unwrap_or_else(|| "none".to_owned());
        (redis != storage).then_some(Disagreement::Field {
            name,
            redis,
            storage,
        })
    })
}
