//! How a [`RedisCache`] works as a plain [`LayerInfoCache`], whose writes need no lease.

use crate::cache::LayerInfoCache;
use crate::cache::memory::jittered;
use crate::cache::redis::RedisCache;
use crate::cache::shared::{Fact, SharedTier};
use crate::coherence::lease::Token;
use crate::types::link::Key;
use crate::types::per_key::PerKey;
use crate::types::question::Question;
use crate::types::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;

#[async_trait]
impl LayerInfoCache for RedisCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        let answers = self
            .ask(&[Question::Link(link.clone())], self.read_deadline())
            .await?;
        Ok(answers.iter().any(PerKey::is_member))
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        self.put("add", &Fact::member(link.clone())).await
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        let keys = [Key::Link(link.clone())];
        let deadline = self.removal_deadline();
        self.invalidate(&keys, deadline).await?;
        self.notify(&keys, deadline).await
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        let mut answers = self
            .ask(&[Question::Meta(*digest)], self.read_deadline())
            .await?;
        Ok(answers.pop().and_then(PerKey::meta))
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        let fact = Fact::meta(*digest, meta.clone());
        self.put("set_meta", &fact).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        let keys = [Key::Meta(*digest)];
        let deadline = self.removal_deadline();
        self.invalidate(&keys, deadline).await?;
        self.notify(&keys, deadline).await
    }
}

impl RedisCache {
    async fn put(&self, operation: &'static str, fact: &Fact) -> Result<(), Error> {
        let call = self.write_call(fact, Token::random(), jittered(self.settings.ttl));
        let (script, deadline) = (&self.scripts.put, self.removal_deadline());
        self.run_all(operation, script, [call], deadline).await?;
        Ok(())
    }
}
