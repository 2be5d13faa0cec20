//! Changes of the tiers, step by step as [`coherence::change`](crate::coherence::change) has them.

use super::TieredCache;
use super::lapses::Lapses;
use crate::cache::memory::{Rights, jittered};
use crate::cache::shared::{Facts, Member, SharedTier};
use crate::coherence::Coherence;
use crate::coherence::change::{Change, ChangePolicy, Outcome, Step, Verdict};
use crate::coherence::generation::{Fence, Right};
use crate::coherence::lease::{Ended, Token};
use crate::link::Key;
use crate::{Error, Link};
use futures::FutureExt;
use futures::future::{join, ready};
use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{Span, field};

/// The fences of a change in this node's memory. They end, at the latest, when this is dropped.
#[derive(Debug)]
struct Fences {
    coherence: Arc<Coherence>,
    fences: Vec<Fence>,
}

impl Fences {
    fn begin(coherence: &Arc<Coherence>, keys: &[Key]) -> Self {
        let generations = &coherence.generations;
        Self {
            coherence: Arc::clone(coherence),
            fences: keys.iter().map(|key| generations.begin(key)).collect(),
        }
    }

    /// Ends them; the rights to fill what the change has written, key by key.
    fn end(mut self) -> Vec<Option<Right>> {
        self.take()
    }

    /// Lets them stand for this time.
    fn lapse(mut self, lapses: &Arc<Lapses>, time: Duration) {
        lapses.add(self.fences.drain(..), time);
    }

    fn take(&mut self) -> Vec<Option<Right>> {
        let generations = &self.coherence.generations;
        let fences = self.fences.drain(..);
        fences.map(|fence| generations.end(fence)).collect()
    }
}

impl Drop for Fences {
    fn drop(&mut self) {
        self.take();
    }
}

impl TieredCache {
    /// Brackets `call`, a change of `keys` in the backend: nothing of them is answered from a tier or
    /// filled from before the call until it is over, and when this returns no other node can answer
    /// what was before. A call that writes the one `link` and says so fills it.
    ///
    /// Not to be cancelled: `call` would be left half way with its fences standing.
    ///
    /// # Errors
    /// [`Error::ChangeRefused`] if Redis could not be told before; `call` was not run then.
    /// [`Error::ChangeUnconfirmed`] if it was run, and Redis could not be told of that.
    pub(crate) async fn change<T>(
        &self,
        mut keys: Vec<Key>,
        link: Option<&Link>,
        call: impl Future<Output = (T, Outcome)>,
    ) -> Result<T, Error> {
        // A fence that is lifted twice would look as if it had been gone.
        let mut seen = HashSet::with_capacity(keys.len());
        keys.retain(|key| seen.insert(key.clone()));
        let fences = Fences::begin(self.memory.coherence(), &keys);
        self.work.invalidated.increment(keys.len() as u64);
        let Some(shared) = &self.shared else {
            let (result, outcome) = call.await;
            match outcome {
                Outcome::Unknown => {
                    self.let_lapse(fences);
                    self.work.changes_open.increment(1);
                }
                outcome => {
                    self.remember_written(link, outcome == Outcome::Written, fences);
                    self.work.changes_done.increment(1);
                }
            }
            return Ok(result);
        };

        let tier = shared.tier.as_ref();
        let deadline = shared.settings.removal_deadline();
        let mut call = pin!(call);
        let mut change = Change::new(shared.settings.policy);
        let (mut token, mut result) = (Token::random(), None);
        let (mut was, mut filled, mut failure) = (Outcome::Unknown, false, None);
        let mut others = ready(()).boxed();
        let mut step = change.first();
        let verdict = loop {
            step = match step {
                Step::Begin => {
                    token = Token::random();
                    // Read before: what goes through a later connection is another one's.
                    let session = tier.session();
                    let begun = tier.begin(&keys, token, link.is_some(), deadline).await;
                    change.begun(note(begun, &mut failure).map(|()| session))
                }
                Step::Publish => {
                    let published = note(tier.publish(&keys, deadline).await, &mut failure);
                    let is_published = published.is_some();
                    others = published.unwrap_or_else(|| ready(()).boxed());
                    change.published(is_published)
                }
                Step::Call { fenced } => {
                    let both = join(call.as_mut(), &mut others);
                    let ((value, outcome), ()) = tokio::select! {
                        both = both => both,
                        never = keep(tier, &keys, token, shared.settings.fence, fenced) => match never {},
                    };
                    (result, was) = (Some(value), outcome);
                    if fenced && outcome == Outcome::Unknown {
                        // From here on the fence is to stand for its whole time.
                        let _ = tier.renew(&keys, token).await;
                    }
                    change.called(outcome)
                }
                Step::End => {
                    let written = link.filter(|_| was == Outcome::Written);
                    let ttl = jittered(shared.settings.ttl);
                    let ended = tier.end(&keys, token, written, ttl, deadline).await;
                    let ended = note(ended, &mut failure);
                    filled = ended.is_some_and(|ended: Ended| ended.filled);
                    change.ended(ended.map(|ended| (ended, tier.session())))
                }
                Step::Tell => {
                    let told = note(tier.publish(&keys, deadline).await, &mut failure);
                    let is_told = told.is_some();
                    if let Some(others) = told {
                        others.await;
                    }
                    change.told_again(is_told)
                }
                Step::Over(verdict) => break verdict,
            };
        };

        Span::current().record("verdict", field::debug(verdict));
        match verdict {
            Verdict::Open => self.let_lapse(fences),
            Verdict::Refused | Verdict::Done | Verdict::Owed => {
                self.remember_written(link, filled && verdict == Verdict::Done, fences);
            }
        }
        if verdict == Verdict::Owed {
            shared.debts.owe(keys);
        }
        self.report(verdict, was, shared.settings.policy, result, failure)
    }

