//! The read-through core: tiers in front of a backend.
//!
//! It knows no `ObjectStore`. A question goes to memory; then, in a task that others who ask the
//! same may board, to Redis for all of it in one round trip, and to the backend for what is still
//! missing at the same time. Positives fill the tiers. A change goes around the backend's own.

mod backend;
mod change;
#[cfg(test)]
mod fakes;
mod load;
mod permit;
#[cfg(test)]
mod tests;

pub use backend::{Backend, LinkState, Stat, WritableBackend};
pub(crate) use permit::Permit;

use crate::cache::TieredCache;
use crate::cache::shared::{Found, Question};
use crate::coherence::flight::{Flights, Step};
use crate::link::Key;
use crate::metrics::Lookups;
use crate::turns::Turns;
use crate::{Answer, CacheStatus, Digest, Error, Freshness, LayerMeta, Limits, Link};
use futures::{StreamExt, TryStreamExt};
use load::Loaded;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The core. Cloning is a reference count.
#[derive(Debug)]
pub(crate) struct ReadThrough<B> {
    inner: Arc<Inner<B>>,
}

#[derive(Debug)]
struct Inner<B> {
    backend: B,
    cache: TieredCache,
    flights: Arc<Flights<(Question, Freshness), Reply>>,
    changes: Turns,
    lookups: Lookups,
}

/// What a load answers to all who boarded it.
type Reply = Result<Loaded, Arc<Error>>;

/// How many loads one call may have under way.
const MOST_LOADS: usize = 64;

/// How long a load may run before the next one for its key starts anyway.
const PATIENCE: Duration = Duration::from_secs(5);

