//! How a [`RedisCache`] works as a plain [`LayerInfoCache`], whose writes need no lease.

use crate::cache::LayerInfoCache;
use crate::cache::memory::jittered;
use crate::cache::redis::RedisCache;
use crate::cache::shared::{Fact, Found, SharedTier};
use crate::coherence::lease::Token;
use crate::types::link::Key;
use crate::types::question::Question;
use crate::types::{Digest, Error, LayerMeta, Link, runtime};
use async_trait::async_trait;

#[async_trait]
impl LayerInfoCache for RedisCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        let found = self.look_up(Question::Link(link.clone())).await?;
        Ok(found.is_some_and(|found| found.is_member()))
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        self.put("add", &Fact::member(link.clone())).await
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        self.forget(Key::Link(link.clone())).await
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        let found = self.look_up(Question::Meta(*digest)).await?;
        Ok(found.and_then(Found::meta))
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        let fact = Fact::meta(*digest, meta.clone());
        self.put("set_meta", &fact).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.forget(Key::Meta(*digest)).await
    }
}

/// Each operation checks the runtime, because a connection starts tasks.
impl RedisCache {
    async fn look_up(&self, question: Question) -> Result<Option<Found>, Error> {
        runtime::check()?;
        let mut answers = self.ask(&[question], self.read_deadline()).await?;
        Ok(answers.pop())
    }

    async fn forget(&self, key: Key) -> Result<(), Error> {
        runtime::check()?;
        let (keys, deadline) = ([key], self.removal_deadline());
        self.invalidate(&keys, deadline).await?;
        self.notify(&keys, deadline).await
    }

    async fn put(&self, operation: &'static str, fact: &Fact) -> Result<(), Error> {
        runtime::check()?;
        let call = self.write_call(fact, Token::random(), jittered(self.settings.ttl));
        let (script, deadline) = (&self.scripts.put, self.removal_deadline());
        self.run_all(operation, script, [call], deadline).await?;
        Ok(())
    }
}