    /// What the caller is told.
    fn report<T>(
        &self,
        verdict: Verdict,
        was: Outcome,
        policy: ChangePolicy,
        result: Option<T>,
        failure: Option<Error>,
    ) -> Result<T, Error> {
        let source = Arc::new(failure.unwrap_or(Error::LoadLost));
        match (verdict, result) {
            (Verdict::Refused, _) | (_, None) => {
                self.work.changes_refused.increment(1);
                Err(Error::ChangeRefused { source })
            }
            (Verdict::Owed, Some(_))
                if policy == ChangePolicy::Strict
                    && matches!(was, Outcome::Written | Outcome::Over) =>
            {
                self.work.changes_unconfirmed.increment(1);
                tracing::warn!(error = %source, "a change is made, but not confirmed");
                Err(Error::ChangeUnconfirmed { source })
            }
            (Verdict::Owed, Some(result)) => {
                self.work.changes_owed.increment(1);
                Ok(result)
            }
            (Verdict::Open, Some(result)) => {
                self.work.changes_open.increment(1);
                Ok(result)
            }
            (Verdict::Done, Some(result)) => {
                self.work.changes_done.increment(1);
                Ok(result)
            }
        }
    }

    /// Ends the fences in memory and, if the shared tier was filled with the link, fills memory too.
    fn remember_written(&self, link: Option<&Link>, filled: bool, fences: Fences) {
        let rights = fences.end();
        if let (Some(link), [right], true) = (link, &rights[..], filled) {
            let member = Some((link.clone(), Member::default()));
            let rights = Rights {
                member: *right,
                meta: None,
            };
            self.memory.fill(&Facts { member, meta: None }, rights);
        }
    }

    /// The call may still happen: nothing is cached for as long as Redis's own fence stands.
    fn let_lapse(&self, fences: Fences) {
        let settings = self.shared.as_ref().map(|shared| shared.settings);
        let time = settings.map_or(FENCE, |settings| settings.fence);
        fences.lapse(&self.lapses, time);
    }
}

/// How long a node that is alone caches nothing of what may still be changed.
const FENCE: Duration = Duration::from_secs(30);

/// Keeps the last failure.
fn note<T>(result: Result<T, Error>, failure: &mut Option<Error>) -> Option<T> {
    result.map_err(|error| *failure = Some(error)).ok()
}

/// Keeps a change's fences standing, for as long as this is polled.
async fn keep(
    tier: &dyn SharedTier,
    keys: &[Key],
    token: Token,
    fence: Duration,
    fenced: bool,
) -> Infallible {
    if !fenced {
        return std::future::pending().await;
    }
    loop {
        sleep(fence / 3).await;
        if let Err(error) = tier.renew(keys, token).await {
            tracing::debug!(%error, "a fence was not renewed");
        }
    }
}
