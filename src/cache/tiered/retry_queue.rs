//! [`RetryQueue`]: which keys must this node still remove from the shared tier?
//!
//! A task works on the queue. It runs in the runtime of the caller that started it. If that runtime
//! has ended, the next caller that finds the queue not empty starts another task.

use crate::cache::deadline::Deadline;
use crate::cache::shared::{SharedSettings, SharedTier};
use crate::coherence::journal::{Journal, MOST, PendingKeys};
use crate::coherence::lease::Token;
use crate::coherence::rules::{Rule, kept};
use crate::coherence::used_connections::UsedConnections;
use crate::telemetry::metrics::{Part, limit_hits, purges, retry_queue_keys};
use crate::types::link::Key;
use crate::types::{Error, runtime};
use metrics::Counter;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

/// The pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct RetryQueue {
    tier: Arc<dyn SharedTier>,
    settings: SharedSettings,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    owed: Part,
    limit_hits: Counter,
    purges: Counter,
}

#[derive(Debug)]
struct State {
    journal: Journal<QueuedKey>,
    lifts: VecDeque<Lift>,
    worker: Option<AbortHandle>,
}

/// A key that must be removed from the shared tier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct QueuedKey {
    key: Key,
    /// Whether its change may still happen. Then a fence keeps it out of the tiers for the fence's
    /// TTL.
    is_open: bool,
}

/// A fence that may stand, or may still be put up, and that no change needs. It keeps its keys out
/// of the tiers until it expires, so the queue removes it as soon as Redis answers.
#[derive(Debug, Clone)]
struct Lift {
    keys: Arc<[Key]>,
    token: Token,
    expires: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Clear,
    /// The last attempt has succeeded, and more keys are queued.
    Moving,
    /// Redis has not answered since the first key was queued, or since the last attempt failed.
    Stuck,
}

#[derive(Debug)]
enum Job {
    TakeAway(PendingKeys<QueuedKey>),
    Lift(Lift),
}

/// The reason why this node does not ask the shared tier.
#[derive(Debug, thiserror::Error)]
#[error("{0} changes of this node have still to be told to it")]
struct Behind(usize);

