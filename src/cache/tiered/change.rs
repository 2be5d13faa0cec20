//! Changes of the tiers, step by step as [`coherence::change`](crate::coherence::change) has them.

use super::expiring_fences::ExpiringFences;
use super::{Shared, TieredCache};
use crate::cache::deadline::Deadline;
use crate::cache::memory::{Rights, jittered};
use crate::cache::shared::{Facts, Member, SharedTier};
use crate::coherence::Coherence;
use crate::coherence::change::{Change, ChangeKind, Outcome, Step, Verdict};
use crate::coherence::generation::{Fence, Right};
use crate::coherence::lease::Token;
use crate::coherence::through::Through;
use crate::link::Key;
use crate::{Error, Link};
use futures::FutureExt;
use futures::future::{join, ready};
use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{Span, field};

/// The fences of a change in this node's memory. Where it is dropped amid the change, as its runtime
/// ends, the call may still happen: they expire by themselves then.
#[derive(Debug)]
struct Fences {
    coherence: Arc<Coherence>,
    expiring: Arc<ExpiringFences>,
    time: Duration,
    fences: Vec<Fence>,
}

impl Fences {
    /// Ends them; the rights to fill what the change has written, key by key.
    fn end(mut self) -> Vec<Option<Right>> {
        let generations = &self.coherence.generations;
        let fences = self.fences.drain(..);
        fences.map(|fence| generations.end(fence)).collect()
    }
}

impl Drop for Fences {
    fn drop(&mut self) {
        if !self.fences.is_empty() {
            self.expiring.add(self.fences.drain(..), self.time);
        }
    }
}

/// How often one step of a change that can do without Redis is tried.
const TRIES: u32 = 3;

/// How long after a step has failed for the first time it is tried again; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest of these pauses.
const MOST_PAUSE: Duration = Duration::from_millis(640);

/// The tries of a change's steps: until one deadline, which the backend's call is not part of.
#[derive(Debug)]
struct Tries<'a> {
    tier: &'a dyn SharedTier,
    deadline: Deadline,
    /// How often a step is tried, at most.
    most: u32,
    /// How often this one has failed.
    failed: u32,
    failure: Option<Error>,
}

impl Tries<'_> {
    fn left(&self) -> Duration {
        self.deadline.at().saturating_duration_since(Instant::now())
    }

    /// What a step has returned. Where it failed, whether it is to be tried again: a pause later, and
    /// if it was sent at all. What was not sent has waited for a connection already.
    async fn of<T>(&mut self, result: Result<T, Error>) -> (Option<T>, bool) {
        match result {
            Ok(value) => {
                self.failed = 0;
                (Some(value), false)
            }
            Err(error) => {
                self.failed += 1;
                let again = self.failed < self.most
                    && self.tier.may_be_executed(&error)
                    && !self.deadline.is_over();
                self.failure = Some(error);
                if again {
                    let pause = PAUSE * 2u32.saturating_pow((self.failed - 1).min(16));
                    sleep(pause.min(MOST_PAUSE)).await;
                }
                (None, again)
            }
        }
    }
}

