//! Runs a change on the tiers, with the steps that [`coherence::change`](crate::coherence::change)
//! decides.

use super::expiring_fences::ExpiringFences;
use super::{Shared, TieredCache};
use crate::cache::deadline::Deadline;
use crate::cache::memory::jittered;
use crate::cache::shared::{Fact, SharedSettings, SharedTier};
use crate::coherence::Coherence;
use crate::coherence::change::{Change, ChangeKind, ChangeStep, Conclusion, Outcome};
use crate::coherence::generation::{MemoryFence, ReadStamp};
use crate::coherence::lease::Token;
use crate::coherence::rules::{Rule, kept};
use crate::coherence::used_connections::UsedConnections;
use crate::types::Error;
use crate::types::link::Key;
use crate::types::per_key::PerKey;
use futures::FutureExt;
use futures::future::{join, ready};
use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{Span, field};

/// The fences of a change in this node's memory. If they are dropped during the change, because its
/// runtime ends, the backend call may still happen. They then stand until they expire.
#[derive(Debug)]
struct Fences {
    coherence: Arc<Coherence>,
    expiring: Arc<ExpiringFences>,
    time: Duration,
    fences: Vec<MemoryFence>,
}

impl Fences {
    /// Ends the fences. Returns for each key the stamp to fill the value that the change has
    /// written.
    fn end(mut self) -> Vec<Option<ReadStamp>> {
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

/// How often a change that can go on without Redis tries one step.
const TRIES: u32 = 3;

/// The pause after the first failure of a step. It doubles with each further failure.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest of these pauses. No pause lasts longer than the deadline of the change.
const MOST_PAUSE: Duration = Duration::from_millis(640);

/// The tries of a change's steps, until one deadline. The time of the backend call does not count.
#[derive(Debug)]
struct Tries<'a> {
    tier: &'a dyn SharedTier,
    deadline: Deadline,
    /// How often a step is tried, at most.
    most: u32,
    /// How often the current step has failed.
    failed: u32,
    failure: Option<Error>,
}

impl Tries<'_> {
    fn left(&self) -> Duration {
        self.deadline.at().saturating_duration_since(Instant::now())
    }

    /// Evaluates the result of a step. Returns its value, and whether the change should try the
    /// step again. It should if the step failed and may have been sent; this then waits for the
    /// pause. A step that was not sent has waited for a connection already.
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
                    self.pause(self.failed).await;
                }
                (None, again)
            }
        }
    }

    /// Waits before the next try, after this number of tries that failed.
    async fn pause(&self, failed: u32) {
        let pause = PAUSE * 2u32.saturating_pow(failed.saturating_sub(1).min(16));
        sleep(pause.min(MOST_PAUSE).min(self.left())).await;
    }
}

