//! What `layercache stat --json` prints.

use layercache::{LayerMeta, LinkState};
use layercache_cli::admin::{Fence, Inspection, Life, RedisEntry, StoredValue};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub(super) struct Document {
    repository: String,
    digest: String,
    memory: &'static str,
    redis: RedisDocument,
    storage: StorageDocument,
    agree: bool,
    disagreements: Vec<String>,
}

#[derive(Serialize)]
struct RedisDocument {
    layer: EntryDocument,
    manifest: EntryDocument,
    meta: EntryDocument,
    fields: BTreeMap<&'static str, String>,
    media_type: EntryDocument,
}

/// What Redis has of one key. Times are in seconds. A time that never ends is `"never"`. `null`
/// means that the value does not exist.
#[derive(Serialize)]
struct EntryDocument {
    key: String,
    value: &'static str,
    expires: Option<Time>,
    lease: Option<Time>,
    fence: Option<FenceDocument>,
}

#[derive(Serialize)]
struct FenceDocument {
    changes: u64,
    expires: Time,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Time {
    Seconds(f64),
    Never(&'static str),
}

/// What the storage has. A link is `linked`, `absent` or `broken`, or `null` if the layout has no
/// such links.
#[derive(Serialize)]
struct StorageDocument {
    layer: Option<&'static str>,
    manifest: Option<&'static str>,
    meta: Option<MetaDocument>,
}

#[derive(Serialize)]
struct MetaDocument {
    path: String,
    length: u64,
    e_tag: Option<String>,
    version: Option<String>,
    last_modified: Option<String>,
    attributes: Option<String>,
}

impl Document {
    pub(super) fn new(inspection: &Inspection) -> Self {
        let Inspection {
            repository,
            digest,
            redis,
            storage,
            disagreements,
            ..
        } = inspection;
        Self {
            repository: repository.to_string(),
            digest: digest.to_string(),
            memory: super::MEMORY,
            redis: RedisDocument {
                layer: EntryDocument::new(&redis.layer),
                manifest: EntryDocument::new(&redis.manifest),
                meta: EntryDocument::new(&redis.meta),
                fields: redis.fields.iter().cloned().collect(),
                media_type: EntryDocument::new(&redis.media_type),
            },
            storage: StorageDocument {
                layer: storage.layer.as_ref().map(link),
                manifest: storage.manifest.as_ref().map(link),
                meta: storage.meta.as_ref().map(MetaDocument::new),
            },
            agree: disagreements.is_empty(),
            disagreements: disagreements.iter().map(ToString::to_string).collect(),
        }
    }
}

impl EntryDocument {
    fn new<T>(entry: &RedisEntry<T>) -> Self {
        Self {
            key: entry.key.clone(),
            value: match entry.value {
                StoredValue::Absent => "absent",
                StoredValue::Broken => "broken",
                StoredValue::Found(_) => "found",
            },
            expires: entry.life.map(Time::new),
            lease: entry.lease.map(Time::new),
            fence: entry
                .fence
                .map(|Fence { changes, life, .. }| FenceDocument {
                    changes,
                    expires: Time::new(life),
                }),
        }
    }
}

impl Time {
    const fn new(life: Life) -> Self {
        match life {
            Life::For(time) => Self::Seconds(time.as_secs_f64()),
            Life::Forever => Self::Never("never"),
        }
    }
}

impl MetaDocument {
    fn new(meta: &LayerMeta) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Self {
            path: meta.path().to_owned(),
            length: meta.length(),
            e_tag: text(meta.e_tag()),
            version: text(meta.version()),
            last_modified: super::modified(meta),
            attributes: text(meta.attributes()),
        }
    }
}

const fn link(state: &LinkState) -> &'static str {
    match state {
        LinkState::Linked(_) => "linked",
        LinkState::Absent => "absent",
        LinkState::Broken => "broken",
        _ => "unknown",
    }
}
