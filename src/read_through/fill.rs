//! How does the cache fill from a read that a caller makes itself, without a load?

use super::ReadThrough;
use crate::cache::shared::{Facts, Found};
use crate::cache::tiered::{Budget, FillGuard};
use crate::types::Error;
use crate::types::question::Question;
use futures::FutureExt;

impl ReadThrough {
    /// Takes a guard, the right to fill what the caller is about to read, in one round trip to
    /// Redis. With `anew`, an entry that is already there is replaced.
    pub(crate) async fn guard(
        &self,
        question: &Question,
        anew: bool,
        budget: &mut Budget,
    ) -> FillGuard {
        let cache = self.cache();
        let mut guard = cache.guard([question]);
        // Redis stores only the membership of a link, not its object. So an entry in Redis does not
        // stop memory from caching the object.
        let steal = anew || matches!(question, Question::Link(_));
        let keys: Vec<_> = question.keys().into_iter().collect();
        // If Redis does not answer, there is no lease, and the caller reads all the same.
        let _ = cache.grant(&mut guard, &keys, steal, budget).await;
        guard
    }

    /// Fills the tiers with the facts that were read under this guard. Without Redis it fills
    /// memory at once; with Redis it fills in a task of its own.
    pub(crate) fn fill(&self, mut guard: FillGuard, facts: Facts, budget: Budget) {
        let core = self.clone();
        let mut budget = budget.after_the_answer();
        let has_task = core.cache().has_shared() && budget.check_runtime().is_ok();
        let fill = async move { core.cache().fill(&mut guard, facts, &mut budget).await };
        match has_task {
            true => drop(tokio::spawn(fill)),
            false => fill.now_or_never().unwrap_or_default(),
        }
    }

    /// Takes a guard for all keys of these questions. It gets a lease for each key that has no
    /// entry, no other lease and no change under way.
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

    /// Asks the backend without joining a load; returns `None` if the backend denies the question.
    /// Counts toward the loads that [`Limits`](crate::Limits) bounds.
    pub(crate) async fn ask_alone(&self, question: &Question) -> Result<Option<Facts>, Error> {
        let _permit = self.inner().flights.permit().await;
        let found = self.ask_backend(question, Found::default()).await?;
        let found = found.found.without_objects();
        let answers = found.is_whole(question);
        Ok(answers.then(|| found.of(question)))
    }
}