impl RetryQueue {
    pub(super) fn new(tier: Arc<dyn SharedTier>, settings: SharedSettings) -> Arc<Self> {
        Arc::new(Self {
            tier,
            settings,
            state: Mutex::new(State {
                journal: Journal::new(),
                lifts: VecDeque::new(),
                worker: None,
            }),
            progress: watch::channel(Progress::Clear).0,
            owed: retry_queue_keys(),
            purges: purges("queue"),
            limit_hits: limit_hits("retry_queue"),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent between its updates, even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an error while keys are queued, and then makes sure that the task runs.
    pub(super) fn is_clear(self: &Arc<Self>) -> Result<(), Error> {
        let mut state = self.state();
        if state.journal.is_clear() {
            return Ok(());
        }
        self.start(&mut state);
        Err(Error::Cache {
            tier: "redis",
            operation: "look-up",
            source: Box::new(Behind(state.journal.len())),
        })
    }

    /// Waits until the queue is empty or the deadline is over. Returns early while Redis does not
    /// answer, because the queue may then stay full for any time.
    pub(super) async fn worked_off(self: &Arc<Self>, deadline: Deadline) {
        if self.is_clear().is_ok() {
            return;
        }
        let mut progress = self.progress.subscribe();
        let ends = progress.wait_for(|progress| *progress != Progress::Moving);
        let _ = timeout_at(deadline.at(), ends).await;
    }

    /// Queues keys that could not be removed. The task removes them as soon as it can. If
    /// `is_open`, their change may still happen, and the task also puts up a fence.
    pub(super) fn enqueue(self: &Arc<Self>, keys: &[Key], is_open: bool) {
        let mut state = self.state();
        let was_everything = state.journal.is_everything();
        state.journal.enqueue(owed(keys, is_open));
        if !was_everything && state.journal.is_everything() {
            self.limit_hits.increment(1);
        }
        self.enqueued(&mut state);
    }

    /// As [`enqueue`](Self::enqueue), for keys that the backend has denied. If some thousands of
    /// keys are queued already, it queues none, and the next read of such a key removes it.
    pub(super) fn enqueue_if_room(self: &Arc<Self>, keys: &[Key]) {
        let mut state = self.state();
        if !state.journal.enqueue_if_room(owed(keys, false).collect()) {
            self.limit_hits.increment(1);
        }
        self.enqueued(&mut state);
    }

    fn enqueued(self: &Arc<Self>, state: &mut State) {
        if !state.journal.is_clear() {
            let begins = |progress: &mut Progress| {
                let is_first = *progress == Progress::Clear;
                if is_first {
                    *progress = Progress::Stuck;
                }
                is_first
            };
            if self.progress.send_if_modified(begins) {
                tracing::warn!("Redis is not asked until this node's changes have been told to it");
            }
        }
        self.show(&state.journal);
        self.start(state);
    }

    /// Removes fences that may have been put up and that no change needs. This is best effort: a
    /// fence that is put up even later, or for which the queue has no room, expires by itself.
    pub(super) fn lift(self: &Arc<Self>, keys: &[Key], tokens: Vec<Token>) {
        let keys: Arc<[Key]> = keys.into();
        let expires = Instant::now() + self.settings.fence_ttl;
        let mut state = self.state();
        let mut room = state.room_to_lift();
        for token in tokens {
            if keys.len() <= room {
                room -= keys.len();
                let keys = Arc::clone(&keys);
                state.lifts.push_back(Lift {
                    keys,
                    token,
                    expires,
                });
            }
        }
        self.start(&mut state);
    }

    /// Starts the task if there is work and no task runs.
    fn start(self: &Arc<Self>, state: &mut State) {
        let is_idle = state.journal.is_clear() && state.lifts.is_empty();
        // A task whose runtime has ended counts as finished.
        let has_worker = state
            .worker
            .as_ref()
            .is_some_and(|worker| !worker.is_finished());
        if !is_idle
            && !has_worker
            && let Ok(runtime) = runtime::current()
        {
            let worker = runtime.spawn(Arc::clone(self).work());
            state.worker = Some(worker.abort_handle());
        }
    }

    async fn work(self: Arc<Self>) {
        while let Some(job) = self.next() {
            match self.run(&job).await {
                Ok(()) => self.done(&job),
                Err(error) => {
                    tracing::debug!(%error, "to be tried again");
                    if matches!(job, Job::TakeAway(_)) {
                        self.progress.send_replace(Progress::Stuck);
                    }
                    if Arc::strong_count(&self) == 1 {
                        if !self.state().journal.is_clear() {
                            tracing::warn!("stopped before all changes were told to Redis");
                        }
                        return;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Returns the next job. If there is none, the task ends, and the next caller that adds a job
    /// starts another task.
    fn next(&self) -> Option<Job> {
        let (now, mut state) = (Instant::now(), self.state());
        state.lifts.retain(|lift| lift.expires > now);
        let batch = state.journal.next().map(Job::TakeAway);
        let job = batch.or_else(|| state.lifts.front().cloned().map(Job::Lift));
        if job.is_none() {
            state.worker = None;
        }
        job
    }

    async fn run(&self, job: &Job) -> Result<(), Error> {
        match job {
            Job::TakeAway(PendingKeys::Keys(keys)) => self.take_away(keys).await,
            Job::TakeAway(PendingKeys::Everything) => {
                self.purges.increment(1);
                self.tier.purge().await
            }
            Job::Lift(Lift { keys, token, .. }) => {
                let (ttl, deadline) = (self.settings.ttl, self.settings.removal_deadline());
                let ended = self.tier.end(keys, *token, None, ttl, deadline).await;
                ended.map(drop)
            }
        }
    }

    fn done(&self, job: &Job) {
        let mut state = self.state();
        match job {
            Job::TakeAway(_) => {
                state.journal.done();
                let is_clear = state.journal.is_clear();
                self.progress.send_replace(match is_clear {
                    true => Progress::Clear,
                    false => Progress::Moving,
                });
                if is_clear {
                    tracing::info!("this node's changes have been told to Redis");
                }
                self.show(&state.journal);
            }
            Job::Lift(done) => state.lifts.retain(|lift| lift.token != done.token),
        }
    }

    fn show(&self, journal: &Journal<QueuedKey>) {
        self.owed.set(journal.len() as i64);
    }

    async fn take_away(&self, owed: &[QueuedKey]) -> Result<(), Error> {
        let (open, over): (Vec<_>, Vec<_>) = owed.iter().partition(|owed| owed.is_open);
        let keys = |of: &[&QueuedKey]| of.iter().map(|owed| owed.key.clone()).collect::<Vec<_>>();
        let (open, over) = (keys(&open), keys(&over));
        let all = [&open[..], &over].concat();
        let mut through = UsedConnections::default();
        let deadline = self.settings.removal_deadline();
        if !over.is_empty() {
            through.and_all(self.tier.invalidate(&over, deadline).await?);
        }
        if !open.is_empty() {
            let begun = self.tier.begin(&open, Token::random(), false, deadline);
            through.and_all(begun.await?);
        }
        if kept(Rule::QueuedUntilTheNodesAreNotified) {
            self.tier.publish(&all, deadline).await?.await;
        }
        // If another server is the primary now, it does not know of this.
        let deadline = self.settings.removal_deadline();
        match self.tier.stands(&through, deadline).await? {
            true => Ok(()),
            false => Err(Error::Cache {
                tier: "redis",
                operation: "invalidate",
                source: "a server is not up, or was replaced".into(),
            }),
        }
    }
}

impl State {
    /// Returns for how many more keys the queue can hold fences.
    fn room_to_lift(&self) -> usize {
        let taken = self.lifts.iter().map(|lift| lift.keys.len());
        MOST.saturating_sub(taken.sum())
    }
}

fn owed(keys: &[Key], is_open: bool) -> impl Iterator<Item = QueuedKey> {
    let owed = move |key: &Key| QueuedKey {
        key: key.clone(),
        is_open,
    };
    keys.iter().map(owed)
}
