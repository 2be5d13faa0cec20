//! Many questions of one caller.

use super::load::Loaded;
use super::{Backend, MOST_LOADS, ReadThrough, memory};
use crate::cache::shared::Question;
use crate::{Answer, CacheStatus, Error, Freshness, LayerMeta, Link};
use futures::{StreamExt, TryStreamExt};
use std::sync::{Mutex, PoisonError};

type Stated = Answer<Option<LayerMeta>>;

impl<B: Backend> ReadThrough<B> {
    /// [`stat`](Self::stat) for many, in their order: one round trip to Redis for all that memory
    /// does not know, and the backend for the rest of them at the same time.
    pub(crate) async fn stat_many(
        &self,
        links: Vec<Link>,
        freshness: Freshness,
    ) -> Result<Vec<Stated>, Error> {
        let mut answers: Vec<Option<Stated>> = vec![None; links.len()];
        // The places of the answers that are missing, and what is asked there.
        let (mut places, mut open) = (Vec::new(), Vec::new());
        for (at, link) in links.into_iter().enumerate() {
            if freshness == Freshness::Cached {
                let known = self.recall_stat((&link).into());
                answers[at] = known.map(|meta| memory(Some(meta)));
            }
            if answers[at].is_none() {
                places.push(at);
                open.push(Question::stat(link, self.backend().shares_blobs()));
            }
        }
        let mut budget = self.cache().budget();
        if freshness == Freshness::Cached && self.cache().has_shared() && !open.is_empty() {
            let rights = open.iter().map(|question| self.cache().rights(question));
            let rights: Vec<_> = rights.collect();
            let found = self.cache().look_up(&open, &rights, &mut budget);
            let found = found.await;
            let asked = places.iter().zip(&open).zip(rights);
            for (((at, question), rights), found) in asked.zip(found) {
                let is_answer = found.is_whole(question);
                if is_answer {
                    self.audit_shared_hit(question, rights);
                }
                let answer = is_answer.then(|| Loaded::from(found).answer(CacheStatus::Redis));
                answers[*at] = answer.map(meta_if_member);
            }
        }
        let missing = places.into_iter().zip(open);
        let missing = missing.filter(|(at, _)| answers[*at].is_none());
        let missing: Vec<_> = missing.collect();
        // One that has met silence has waited for those that begin after it.
        let shared_budget = Mutex::new(budget);
        let loads = missing.into_iter().map(async |(at, question)| {
            let shared_budget = || {
                // It is a copy of a few words, whoever panicked.
                shared_budget.lock().unwrap_or_else(PoisonError::into_inner)
            };
            let mut budget = *shared_budget();
            let loaded = self.board(question, freshness, &mut budget).await?;
            if budget.has_failed() {
                shared_budget().fail();
            }
            Ok::<_, Error>((at, meta_if_member(loaded)))
        });
        let mut loads = futures::stream::iter(loads).buffered(MOST_LOADS);
        while let Some((at, answer)) = loads.try_next().await? {
            answers[at] = Some(answer);
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

fn meta_if_member(loaded: Answer<Loaded>) -> Stated {
    loaded.map(Loaded::meta_if_member)
}
