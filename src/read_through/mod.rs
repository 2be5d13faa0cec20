//! The read-through core: tiers in front of a backend.
//!
//! It knows no `ObjectStore`. A question goes to memory; then, in a task that others who ask the
//! same may board, to Redis for all of it in one round trip, and to the backend for what is still
//! missing at the same time. Positives fill the tiers. A change goes around the backend's own.

mod alone;
mod audit;
mod backend;
mod change;
#[cfg(test)]
pub(crate) mod fakes;
mod fill;
mod gather;
mod load;
mod stat_many;
#[cfg(test)]
pub(crate) mod tests;

pub use audit::AuditorConfig;
pub use backend::{Backend, LinkState, Stat, WritableBackend};

use crate::cache::TieredCache;
use crate::cache::shared::{Question, QuestionRef};
use crate::cache::tiered::{Budget, FillGuard};
use crate::coherence::flight::{Flights, Step};
use crate::link::{Key, LinkRef};
use crate::metrics::Loads;
use crate::spans;
use crate::turns::Turns;
use crate::{Answer, CacheStatus, Digest, Error, Freshness, LayerMeta, Limits};
use audit::Auditor;
use futures::FutureExt;
use futures::future::BoxFuture;
use gather::Gathering;
use load::Loaded;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::Instrument;

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
    gathering: Gathering,
    changes: Turns,
    loads: Loads,
    auditor: Option<Auditor>,
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
    pub(crate) fn new(
        backend: B,
        cache: TieredCache,
        limits: Limits,
        auditor: Option<AuditorConfig>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                backend,
                cache,
                flights: Arc::new(Flights::new(Turns::new("loads", limits.loads))),
                gathering: Gathering::default(),
                changes: Turns::new("changes", limits.changes),
                loads: Loads::new(),
                auditor: auditor.map(Auditor::new),
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
        link: LinkRef<'_>,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        if freshness == Freshness::Cached
            && let Some(meta) = self.recall_stat(link)
        {
            return Ok(memory(Some(meta)));
        }
        let mut budget = self.cache().budget();
        self.load_stat(link, freshness, &mut budget).await
    }

    /// A hit in memory: the meta of a blob that is in the repository.
    pub(crate) fn recall_stat(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let (question, meta) = if self.backend().shares_blobs() {
            let question = QuestionRef::Stat(link);
            let found = self.cache().recall(question);
            (question, found.member.and(found.meta))
        } else {
            (QuestionRef::Own(link), self.cache().recall_object(link))
        };
        if meta.is_some() {
            self.audit_hit(question);
        }
        meta
    }

    /// A hit in memory: the object whose presence is a membership.
    pub(crate) fn recall_object(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let object = self.cache().recall_object(link);
        if object.is_some() {
            self.audit_hit(QuestionRef::Link(link));
        }
        object
    }

    /// As [`stat`](Self::stat), for one whom memory has not answered.
    pub(crate) async fn load_stat(
        &self,
        link: LinkRef<'_>,
        freshness: Freshness,
        budget: &mut Budget,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        let question = Question::stat(link.to_owned(), self.backend().shares_blobs());
        let answer = self.board(question, freshness, budget).await?;
        Ok(answer.map(Loaded::meta_if_member))
    }

    /// Whether a blob is in a repository.
    pub(crate) async fn contains(
        &self,
        link: LinkRef<'_>,
        freshness: Freshness,
    ) -> Result<Answer<bool>, Error> {
        let question = QuestionRef::Link(link);
        if freshness == Freshness::Cached && self.cache().recall(question).member.is_some() {
            self.audit_hit(question);
            return Ok(memory(true));
        }
        let mut budget = self.cache().budget();
        let answer = self.board(question.to_owned(), freshness, &mut budget);
        let answer = answer.await?;
        Ok(answer.map(|loaded| matches!(loaded.link, LinkState::Linked(_))))
    }

    /// What the backend says of a membership, and of the object whose presence it is: Redis knows
    /// nothing of that.
    pub(crate) async fn load_object(
        &self,
        link: LinkRef<'_>,
        budget: &mut Budget,
    ) -> Result<Answer<LinkState>, Error> {
        let question = Question::Link(link.to_owned());
        let answer = self.board(question, Freshness::Verified, budget).await?;
        Ok(answer.map(|loaded| loaded.link))
    }

    /// What is known of a blob, wherever it belongs.
    pub(crate) async fn meta(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        if freshness == Freshness::Cached
            && let meta @ Some(_) = self.recall_meta(digest)
        {
            return Ok(memory(meta));
        }
        let mut budget = self.cache().budget();
        self.load_meta(digest, freshness, &mut budget).await
    }

    /// A hit in memory: the meta of a blob.
    pub(crate) fn recall_meta(&self, digest: &Digest) -> Option<LayerMeta> {
        let question = QuestionRef::Meta(digest);
        let meta = self.cache().recall(question).meta;
        if meta.is_some() {
            self.audit_hit(question);
        }
        meta
    }

    /// As [`meta`](Self::meta), for one whom memory has not answered.
    pub(crate) async fn load_meta(
        &self,
        digest: &Digest,
        freshness: Freshness,
        budget: &mut Budget,
    ) -> Result<Answer<Option<LayerMeta>>, Error> {
        let answer = self
            .board(Question::Meta(*digest), freshness, budget)
            .await?;
        Ok(answer.map(|loaded| loaded.meta))
    }

    /// Whether memory has all that is asked for.
    pub(crate) fn knows(&self, question: &Question) -> bool {
        self.cache().recall_again(question).is_whole(question)
    }

    /// Boards a load that leaves from here on, and waits for its answer. Where there is no turn for
    /// one, what the tiers know is answered before the caller waits for it.
    ///
    /// Boxed: those whom memory answers do not carry a place for this about.
    fn board<'a>(
        &'a self,
        question: Question,
        freshness: Freshness,
        budget: &'a mut Budget,
    ) -> BoxFuture<'a, Result<Answer<Loaded>, Error>> {
        self.board_key((question, freshness), budget).boxed()
    }

    async fn board_key(
        &self,
        key: (Question, Freshness),
        budget: &mut Budget,
    ) -> Result<Answer<Loaded>, Error> {
        let freshness = key.1;
        let flights = &self.inner.flights;
        let (mut ticket, mut turn) = (flights.ask(&key), None);
        loop {
            let boarded = match flights.step(&key, &mut ticket, turn.take()) {
                Step::Wait(ended) => {
                    // It was waited for with that load.
                    if let Ok(silence) = timeout(PATIENCE, ended.wait()).await
                        && silence.was_met()
                    {
                        budget.fail();
                    }
                    if let Some(answer) = self.recall_again(&key.0, freshness) {
                        return Ok(answer);
                    }
                    continue;
                }
                Step::Full => {
                    if let Some(answer) = self.ask_shared_alone(&key.0, freshness, budget).await {
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
                    let span = spans::load(&key.0, freshness);
                    let looks_up = freshness == Freshness::Cached && self.cache().has_shared();
                    if looks_up && !budget.is_spent() {
                        self.gather((key.0.clone(), departure, span, *budget)).await;
                    } else {
                        let load = (key.0.clone(), freshness, departure, *budget);
                        let load = self.clone().load(load);
                        tokio::spawn(load.instrument(span));
                    }
                    boarded
                }
            };
            let silence = boarded.silence();
            let answer = boarded.answer().await;
            if silence.was_met() {
                budget.fail();
            }
            return match answer {
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
        let is_answer = found.is_whole(question);
        is_answer.then(|| Loaded::from(found).answer(CacheStatus::Memory))
    }

    /// What memory knows of the object that holds a blob; not counted.
    pub(crate) fn known(&self, question: &Question) -> Option<LayerMeta> {
        self.cache().recall_again(question).meta
    }

    /// What Redis knows, for one who may not load: a backend that hangs delays no hit.
    async fn ask_shared_alone(
        &self,
        question: &Question,
        freshness: Freshness,
        budget: &mut Budget,
    ) -> Option<Answer<Loaded>> {
        if freshness == Freshness::Verified || !self.cache().has_shared() {
            return None;
        }
        let questions = std::slice::from_ref(question);
        let rights = self.cache().rights(question);
        let mut found = self.cache().look_up(questions, &[rights], budget).await;
        let found = found.pop()?;
        let is_answer = found.is_whole(question);
        if is_answer {
            self.audit_shared_hit(question, rights);
        }
        is_answer.then(|| Loaded::from(found).answer(CacheStatus::Redis))
    }

    /// Takes away everywhere what the tiers hold of these keys, because the backend has just denied it.
    /// In a task of its own: a caller that goes away does not stop it.
    pub(crate) async fn deny(&self, keys: Vec<Key>, guard: Option<FillGuard>, budget: Budget) {
        let core = self.clone();
        let (mut guard, mut budget) = (guard, budget);
        let denied = tokio::spawn(async move {
            let cache = core.cache();
            cache.deny(&keys, guard.as_mut(), &mut budget).await;
        });
        let _ = denied.await;
    }
}

/// What memory has answered.
const fn memory<T>(value: T) -> Answer<T> {
    Answer {
        value,
        status: CacheStatus::Memory,
    }
}
