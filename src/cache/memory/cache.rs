//! [`MemoryCache`]: the memory tier as a cache by itself, without Redis.

use super::{Memory, MemoryConfig};
use crate::cache::LayerInfoCache;
use crate::cache::shared::Fact;
use crate::coherence::Coherence;
use crate::types::per_key::PerKey;
use crate::types::question::{Question, QuestionRef};
use crate::types::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;
use std::sync::Arc;

/// A [`LayerInfoCache`] in the memory of this process. It is bounded, and its content is lost when
/// the process ends.
///
/// Every operation returns at once and never fails. [`MemoryConfig`] sets the bounds.
///
/// # Cost
/// No I/O: [`guide::costs`](crate::guide::costs#the-plain-caches). `contains`, `meta`, `remove` and
/// `remove_meta` allocate once, for the trait's future. `add` and `set_meta` also allocate the
/// entry.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use layercache::{LayerInfoCache, LayerMeta, MemoryCache, MemoryConfig};
///
/// let cache = MemoryCache::new(MemoryConfig::default());
/// # let digest = "sha256:e28d98ac666afd34f089b971a663264d54d67a60ddc82996d48d8f3c204eb75f".parse()?;
/// cache.set_meta(&digest, &LayerMeta::new("blobs/e28d98ac", 7)?).await?;
/// assert_eq!(cache.meta(&digest).await?.map(|meta| meta.length()), Some(7));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryCache {
    pub(super) memory: Memory,
}

impl MemoryCache {
    /// Creates an empty cache.
    pub fn new(config: MemoryConfig) -> Self {
        Self {
            memory: Memory::new(config, Arc::new(Coherence::alone())),
        }
    }
}

#[async_trait]
impl LayerInfoCache for MemoryCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        Ok(self
            .memory
            .get(QuestionRef::Link(link.into()))
            .is_some_and(|found| found.is_member()))
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        let read_stamps = self.memory.read_stamps(&Question::Link(link.clone()));
        let fact = Fact::member(link.clone());
        self.memory.fill(&PerKey::one(fact), read_stamps);
        Ok(())
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        self.memory.generations().bump(link);
        Ok(())
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        let found = self.memory.get(QuestionRef::Meta(digest));
        Ok(found.and_then(PerKey::meta))
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        // The old meta is removed first, so that it is gone even if the new one is implausible.
        self.memory.generations().bump(digest);
        let read_stamps = self.memory.read_stamps(&Question::Meta(*digest));
        let fact = Fact::meta(*digest, meta.clone());
        self.memory.fill(&PerKey::one(fact), read_stamps);
        Ok(())
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.memory.generations().bump(digest);
        Ok(())
    }
}
