//! The read-through core: how does a question go through the tiers to the backend?
//!
//! The core knows no `ObjectStore`. A question goes to memory first. If memory does not know the
//! answer, the caller joins a load, which all callers of the same key share. The load asks Redis
//! for everything in one round trip. It then asks the backend for all facts that are still missing,
//! at the same time. Positive answers fill the tiers. A change surrounds the backend's own call
//! with the change protocol.

mod backend;
mod batcher;
mod caller_task;
mod change;
#[cfg(test)]
pub(crate) mod fakes;
mod fill;
mod load;
mod reading;
mod stat_many;
#[cfg(test)]
pub(crate) mod tests;
mod verifier;

pub use backend::{Backend, LinkState, Stat, WritableBackend};
pub(crate) use reading::Reading;
pub use verifier::VerifierConfig;

use crate::cache::TieredCache;
use crate::cache::tiered::{Budget, FillGuard};
use crate::coherence::flight::{FlightStep, Flights};
use crate::coherence::limiter::Limiter;
use crate::coherence::limiter::Limits;
use crate::telemetry::metrics::Loads;
use crate::telemetry::spans;
use crate::types::link::{Key, LinkRef};
use crate::types::question::{Question, QuestionRef};
use crate::types::{Answer, CacheStatus, Digest, Error, Freshness, LayerMeta};
use batcher::Batcher;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, Ready, ready};
use load::Loaded;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tracing::Instrument;
use verifier::Verifier;

/// The core. Cloning increments a reference count.
///
/// It does not depend on the type of the backend, so it is compiled once, in this crate, and not in
/// each application.
#[derive(Debug, Clone)]
pub(crate) struct ReadThrough {
    inner: Arc<dyn Erased>,
}

/// Erases the type of [`Inner`]. Otherwise each application compiles the code that drops an `Inner`,
/// and with it that of every part of the cache.
trait Erased: Debug + Send + Sync {
    fn inner(&self) -> &Inner;
}

impl Erased for Inner {
    fn inner(&self) -> &Inner {
        self
    }
}

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    cache: Arc<TieredCache>,
    flights: Arc<Flights<(Question, Freshness), LoadResult>>,
    batcher: Batcher,
    changes: Limiter,
    loads: Loads,
    verifier: Option<Verifier>,
}

/// A caller's wait for a load. It is boxed, so that the future of a caller that memory answers stays
/// small: the caller moves that future.
type Loading<'a, T> = BoxFuture<'a, Result<Answer<T>, Error>>;

/// The answer of memory, or the wait for a load. The application polls the boxed future and does not
/// compile it. [`Reading`] takes the answer of memory out of its `Ready`: to poll that would move the
/// answer once more.
type Answering<'a, T> = Either<Ready<Result<Answer<T>, Error>>, Loading<'a, T>>;

/// The answer of a load to all callers that joined it.
type LoadResult = Result<Loaded, Arc<Error>>;

/// Maximum number of concurrent loads of one call.
const MOST_LOADS: usize = 64;

/// Time after which the next load for a key starts, although the running one has not ended.
const PATIENCE: Duration = Duration::from_secs(5);