impl TieredCache {
    /// Runs `call`, a change of `keys` in the backend, inside the change protocol. From before the
    /// call until it is over, no tier answers these keys or is filled with them. When this returns,
    /// no other node can answer with a value from before the change. If `call` reports that it has
    /// written, the change fills the fact `written`.
    ///
    /// If Redis cannot be told, the policy decides. A change that is made without Redis is in the
    /// retry queue before this node caches anything again.
    ///
    /// The caller must not drop this future: `call` would end half way, and its fences would stand.
    ///
    /// # Errors
    /// [`Error::ChangeRefused`] if Redis could not be told before the call. `call` did not run.
    /// [`Error::ChangeUnconfirmed`] if `call` ran and Redis could not be told afterwards.
    pub(crate) async fn change<T>(
        &self,
        kind: ChangeKind,
        mut keys: Vec<Key>,
        written: Option<&Fact>,
        call: impl Future<Output = (T, Outcome)>,
    ) -> Result<T, Error> {
        // Each key once: the second `END` of a key would report that its fence was gone.
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
                    self.remember_written(written, outcome == Outcome::Written, fences);
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
        // The last token, and all tokens whose fences may stand in Redis.
        let (mut token, mut strays) = (Token::random(), Vec::new());
        let (mut result, mut was, mut filled) = (None, None, false);
        // The connections of the last step.
        let mut used = UsedConnections::default();
        let mut moved = 0;
        let mut others = ready(()).boxed();
        let mut step = change.first();
        let conclusion = loop {
            step = match step {
                ChangeStep::Begin => {
                    if kept(Rule::AFreshTokenForEachTry) || strays.is_empty() {
                        token = Token::random();
                    }
                    let begin = tier.begin(&keys, token, written.is_some(), tries.deadline);
                    let begun = begin.await;
                    if !matches!(&begun, Err(error) if !tier.may_be_executed(error)) {
                        strays.push(token);
                    }
                    let (begun, again) = tries.of(begun).await;
                    used = begun.clone().unwrap_or_default();
                    change.begun(begun, again)
                }
                ChangeStep::Publish => {
                    let published = tier.publish(&keys, tries.deadline).await;
                    let (published, _) = tries.of(published).await;
                    let is_published = published.is_some();
                    others = published.unwrap_or_else(|| ready(()).boxed());
                    change.published(is_published)
                }
                ChangeStep::Call { fenced } => {
                    if !fenced {
                        // Before the call, because this task may end before the call returns.
                        shared.queue.enqueue(&keys, false);
                    }
                    let left = tries.left().max(shared.settings.timeout);
                    let both = join(call.as_mut(), &mut others);
                    let ((value, outcome), ()) = tokio::select! {
                        biased;
                        both = both => both,
                        never = keep(tier, &keys, token, &shared.settings, fenced) => match never {},
                    };
                    tries.deadline = Deadline::new(left, tries.deadline.patience());
                    (result, was) = (Some(value), Some(outcome));
                    change.called(outcome)
                }
                ChangeStep::Renew => {
                    let fence = shared.settings.fence_ttl;
                    let stood = tier.renew(&keys, token, fence, tries.deadline).await;
                    let (stood, again) = tries.of(stood).await;
                    change.renewed(stood, again)
                }
                ChangeStep::End => {
                    let written = written.filter(|_| was == Some(Outcome::Written));
                    let ttl = jittered(shared.settings.ttl);
                    let ended = tier.end(&keys, token, written, ttl, tries.deadline).await;
                    let (ended, again) = tries.of(ended).await;
                    if let Some((ended, through)) = ended {
                        filled = ended.filled;
                        let step = change.ended(Some((ended, &through)), again);
                        used = through;
                        step
                    } else {
                        change.ended(None, again)
                    }
                }
                ChangeStep::Confirm => {
                    let stayed = tier.stands(&used, tries.deadline).await;
                    let (stayed, _) = tries.of(stayed).await;
                    if stayed == Some(false) {
                        // While a server of a cluster is down, the others answer at once.
                        moved += 1;
                        tries.pause(moved).await;
                    }
                    change.confirmed(stayed)
                }
                ChangeStep::PublishAgain => {
                    let told = tier.publish(&keys, tries.deadline).await;
                    let (told, _) = tries.of(told).await;
                    let is_told = told.is_some();
                    if let Some(others) = told {
                        others.await;
                    }
                    change.published_again(is_told)
                }
                ChangeStep::Over(conclusion) => break conclusion,
            };
        };

        Span::current().record("conclusion", field::debug(conclusion));
        if conclusion == Conclusion::Done {
            strays.retain(|stray| *stray != token);
        }
        shared.leave_behind(conclusion, was, &keys, strays);
        // Last, so that the retry queue has the keys before anything is cached again.
        match was {
            Some(Outcome::Unknown) => drop(fences),
            _ => self.remember_written(written, filled && conclusion == Conclusion::Done, fences),
        }
        self.report(conclusion, was, goes_on, result, tries.failure)
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
            time: settings.map_or(FENCE, |settings| settings.fence_ttl),
            fences: keys.iter().map(begin).collect(),
        }
    }

    /// Returns the result for the caller, and counts the change.
    fn report<T>(
        &self,
        conclusion: Conclusion,
        was: Option<Outcome>,
        goes_on: bool,
        result: Option<T>,
        failure: Option<Error>,
    ) -> Result<T, Error> {
        let source = Arc::new(failure.unwrap_or(Error::LoadLost));
        match (conclusion, result) {
            (Conclusion::Refused, _) | (_, None) => {
                self.work.changes_refused.increment(1);
                Err(Error::ChangeRefused { source })
            }
            (Conclusion::Queued, Some(_)) if !goes_on && was != Some(Outcome::Nothing) => {
                self.work.changes_unconfirmed.increment(1);
                tracing::warn!(error = %source, "a change is made, or may still be made, but not confirmed");
                Err(Error::ChangeUnconfirmed { source })
            }
            (Conclusion::Queued, Some(result)) => {
                self.work.changes_queued.increment(1);
                Ok(result)
            }
            (Conclusion::Open, Some(result)) => {
                self.work.changes_open.increment(1);
                Ok(result)
            }
            (Conclusion::Done, Some(result)) => {
                self.work.changes_done.increment(1);
                Ok(result)
            }
        }
    }

    /// Ends the fences in memory and, if the shared tier was filled with the fact, fills memory too.
    fn remember_written(&self, written: Option<&Fact>, filled: bool, fences: Fences) {
        let read_stamps = fences.end();
        if let (Some(fact), [Some(read_stamp)], true) = (written, &read_stamps[..], filled) {
            let (facts, read_stamps) = (PerKey::one(fact.clone()), PerKey::one(*read_stamp));
            self.memory.fill(&facts, read_stamps);
        }
    }
}

impl Shared {
    /// Gives the retry queue the keys that Redis must still be told of, and the fences that the
    /// change no longer needs. If the call may still happen, all fences stay.
    fn leave_behind(
        &self,
        conclusion: Conclusion,
        was: Option<Outcome>,
        keys: &[Key],
        strays: Vec<Token>,
    ) {
        let is_open = was == Some(Outcome::Unknown);
        if conclusion == Conclusion::Queued {
            self.queue.enqueue(keys, is_open);
        }
        if !is_open && !strays.is_empty() {
            self.queue.lift(keys, strays);
        }
    }
}

/// How long a node without Redis caches nothing of a key whose change may still happen.
const FENCE: Duration = Duration::from_secs(30);

/// Renews a change's fences for as long as this future is polled.
async fn keep(
    tier: &dyn SharedTier,
    keys: &[Key],
    token: Token,
    settings: &SharedSettings,
    fenced: bool,
) -> Infallible {
    if !fenced {
        return std::future::pending().await;
    }
    loop {
        let fence = settings.fence_ttl;
        sleep(fence / 3).await;
        let deadline = settings.removal_deadline();
        if let Err(error) = tier.renew(keys, token, fence, deadline).await {
            tracing::debug!(%error, "a fence was not renewed");
        }
    }
}
