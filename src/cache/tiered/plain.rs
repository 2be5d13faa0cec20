//! How a [`TieredCache`] works as a plain [`LayerInfoCache`], without a backend.

use super::TieredCache;
use crate::cache::LayerInfoCache;
use crate::cache::shared::{Fact, Found};
use crate::coherence::change::{ChangeKind, Outcome};
use crate::types::link::Key;
use crate::types::per_key::PerKey;
use crate::types::question::Question;
use crate::types::{Digest, Error, LayerMeta, Link, runtime};
use async_trait::async_trait;

#[async_trait]
impl LayerInfoCache for TieredCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        let found = self.ask(Question::Link(link.clone())).await?;
        Ok(found.is_member())
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        let fact = Fact::member(link.clone());
        self.remember(Question::Link(link.clone()), fact).await
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        self.forget(Key::Link(link.clone())).await
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        Ok(self.ask(Question::Meta(*digest)).await?.meta())
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        let fact = Fact::meta(*digest, meta.clone());
        self.remember(Question::Meta(*digest), fact).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.forget(Key::Meta(*digest)).await
    }
}

impl TieredCache {
    async fn ask(&self, question: Question) -> Result<Found, Error> {
        let found = self.get(&question);
        if found.is_whole(&question) {
            return Ok(found);
        }
        let read_stamps = self.read_stamps(&question);
        let mut budget = self.budget();
        let mut answers = self
            .try_fetch(&[question], &[read_stamps], &mut budget)
            .await?;
        Ok(answers.pop().unwrap_or_default())
    }

    async fn remember(&self, question: Question, fact: Fact) -> Result<(), Error> {
        let mut budget = self.budget();
        if self.has_shared() {
            budget.check_runtime()?;
        }
        let mut guard = self.guard([&question]);
        let keys = [fact.key.clone()];
        let granted = self.grant(&mut guard, &keys, true, &mut budget).await;
        if let Err(error) = granted {
            tracing::debug!(%error, "not filled");
            return Ok(());
        }
        let mut budget = budget.after_the_answer();
        let facts = PerKey::one(fact);
        self.try_fill(&mut guard, facts, &mut budget).await
    }

    async fn forget(&self, key: Key) -> Result<(), Error> {
        if self.has_shared() {
            runtime::check()?;
        }
        let nothing = async { ((), Outcome::Over) };
        self.change(ChangeKind::Removal, vec![key], None, nothing)
            .await
    }
}
