//! Is a positive answer stale?

use super::WeakCore;
use crate::cache::memory::ReadStamps;
use crate::cache::shared::Found;
use crate::read_through::ReadThrough;
use crate::telemetry::metrics::{Tier, Verifications};
use crate::types::link::Key;
use crate::types::per_key::PerKey;
use crate::types::question::Question;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the backend may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A positive answer of a tier. The stamps were taken before the tier was asked.
#[derive(Debug)]
pub(super) struct Positive {
    pub(super) question: Question,
    pub(super) read_stamps: ReadStamps,
    pub(super) tier: Tier,
}

/// Asks the backend about positive answers and counts the verdicts. `age` is `None` for hits, or
/// the index of the delete's age. A stale answer is logged, and its keys are removed from all
/// tiers. Returns `None` if the cache is gone.
pub(super) async fn judge(
    weak: &WeakCore,
    positives: Vec<Positive>,
    seen: &Verifications,
    age: Option<usize>,
) -> Option<()> {
    let core = weak.upgrade()?;
    let mut denied = Vec::new();
    for positive in positives {
        let verdicts = seen.of(age, positive.tier);
        match denied_by(&core, &positive.question).await {
            Some(keys) if keys.is_empty() => verdicts.ok.increment(1),
            Some(keys) => denied.push((positive, keys)),
            None => verdicts.unknown.increment(1),
        }
    }
    if denied.is_empty() {
        return Some(());
    }
    // By then this node has applied all changes that other nodes announced before the backend
    // answered, or it has no trust.
    let settling = core.cache().settling();
    drop(core);
    sleep(settling).await;
    let core = weak.upgrade()?;
    for (positive, keys) in denied {
        let keys = keys.with(positive.read_stamps);
        let is_unchanged =
            |(key, read_stamp): &(Key, Option<_>)| core.cache().is_unchanged(key, *read_stamp);
        let keys = keys.filter(is_unchanged).map(|(key, _)| key);
        let keys: Vec<_> = keys.into_iter().collect();
        let verdicts = seen.of(age, positive.tier);
        if keys.is_empty() {
            verdicts.unknown.increment(1);
            continue;
        }
        verdicts.stale.increment(1);
        let (cause, tier) = (Verifications::cause(age), positive.tier.name());
        tracing::error!(
            cause,
            tier,
            ?keys,
            "what the backend denies was still cached"
        );
        core.deny(keys, None, core.cache().budget()).await;
    }
    Some(())
}

/// Returns the keys that the backend denies. Returns `None` if it does not answer.
async fn denied_by(core: &ReadThrough, question: &Question) -> Option<PerKey<Key>> {
    let asked = timeout(PATIENCE, core.consult(question, Found::default())).await;
    let found = asked.ok()?.ok()?.found;
    // If repositories share no content, the missing object was the only fact.
    let is_all = !found.is_whole(question) && !core.backend().shares_blobs();
    let keys = question.keys().with(found);
    Some(keys.filter_map(|(key, value)| (is_all || value.is_none()).then_some(key)))
}
