//! Whether a positive is stale.

use super::WeakCore;
use crate::cache::memory::Rights;
use crate::cache::shared::{Found, Question};
use crate::link::Key;
use crate::metrics::{Audits, Tier};
use crate::read_through::{Backend, ReadThrough};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the backend may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a tier has answered, after these rights were taken.
#[derive(Debug)]
pub(super) struct Positive {
    pub(super) question: Question,
    pub(super) rights: Rights,
    pub(super) tier: Tier,
}

/// Asks the backend of what a hit has answered, or a tier at this age of a delete, and counts what that
/// means. What is stale is logged, and taken away everywhere. `None` if the cache is gone.
pub(super) async fn judge<B: Backend>(
    weak: &WeakCore<B>,
    positives: Vec<Positive>,
    seen: &Audits,
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
    // What others have told before the backend answered is heard by then, or there is no trust.
    let settling = core.cache().settling();
    drop(core);
    sleep(settling).await;
    let core = weak.upgrade()?;
    for (positive, mut keys) in denied {
        keys.retain(|key| core.cache().is_unchanged(key, positive.rights));
        let verdicts = seen.of(age, positive.tier);
        if keys.is_empty() {
            verdicts.unknown.increment(1);
            continue;
        }
        verdicts.stale.increment(1);
        let (cause, tier) = (Audits::cause(age), positive.tier.name());
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

/// What of this the backend denies; `None` if it does not answer.
async fn denied_by<B: Backend>(core: &ReadThrough<B>, question: &Question) -> Option<Vec<Key>> {
    let asked = timeout(PATIENCE, core.consult(question, Found::default())).await;
    let found = asked.ok()?.ok()?.found(true);
    if core.is_answer(question, &found) {
        return Some(Vec::new());
    }
    let mut keys = question.keys();
    // Where repositories share no content, the object that is missing is all that there was.
    if core.backend().shares_blobs() {
        keys.retain(|key| !found.has(key));
    }
    Some(keys)
}