impl TieredCache {
    /// Brackets `call`, a change of `keys` in the backend: nothing of them is answered from a tier or
    /// filled from before the call until it is over, and when this returns no other node can answer
    /// what was before. A call that writes the one `link` and says so fills it.
    ///
    /// Where Redis cannot be told, the policy decides: what is made all the same is in the retry queue
    /// before anything is cached here again.
    ///
    /// Not to be cancelled: `call` would be left half way with its fences standing.
    ///
    /// # Errors
    /// [`Error::ChangeRefused`] if Redis could not be told before; `call` was not run then.
    /// [`Error::ChangeUnconfirmed`] if it was run, and Redis could not be told of that.
    pub(crate) async fn change<T>(
        &self,
        kind: ChangeKind,
        mut keys: Vec<Key>,
        link: Option<&Link>,
        call: impl Future<Output = (T, Outcome)>,
    ) -> Result<T, Error> {
        // A fence that is lifted twice would look as if it had been gone.
        let mut seen = HashSet::with_capacity(keys.len());
        keys.retain(|key| seen.insert(key.clone()));
        self.work.invalidated.increment(keys.len() as u64);
        let Some(shared) = &self.shared else {
            let fences = self.fence(&keys);
            let (result, outcome) = call.await;
            match outcome {
                Outcome::Unknown => {
                    drop(fences);
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
        let mut change = Change::new(shared.settings.policy, kind);
        let goes_on = change.goes_on();
        let mut tries = Tries {
            tier,
            deadline: match goes_on {
                true => shared.settings.creation_deadline(),
                false => shared.settings.removal_deadline(),
            },
            most: if goes_on { TRIES } else { u32::MAX },
            failed: 0,
            failure: None,
        };
        shared.queue.worked_off(tries.deadline).await;
        let fences = self.fence(&keys);
        let mut call = pin!(call);
        // The last token, and those that may stand beside it.
        let (mut token, mut strays) = (Token::random(), Vec::new());
        let (mut result, mut was, mut filled) = (None, None, false);
        let mut end = Through::default();
        let mut others = ready(()).boxed();
        let mut step = change.first();
        let verdict = loop {
            step = match step {
                Step::Begin => {
                    token = Token::random();
                    let begin = tier.begin(&keys, token, link.is_some(), tries.deadline);
                    let begun = begin.await;
                    if !matches!(&begun, Err(error) if !tier.may_be_executed(error)) {
                        strays.push(token);
                    }
                    let (begun, again) = tries.of(begun).await;
                    change.begun(begun, again)
                }
                Step::Publish => {
                    let published = tier.publish(&keys, tries.deadline).await;
                    let (published, _) = tries.of(published).await;
                    let is_published = published.is_some();
                    others = published.unwrap_or_else(|| ready(()).boxed());
                    change.published(is_published)
                }
                Step::Call { fenced } => {
                    if !fenced {
                        // Also in case that nobody comes back here from the call.
                        shared.queue.enqueue(&keys, false);
                    }
                    let left = tries.left().max(shared.settings.timeout);
                    let both = join(call.as_mut(), &mut others);
                    let ((value, outcome), ()) = tokio::select! {
                        both = both => both,
                        never = keep(tier, &keys, token, shared.settings.fence, fenced) => match never {},
                    };
                    tries.deadline = Deadline::new(left, tries.deadline.patience());
                    (result, was) = (Some(value), Some(outcome));
                    if fenced && outcome == Outcome::Unknown {
                        // From here on the fence is to stand for its whole time.
                        let _ = tier.renew(&keys, token).await;
                    }
                    change.called(outcome)
                }
                Step::End => {
                    let written = link.filter(|_| was == Some(Outcome::Written));
                    let ttl = jittered(shared.settings.ttl);
                    let ended = tier.end(&keys, token, written, ttl, tries.deadline).await;
                    let (ended, again) = tries.of(ended).await;
                    if let Some((ended, through)) = ended {
                        filled = ended.filled;
                        let step = change.ended(Some((ended, &through)), again);
                        end = through;
                        step
                    } else {
                        change.ended(None, again)
                    }
                }
                Step::Confirm => {
                    let stayed = tier.stands(&end, tries.deadline).await;
                    let (stayed, _) = tries.of(stayed).await;
                    change.confirmed(stayed)
                }
                Step::Tell => {
                    let told = tier.publish(&keys, tries.deadline).await;
                    let (told, _) = tries.of(told).await;
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
        if verdict == Verdict::Done {
            strays.retain(|stray| *stray != token);
        }
        self.leave_behind(shared, verdict, was, &keys, strays);
        // Only now: what is owed is known before anything is cached again.
        match was {
            Some(Outcome::Unknown) => drop(fences),
            _ => self.remember_written(link, filled && verdict == Verdict::Done, fences),
        }
        self.report(verdict, was, goes_on, result, tries.failure)
    }

    /// Puts up the fences of a change in memory.
    fn fence(&self, keys: &[Key]) -> Fences {
        self.expiring.expire();
        let coherence = self.memory.coherence();
        let settings = self.shared.as_ref().map(|shared| shared.settings);
        let begin = |key| coherence.generations.begin(key);
        Fences {
            coherence: Arc::clone(coherence),
            expiring: Arc::clone(&self.expiring),
            time: settings.map_or(FENCE, |settings| settings.fence),
            fences: keys.iter().map(begin).collect(),
        }
    }

    /// Hands over to the retry queue what a change leaves behind: keys that are owed, and fences that
    /// nobody needs. Where the call may still happen any fence is welcome.
    fn leave_behind(
        &self,
        shared: &Shared,
        verdict: Verdict,
        was: Option<Outcome>,
        keys: &[Key],
        strays: Vec<Token>,
    ) {
        let is_open = was == Some(Outcome::Unknown);
        if verdict == Verdict::Owed {
            shared.queue.enqueue(keys, is_open);
        }
        if !is_open && !strays.is_empty() {
            shared.queue.lift(keys, strays);
        }
    }

    /// Has keys taken away, whose change is made, as soon as that can be done.
    pub(crate) fn owe(&self, keys: &[Key]) {
        if let Some(shared) = &self.shared {
            shared.queue.enqueue(keys, false);
        }
    }

    /// What the caller is told.
    fn report<T>(
        &self,
        verdict: Verdict,
        was: Option<Outcome>,
        goes_on: bool,
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
                if !goes_on && matches!(was, Some(Outcome::Written | Outcome::Over)) =>
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
}

/// How long a node that is alone caches nothing of what may still be changed.
const FENCE: Duration = Duration::from_secs(30);

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