impl<B> Clone for ReadThrough<B> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<B: Backend> ReadThrough<B> {
    pub(crate) fn new(backend: B, cache: TieredCache, limits: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                backend,
                cache,
                flights: Arc::new(Flights::new(Turns::new("loads", limits.loads))),
                changes: Turns::new("changes", limits.changes),
                lookups: Lookups::new("backend"),
            }),
        }
    }

    pub(crate) fn backend(&self) -> &B {
        &self.inner.backend
    }

    pub(crate) fn cache(&self) -> &TieredCache {
        &self.inner.cache
    }

    /// What is known of a blob in a repository: membership first, then meta. `None` if the blob is
    /// not in the repository, whatever is known of it otherwise.
    pub(crate) async fn stat(
        &self,
        link: &Link,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        let question = Question::Stat(link.clone());
        let answer = self.ask(question, freshness).await?;
        Ok(answer.map(|loaded| loaded.meta_if_member(self.backend().shares_blobs())))
    }

    /// What is known of a membership.
    pub(crate) async fn link(
        &self,
        link: &Link,
        freshness: Freshness,
    ) -> Result<Answer<LinkState>, Error> {
        let question = Question::Link(link.clone());
        let answer = self.ask(question, freshness).await?;
        Ok(answer.map(|loaded| loaded.link))
    }

    /// As [`link`](Self::link), where only an answer with the object whose presence is the
    /// membership will do. Redis has none of that.
    pub(crate) async fn link_object(
        &self,
        link: &Link,
        freshness: Freshness,
    ) -> Result<Answer<LinkState>, Error> {
        let question = Question::Link(link.clone());
        if freshness == Freshness::Cached {
            let found = self.cache().recall(&question);
            if found
                .member
                .as_ref()
                .is_some_and(|member| member.object.is_some())
            {
                return Ok(Loaded::from(found)
                    .answer(CacheStatus::Memory)
                    .map(|l| l.link));
            }
        }
        let answer = self.board(question, Freshness::Verified).await?;
        Ok(answer.map(|loaded| loaded.link))
    }

    /// What is known of a blob, wherever it belongs.
    pub(crate) async fn meta(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        let answer = self.ask(Question::Meta(*digest), freshness).await?;
        Ok(answer.map(|loaded| loaded.meta))
    }

    /// [`stat`](Self::stat) for many, in their order: one round trip to Redis for all that memory
    /// does not know, and the backend for the rest of them at the same time.
    pub(crate) async fn stat_many(
        &self,
        links: &[Link],
        freshness: Freshness,
    ) -> Result<Vec<Answer<Option<LayerMeta>>>, Error> {
        let shares = self.backend().shares_blobs();
        let mut answers: Vec<Option<Answer<Option<LayerMeta>>>> = vec![None; links.len()];
        if freshness == Freshness::Cached {
            let questions: Vec<_> = links.iter().cloned().map(Question::Stat).collect();
            for (answer, question) in answers.iter_mut().zip(&questions) {
                let found = self.cache().recall(question);
                *answer = complete(found, question, shares, CacheStatus::Memory);
            }
            self.ask_shared(&questions, &mut answers).await;
        }
        let missing = links
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none());
        let missing: Vec<_> = missing.map(|(link, _)| link.clone()).collect();
        let loads = missing
            .into_iter()
            .map(async |link| self.load_stat(&link, freshness).await);
        let loads = futures::stream::iter(loads).buffered(MOST_LOADS);
        let mut loaded = loads.try_collect::<Vec<_>>().await?.into_iter();
        let whole = answers
            .into_iter()
            .map(|answer| answer.or_else(|| loaded.next()));
        Ok(whole.flatten().collect())
    }

    async fn load_stat(
        &self,
        link: &Link,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        let answer = self.board(Question::Stat(link.clone()), freshness).await?;
        Ok(answer.map(|loaded| loaded.meta_if_member(self.backend().shares_blobs())))
    }

    async fn ask_shared(
        &self,
        questions: &[Question],
        answers: &mut [Option<Answer<Option<LayerMeta>>>],
    ) {
        if !self.cache().has_shared() {
            return;
        }
        let open = answers
            .iter()
            .zip(questions)
            .filter(|(answer, _)| answer.is_none());
        let open: Vec<_> = open.map(|(_, question)| question.clone()).collect();
        if open.is_empty() {
            return;
        }
        let rights: Vec<_> = open
            .iter()
            .map(|question| self.cache().rights(question))
            .collect();
        let found = self.cache().look_up(&open, &rights).await;
        let shares = self.backend().shares_blobs();
        let mut found = open.iter().zip(found);
        for answer in answers.iter_mut().filter(|answer| answer.is_none()) {
            if let Some((question, found)) = found.next() {
                *answer = complete(found, question, shares, CacheStatus::Redis);
            }
        }
    }

    async fn ask(&self, question: Question, freshness: Freshness) -> Result<Answer<Loaded>, Error> {
        if freshness == Freshness::Cached {
            let found = self.cache().recall(&question);
            if self.is_answer(&question, &found) {
                return Ok(Loaded::from(found).answer(CacheStatus::Memory));
            }
        }
        self.board(question, freshness).await
    }

    /// Whether `found` is all that was asked for.
    fn is_answer(&self, question: &Question, found: &Found) -> bool {
        found.answers(question, self.backend().shares_blobs())
    }

    /// Boards a load that leaves from here on, and waits for its answer. Where there is no turn for
    /// one, what the tiers know is answered before the caller waits for it.
    async fn board(
        &self,
        question: Question,
        freshness: Freshness,
    ) -> Result<Answer<Loaded>, Error> {
        let key = (question, freshness);
        let flights = &self.inner.flights;
        let (mut ticket, mut turn) = (flights.ask(&key), None);
        loop {
            let boarded = match flights.step(&key, &mut ticket, turn.take()) {
                Step::Wait(ended) => {
                    let _ = timeout(PATIENCE, ended.wait()).await;
                    if let Some(answer) = self.recall_again(&key.0, freshness) {
                        return Ok(answer);
                    }
                    continue;
                }
                Step::Full => {
                    if let Some(answer) = self.ask_shared_alone(&key.0, freshness).await {
                        return Ok(answer);
                    }
                    turn = Some(flights.turn().await);
                    if let Some(answer) = self.recall_again(&key.0, freshness) {
                        return Ok(answer);
                    }
                    continue;
                }
                Step::Board(boarded) => {
                    self.cache().work().boarded.increment(1);
                    boarded
                }
                Step::Depart(departure, boarded) => {
                    let core = self.clone();
                    tokio::spawn(core.load(key.0.clone(), freshness, departure));
                    boarded
                }
            };
            return match boarded.answer().await {
                Some(Ok(loaded)) => {
                    let status = loaded.status;
                    Ok(loaded.answer(status))
                }
                Some(Err(error)) => Err(error.again()),
                None => Err(Error::LoadLost),
            };
        }
    }

    /// What memory knows by now, for one who has waited.
    fn recall_again(&self, question: &Question, freshness: Freshness) -> Option<Answer<Loaded>> {
        if freshness == Freshness::Verified {
            return None;
        }
        let found = self.cache().recall_again(question);
        let is_answer = self.is_answer(question, &found);
        is_answer.then(|| Loaded::from(found).answer(CacheStatus::Memory))
    }

    /// What Redis knows, for one who may not load: a backend that hangs delays no hit.
    async fn ask_shared_alone(
        &self,
        question: &Question,
        freshness: Freshness,
    ) -> Option<Answer<Loaded>> {
        if freshness == Freshness::Verified || !self.cache().has_shared() {
            return None;
        }
        let questions = std::slice::from_ref(question);
        let rights = self.cache().rights(question);
        let found = self.cache().look_up(questions, &[rights]).await.pop()?;
        let is_answer = self.is_answer(question, &found);
        is_answer.then(|| Loaded::from(found).answer(CacheStatus::Redis))
    }

    /// Takes away everywhere what the tiers hold of this, because the backend has just denied it. Where
    /// they hold nothing the other nodes are not told: anybody can ask for what was never there.
    pub(crate) async fn heal_if_held(&self, question: &Question) {
        if self.cache().may_hold(question).await {
            self.heal(question.keys()).await;
        }
    }

    /// Takes keys away everywhere because the backend has just denied what they say.
    pub(crate) async fn heal(&self, keys: Vec<Key>) {
        let core = self.clone();
        let healed = tokio::spawn(async move { core.cache().heal(&keys).await });
        let _ = healed.await;
    }
}

fn complete(
    found: Found,
    question: &Question,
    shares: bool,
    status: CacheStatus,
) -> Option<Answer<Option<LayerMeta>>> {
    let complete = found.answers(question, shares);
    complete.then(|| {
        Loaded::from(found)
            .answer(status)
            .map(|l| l.meta_if_member(shares))
    })
}
