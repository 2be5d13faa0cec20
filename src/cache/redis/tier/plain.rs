//! How a [`RedisCache`] works as a plain [`LayerInfoCache`], whose writes need no lease.

use crate::cache::LayerInfoCache;
use crate::cache::memory::jittered;
use crate::cache::redis::RedisCache;
use crate::cache::redis::tier::call::{Fields, write};
use crate::cache::shared::SharedTier;
use crate::coherence::lease::Token;
use crate::types::link::Key;
use crate::types::question::Question;
use crate::types::{Digest, Error, LayerMeta, Link};
use async_trait::async_trait;

#[async_trait]
impl LayerInfoCache for RedisCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        let answers = self
            .ask(&[Question::Link(link.clone())], self.read_deadline())
            .await?;
        Ok(answers.iter().any(|found| found.member.is_some()))
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        self.put("add", &Key::Link(link.clone()), None).await
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
        Ok(answers.pop().and_then(|found| found.meta))
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        let fields = Some(self.fields(meta));
        self.put("set_meta", &Key::Meta(*digest), fields).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        let keys = [Key::Meta(*digest)];
        let deadline = self.removal_deadline();
        self.invalidate(&keys, deadline).await?;
        self.notify(&keys, deadline).await
    }
}

impl RedisCache {
    async fn put(
        &self,
        operation: &'static str,
        key: &Key,
        fields: Option<Fields>,
    ) -> Result<(), Error> {
        let call = self.call(key, Token::random());
        let call = write(call, jittered(self.settings.ttl), fields);
        self.run_all(
            operation,
            &self.scripts.put,
            [call],
            self.removal_deadline(),
        )
        .await?;
        Ok(())
    }
}
