//! What do Redis and the storage say about one blob in one repository?

mod redis;

pub use self::redis::{Fence, InRedis, Life, RedisEntry, StoredValue};

use self::redis::in_redis;
use futures::future::OptionFuture;
use layercache::internals::AdminClient;
use layercache::layout::Layout;
use layercache::{
    Backend, BoxError, Digest, Error, LayerMeta, Link, LinkKind, LinkState, RedisConfig,
    RepositoryName, StoreBackend,
};
use object_store::ObjectStore;
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Holds what Redis and the storage say about a blob in a repository.
///
/// The memory of the nodes cannot be asked, because it is in their processes. A node fills its
/// memory only from Redis, or with values that Redis has accepted.
#[derive(Debug)]
pub struct Inspection {
    /// The repository.
    pub repository: RepositoryName,
    /// The blob.
    pub digest: Digest,
    /// What Redis has.
    pub redis: InRedis,
    /// What the storage has.
    pub storage: InStorage,
    /// The points where Redis would answer differently from the storage. Keys that were being
    /// changed meanwhile are left out.
    pub disagreements: Vec<Disagreement>,
}

/// Holds what the storage has of a blob in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InStorage {
    /// The membership as a layer; `None` if the layout has no place for layers.
    pub layer: Option<LinkState>,
    /// The membership as a manifest; `None` if the layout has no place for manifests.
    pub manifest: Option<LinkState>,
    /// The blob. If repositories share no content, this repository's own copy.
    pub meta: Option<LayerMeta>,
}

/// Names a point where Redis and the storage disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disagreement {
    /// Redis says that the blob is in the repository, and the storage denies it. A client that may
    /// pull from the repository may then pull the blob.
    Member {
        /// The kind of the membership.
        kind: LinkKind,
    },
    /// Redis has the metadata of a blob that the storage does not have.
    Blob,
    /// Redis and the storage have different values of a field.
    Field {
        /// The field: `path`, `length`, `e_tag`, `version` or `last_modified`.
        name: &'static str,
        /// The value in Redis.
        redis: String,
        /// The value in the storage.
        storage: String,
    },
    /// Redis has a value that no node accepts. Nodes treat it as a miss, and the next fill
    /// overwrites it.
    Broken {
        /// The key in Redis.
        key: String,
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member { kind } => {
                let kind = match kind {
                    LinkKind::Layer => "layer",
                    _ => "manifest",
                };
                write!(
                    f,
                    "Redis says that the repository has it as a {kind}, and the storage denies it"
                )
            }
            Self::Blob => {
                f.write_str("Redis has the metadata of a blob that the storage does not have")
            }
            Self::Field {
                name,
                redis,
                storage,
            } => write!(f, "{name} is {redis} in Redis, {storage} in the storage"),
            Self::Broken { key } => {
                write!(f, "`{key}` holds a value that no node accepts")
            }
        }
    }
}

/// Asks Redis and the storage about a blob in a repository, and compares their answers.
///
/// Writes nothing, joins no channel and is not a node, so no node waits for it.
///
/// # Cost
/// [`guide::costs`](crate::guide::costs#many-keys-and-special-cases) has the round trips and the
/// calls of the store: two reads of links and one `head` of the blob. If Redis and the store
/// disagree, Redis is asked again, and a disagreement counts only if both answers show it.
///
/// # Errors
/// Returns an error if Redis or the storage cannot be asked, or if a setting is not valid.
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
    let client = AdminClient::new(redis.clone(), Arc::clone(&layout))?;
    // Ask Redis before the storage. An entry that Redis still has after the storage denied it is
    // not part of a change that is under way.
    let ask = || in_redis(&client, layout.as_ref(), repository, digest);
    let mut redis = ask().await?;
    let storage = in_storage(store, Arc::clone(&layout), repository, digest).await?;
    let mut disagreements = compare(&redis, &storage);
    if !disagreements.is_empty() {
        redis = ask().await?;
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
    let backend = StoreBackend::new(store, layout);
    let link = |link, is_kept: bool| {
        let backend = &backend;
        OptionFuture::from(is_kept.then_some(async move { backend.link_state(link).await }))
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
        // The object that proves the membership is the blob itself.
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
    Error::Backend {
        source: Arc::from(error),
    }
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
            (StoredValue::Broken, _) => all.push(Disagreement::Broken {
                key: entry.key.clone(),
            }),
            (StoredValue::Found(()), Some(LinkState::Absent | LinkState::Broken) | None) => {
                all.push(Disagreement::Member { kind });
            }
            (StoredValue::Found(()), Some(_)) | (StoredValue::Absent, _) => {}
        }
    }
    if redis.meta.fence.is_some() {
        return all;
    }
    match (&redis.meta.value, &storage.meta) {
        (StoredValue::Broken, _) => all.push(Disagreement::Broken {
            key: redis.meta.key.clone(),
        }),
        (StoredValue::Found(_), None) => all.push(Disagreement::Blob),
        (StoredValue::Found(meta), Some(truth)) => all.extend(differences(meta, truth)),
        (StoredValue::Absent, _) => {}
    }
    all
}

/// Returns the fields in which cached metadata differs from the storage. A field that is missing in
/// the cached metadata is no difference.
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
