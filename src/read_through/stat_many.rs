//! How does one call answer many questions?

use super::load::Loaded;
use super::{MOST_LOADS, ReadThrough, memory};
use crate::types::question::Question;
use crate::types::{Answer, CacheStatus, Error, Freshness, LayerMeta, Link};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::sync::{Mutex, PoisonError};

type Stated = Answer<Option<LayerMeta>>;

impl ReadThrough {
    /// Runs [`stat`](Self::stat) for many links and returns the answers in the order of `links`. It
    /// asks Redis in one round trip for all that memory does not know, and then the backend for the
    /// rest, concurrently.
    pub(crate) fn stat_many(
        &self,
        links: Vec<Link>,
        freshness: Freshness,
    ) -> BoxFuture<'_, Result<Vec<Stated>, Error>> {
        self.stat_all(links, freshness).boxed()
    }

    async fn stat_all(&self, links: Vec<Link>, freshness: Freshness) -> Result<Vec<Stated>, Error> {
        let mut answers: Vec<Option<Stated>> = vec![None; links.len()];
        // The positions of the answers that are missing, and their questions.
        let (mut places, mut open) = (Vec::new(), Vec::new());
        for (at, link) in links.into_iter().enumerate() {
            if freshness == Freshness::Cached {
                let known = self.get_stat((&link).into());
                answers[at] = known.map(|meta| memory(Some(meta)));
            }
            if answers[at].is_none() {
                places.push(at);
                open.push(Question::stat(link, self.backend().shares_blobs()));
            }
        }
        if open.is_empty() {
            return Ok(answers.into_iter().flatten().collect());
        }
        self.stat_rest(answers, (places, open), freshness).await
    }

    /// Asks Redis and the backend for the answers that are missing.
    async fn stat_rest(
        &self,
        mut answers: Vec<Option<Stated>>,
        (places, open): (Vec<usize>, Vec<Question>),
        freshness: Freshness,
    ) -> Result<Vec<Stated>, Error> {
        let mut budget = self.cache().budget();
        if freshness == Freshness::Cached && self.cache().has_shared() {
            let read_stamps = open
                .iter()
                .map(|question| self.cache().read_stamps(question));
            let read_stamps: Vec<_> = read_stamps.collect();
            let found = self.cache().fetch(&open, &read_stamps, &mut budget);
            let found = found.await;
            let asked = places.iter().zip(&open).zip(read_stamps);
            for (((at, question), read_stamps), found) in asked.zip(found) {
                let is_answer = found.is_whole(question);
                if is_answer {
                    self.verify_shared_hit(question, read_stamps);
                }
                let answer = is_answer.then(|| Loaded::from(found).answer(CacheStatus::Redis));
                answers[*at] = answer.map(meta_if_member);
            }
        }
        let missing = places.into_iter().zip(open);
        let missing = missing.filter(|(at, _)| answers[*at].is_none());
        let missing: Vec<_> = missing.collect();
        // If one load has waited for a silent tier, the loads that start after it do not wait
        // again.
        let shared_budget = Mutex::new(budget);
        let loads = missing.into_iter().map(async |(at, question)| {
            let shared_budget = || {
                // The value is a copy of a few words; a panic cannot leave it half changed.
                shared_budget.lock().unwrap_or_else(PoisonError::into_inner)
            };
            let mut budget = *shared_budget();
            let loaded = self.join_load((question, freshness), &mut budget).await?;
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
    loaded.map(|loaded| loaded.found.meta_if_member())
}
