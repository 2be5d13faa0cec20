//! Fills of what a caller reads from the backend by itself.

use super::{Backend, ReadThrough};
use crate::Error;
use crate::cache::shared::{Facts, Found, Question};
use crate::cache::tiered::{Budget, FillGuard};
use futures::FutureExt;

impl<B: Backend> ReadThrough<B> {
    /// The right to fill what the caller is about to read: one round trip to Redis. With `anew`, what is
    /// there is to be replaced.
    pub(crate) async fn guard(
        &self,
        question: &Question,
        anew: bool,
        budget: &mut Budget,
    ) -> FillGuard {
        let cache = self.cache();
        let mut guard = cache.guard([question]);
        // Of a link Redis knows the membership alone, so what it has is no reason not to remember the
        // object.
        let steal = anew || matches!(question, Question::Link(_));
        let keys = question.keys();
        // Without an answer there is no lease, and the caller reads all the same.
        let _ = cache.grant(&mut guard, &keys, steal, budget).await;
        guard
    }

    /// Fills what was read under this guard: memory alone at once, with Redis in a task of its own.
    pub(crate) fn fill(&self, mut guard: FillGuard, facts: Facts, budget: Budget) {
        let core = self.clone();
        let mut budget = budget.after_the_answer();
        let has_shared = core.cache().has_shared();
        let fill = async move { core.cache().fill(&mut guard, facts, &mut budget).await };
        match has_shared {
            true => drop(tokio::spawn(fill)),
            false => fill.now_or_never().unwrap_or_default(),
        }
    }

    /// The right to fill what these ask of: leases where nothing is there, nobody is about to fill it and
    /// it is not being changed.
    pub(crate) async fn guard_many(
        &self,
        questions: impl Iterator<Item = &Question>,
    ) -> Result<FillGuard, Error> {
        let cache = self.cache();
        let (mut guard, mut budget) = (cache.guard(questions), cache.budget());
        let keys = guard.keys();
        cache.grant(&mut guard, &keys, false, &mut budget).await?;
        Ok(guard)
    }

    /// Asks the backend itself; `None` if it denies what is asked. One of those whose number
    /// [`Limits`](crate::Limits) bounds.
    pub(crate) async fn ask_alone(&self, question: &Question) -> Result<Option<Facts>, Error> {
        let _turn = self.inner.flights.turn().await;
        let found = self.ask_backend(question, Found::default()).await?;
        let found = found.found(!self.backend().shares_blobs());
        let answers = self.is_answer(question, &found);
        Ok(answers.then(|| found.of(question)))
    }
}