impl ReadThrough {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        cache: Arc<TieredCache>,
        limits: Limits,
        verifier: Option<VerifierConfig>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                backend,
                cache,
                flights: Arc::new(Flights::new(Limiter::new("loads", limits.loads))),
                batcher: Batcher::default(),
                changes: Limiter::new("changes", limits.changes),
                loads: Loads::new(),
                verifier: verifier.map(Verifier::new),
            }),
        }
    }

    fn inner(&self) -> &Inner {
        self.inner.inner()
    }

    fn backend(&self) -> &dyn Backend {
        self.inner().backend.as_ref()
    }

    pub(crate) fn cache(&self) -> &TieredCache {
        &self.inner().cache
    }

    /// Returns the metadata of a blob in a repository. Returns `None` if the blob is not a member
    /// of the repository, even if a tier has its metadata.
    pub(crate) fn stat(
        &self,
        link: LinkRef<'_>,
        freshness: Freshness,
    ) -> Answering<'_, Option<LayerMeta>> {
        if freshness == Freshness::Cached
            && let Some(meta) = self.get_stat(link)
        {
            return from_memory(Some(meta));
        }
        let question = Question::stat(link.to_owned(), self.backend().shares_blobs());
        self.answer(question, freshness, |loaded| loaded.found.meta_if_member())
    }

    /// Returns the metadata of a blob that is in the repository, if memory knows both facts.
    pub(crate) fn get_stat(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let Inner { backend, cache, .. } = self.inner();
        let (question, meta) = if backend.shares_blobs() {
            let question = QuestionRef::Stat(link);
            (question, cache.get(question).meta_if_member())
        } else {
            (QuestionRef::Own(link), cache.get_object(link))
        };
        if meta.is_some() {
            self.verify_hit(question);
        }
        meta
    }

    /// Returns the object whose presence is a membership, if memory has it.
    pub(crate) fn get_object(&self, link: LinkRef<'_>) -> Option<LayerMeta> {
        let object = self.cache().get_object(link);
        if object.is_some() {
            self.verify_hit(QuestionRef::Link(link));
        }
        object
    }

    /// Runs [`stat`](Self::stat) without the look-up in memory, which has missed.
    pub(crate) fn load_stat<'a>(
        &'a self,
        link: LinkRef<'a>,
        freshness: Freshness,
        budget: &'a mut Budget,
    ) -> Loading<'a, Option<LayerMeta>> {
        let question = Question::stat(link.to_owned(), self.backend().shares_blobs());
        self.load_question(question, freshness, budget, |loaded| {
            loaded.found.meta_if_member()
        })
    }

    /// Returns whether a blob is in a repository.
    pub(crate) fn contains(&self, link: LinkRef<'_>, freshness: Freshness) -> Answering<'_, bool> {
        let question = QuestionRef::Link(link);
        if freshness == Freshness::Cached && self.cache().get(question).is_member() {
            self.verify_hit(question);
            return from_memory(true);
        }
        self.answer(question.to_owned(), freshness, |loaded| {
            loaded.found.is_member()
        })
    }

    /// Asks the backend for a membership and for the object whose presence proves it. Redis does
    /// not store that object.
    pub(crate) fn load_object<'a>(
        &'a self,
        link: LinkRef<'a>,
        budget: &'a mut Budget,
    ) -> Loading<'a, LinkState> {
        let question = Question::Link(link.to_owned());
        self.load_question(question, Freshness::Verified, budget, Loaded::link_state)
    }

    /// Returns the metadata of a blob, independent of repositories.
    pub(crate) fn meta(
        &self,
        digest: &Digest,
        freshness: Freshness,
    ) -> Answering<'_, Option<LayerMeta>> {
        if freshness == Freshness::Cached
            && let meta @ Some(_) = self.get_meta(digest)
        {
            return from_memory(meta);
        }
        self.answer(Question::Meta(*digest), freshness, |loaded| {
            loaded.found.meta()
        })
    }

    /// Returns the metadata of a blob, if memory has it.
    pub(crate) fn get_meta(&self, digest: &Digest) -> Option<LayerMeta> {
        let question = QuestionRef::Meta(digest);
        let meta = self.cache().get(question).meta();
        if meta.is_some() {
            self.verify_hit(question);
        }
        meta
    }

    /// Runs [`meta`](Self::meta) without the look-up in memory, which has missed.
    pub(crate) fn load_meta<'a>(
        &'a self,
        digest: &Digest,
        freshness: Freshness,
        budget: &'a mut Budget,
    ) -> Loading<'a, Option<LayerMeta>> {
        let question = Question::Meta(*digest);
        self.load_question(question, freshness, budget, |loaded| loaded.found.meta())
    }

    /// Returns whether memory has every fact of the question.
    pub(crate) fn knows(&self, question: &Question) -> bool {
        self.cache().peek(question).is_whole(question)
    }

    /// Answers a question that memory cannot answer.
    fn answer<T: Send + 'static>(
        &self,
        question: Question,
        freshness: Freshness,
        part: fn(Loaded) -> T,
    ) -> Answering<'_, T> {
        let mut budget = self.cache().budget();
        let load = async move {
            let answer = self.join_load((question, freshness), &mut budget).await?;
            Ok(answer.map(part))
        };
        load.boxed().right_future()
    }

    /// Loads a question within the budget of a read, and returns `part` of the answer.
    fn load_question<'a, T: Send + 'static>(
        &'a self,
        question: Question,
        freshness: Freshness,
        budget: &'a mut Budget,
        part: fn(Loaded) -> T,
    ) -> Loading<'a, T> {
        let load = async move {
            let answer = self.join_load((question, freshness), budget).await?;
            Ok(answer.map(part))
        };
        load.boxed()
    }

    /// Joins a load that starts from now on, and waits for its answer. If there is no permit for a
    /// new load, it first tries to answer from the tiers, then waits for a permit.
    async fn join_load(
        &self,
        key: (Question, Freshness),
        budget: &mut Budget,
    ) -> Result<Answer<Loaded>, Error> {
        budget.check_runtime()?;
        let freshness = key.1;
        let flights = &self.inner().flights;
        let (mut ticket, mut permit) = (flights.ask(&key), None);
        loop {
            let joined = match flights.step(&key, &mut ticket, permit.take()) {
                FlightStep::Wait(ended) => {
                    // The caller has already waited for the silent tier through that load.
                    if let Ok(silence) = timeout(PATIENCE, ended.wait()).await
                        && silence.was_met()
                    {
                        budget.fail();
                    }
                    if let Some(answer) = self.peek(&key.0, freshness) {
                        return Ok(answer);
                    }
                    continue;
                }
                FlightStep::Full => {
                    if let Some(answer) = self.fetch_without_load(&key.0, freshness, budget).await {
                        return Ok(answer);
                    }
                    permit = Some(flights.permit().await);
                    if let Some(answer) = self.peek(&key.0, freshness) {
                        return Ok(answer);
                    }
                    continue;
                }
                FlightStep::Join(joined) => {
                    self.cache().work().joined_loads.increment(1);
                    joined
                }
                FlightStep::Start(running, joined) => {
                    // The last load may have filled memory after the caller looked there.
                    if let Some(answer) = self.peek(&key.0, freshness) {
                        running.answer(Ok(answer.value.clone()));
                        return Ok(answer);
                    }
                    let span = spans::load(&key.0, freshness);
                    let looks_up = freshness == Freshness::Cached && self.cache().has_shared();
                    if looks_up && !budget.is_spent() {
                        self.batch((key.0.clone(), running, span, *budget)).await;
                    } else {
                        let load = (key.0.clone(), freshness, running, *budget);
                        let load = self.clone().load(load);
                        tokio::spawn(load.instrument(span));
                    }
                    joined
                }
            };
            let silence = joined.silence();
            let answer = joined.answer().await;
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

    /// Returns the answer if memory has it by now.
    fn peek(&self, question: &Question, freshness: Freshness) -> Option<Answer<Loaded>> {
        if freshness == Freshness::Verified {
            return None;
        }
        let found = self.cache().peek(question);
        let is_answer = found.is_whole(question);
        is_answer.then(|| Loaded::from(found).answer(CacheStatus::Memory))
    }

    /// Returns the metadata that memory has for the question. Does not count as a look-up.
    pub(crate) fn known(&self, question: &Question) -> Option<LayerMeta> {
        self.cache().peek(question).meta()
    }

    /// Returns the answer if Redis has it, for a caller that has no permit to load. So a backend
    /// that hangs delays no hit.
    async fn fetch_without_load(
        &self,
        question: &Question,
        freshness: Freshness,
        budget: &mut Budget,
    ) -> Option<Answer<Loaded>> {
        if freshness == Freshness::Verified || !self.cache().has_shared() {
            return None;
        }
        let questions = std::slice::from_ref(question);
        let read_stamps = self.cache().read_stamps(question);
        let mut found = self.cache().fetch(questions, &[read_stamps], budget).await;
        let found = found.pop()?;
        let is_answer = found.is_whole(question);
        if is_answer {
            self.verify_shared_hit(question, read_stamps);
        }
        is_answer.then(|| Loaded::from(found).answer(CacheStatus::Redis))
    }

    /// Removes the entries of these keys from all tiers of all nodes, because the backend has just
    /// denied them. Runs in a task of its own, so that a dropped caller does not stop it.
    pub(crate) async fn deny(
        &self,
        keys: impl IntoIterator<Item = Key> + Send,
        guard: Option<FillGuard>,
        budget: Budget,
    ) {
        let keys = keys.into_iter().collect::<Vec<_>>();
        let (mut guard, mut budget) = (guard, budget);
        if budget.check_runtime().is_err() {
            // Redis cannot be told. Memory forgets without a task.
            return self.cache().deny(&keys, guard.as_mut(), &mut budget).await;
        }
        let core = self.clone();
        let denied = tokio::spawn(async move {
            let cache = core.cache();
            cache.deny(&keys, guard.as_mut(), &mut budget).await;
        });
        let _ = denied.await;
    }
}

/// Wraps a value that memory answered.
const fn memory<T>(value: T) -> Answer<T> {
    Answer {
        value,
        status: CacheStatus::Memory,
    }
}

fn from_memory<'a, T>(value: T) -> Answering<'a, T> {
    Either::Left(ready(Ok(memory(value))))
}
