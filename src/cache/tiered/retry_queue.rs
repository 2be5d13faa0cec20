//! What the shared tier has still to be told by this node, and the task that does it.
//!
//! The task belongs to the runtime of whoever started it. When that runtime has ended, the next caller
//! who finds the queue not empty starts another.

use crate::Error;
use crate::cache::deadline::Deadline;
use crate::cache::shared::{SharedSettings, SharedTier};
use crate::coherence::journal::{Batch, Journal, MOST};
use crate::coherence::lease::Token;
use crate::coherence::through::Through;
use crate::link::Key;
use crate::metrics::{Part, limit_hits, owed_keys, purges};
use metrics::Counter;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

/// How long after an attempt that failed comes the next.
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
    journal: Journal<Owed>,
    lifts: VecDeque<Lift>,
    worker: Option<AbortHandle>,
}

/// A key that has to be taken away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owed {
    key: Key,
    /// Whether its change may still happen: then it is kept away for the time of a fence.
    is_open: bool,
}

/// A fence that may stand, or may be put up late, and that nobody needs. It keeps its keys from being
/// cached until it expires, so it is taken away as soon as Redis answers.
#[derive(Debug, Clone)]
struct Lift {
    keys: Arc<[Key]>,
    token: Token,
    expires: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Clear,
    /// The last attempt has succeeded, and more is to come.
    Moving,
    /// Redis has not answered yet since something was owed.
    Stuck,
}

#[derive(Debug)]
enum Job {
    TakeAway(Batch<Owed>),
    Lift(Lift),
}

/// Why the shared tier is not asked.
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
            owed: owed_keys(),
            purges: purges("owed"),
            limit_hits: limit_hits("journal"),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole between any two of its changes, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is owed; an error says that something is.
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

    /// Returns when the queue is empty, or when nobody knows when it will be: while Redis does not
    /// answer.
    pub(super) async fn worked_off(self: &Arc<Self>, deadline: Deadline) {
        if self.is_clear().is_ok() {
            return;
        }
        let mut progress = self.progress.subscribe();
        let ends = progress.wait_for(|progress| *progress != Progress::Moving);
        let _ = timeout_at(deadline.at(), ends).await;
    }

    /// Remembers what could not be taken away, and takes it away as soon as that can be done. Where
    /// the change may still happen it is kept away then, too.
    pub(super) fn enqueue(self: &Arc<Self>, keys: &[Key], is_open: bool) {
        let mut state = self.state();
        let was_everything = state.journal.is_everything();
        state.journal.enqueue(owed(keys, is_open));
        if !was_everything && state.journal.is_everything() {
            self.limit_hits.increment(1);
        }
        self.enqueued(&mut state);
    }

    /// The same for what the backend has denied: beyond some thousands it is not remembered, and the
    /// next who reads it takes it away.
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

    /// Takes fences away that nobody needs and that may have been put up. Best effort: one that is put
    /// up later still, or for which there is no room here, expires by itself.
    pub(super) fn lift(self: &Arc<Self>, keys: &[Key], tokens: Vec<Token>) {
        let keys: Arc<[Key]> = keys.into();
        let expires = Instant::now() + self.settings.fence;
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

    /// Starts the task where there is something to do, and nobody who does it.
    fn start(self: &Arc<Self>, state: &mut State) {
        let is_idle = state.journal.is_clear() && state.lifts.is_empty();
        // One whose runtime has ended is finished, too.
        let has_worker = state
            .worker
            .as_ref()
            .is_some_and(|worker| !worker.is_finished());
        if !is_idle
            && !has_worker
            && let Ok(runtime) = Handle::try_current()
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

    /// What to do next. Where there is nothing the task ends: whoever adds something starts another.
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
            Job::TakeAway(Batch::Keys(keys)) => self.take_away(keys).await,
            Job::TakeAway(Batch::Everything) => {
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

    fn show(&self, journal: &Journal<Owed>) {
        self.owed.set(journal.len() as i64);
    }

    async fn take_away(&self, owed: &[Owed]) -> Result<(), Error> {
        let (open, over): (Vec<_>, Vec<_>) = owed.iter().partition(|owed| owed.is_open);
        let keys = |of: &[&Owed]| of.iter().map(|owed| owed.key.clone()).collect::<Vec<_>>();
        let (open, over) = (keys(&open), keys(&over));
        let all = [&open[..], &over].concat();
        loop {
            let mut through = Through::default();
            let deadline = self.settings.removal_deadline();
            if !over.is_empty() {
                through.and_all(self.tier.withdraw(&over, deadline).await?);
            }
            if !open.is_empty() {
                let token = Token::random();
                let begun = self.tier.begin(&open, token, false, deadline);
                through.and_all(begun.await?);
            }
            self.tier.publish(&all, deadline).await?.await;
            // Where another server is the primary now, it has not heard of this.
            let deadline = self.settings.removal_deadline();
            if self.tier.stands(&through, deadline).await? {
                return Ok(());
            }
        }
    }
}

impl State {
    /// For how many keys more fences are lifted.
    fn room_to_lift(&self) -> usize {
        let taken = self.lifts.iter().map(|lift| lift.keys.len());
        MOST.saturating_sub(taken.sum())
    }
}

fn owed(keys: &[Key], is_open: bool) -> impl Iterator<Item = Owed> {
    let owed = move |key: &Key| Owed {
        key: key.clone(),
        is_open,
    };
    keys.iter().map(owed)
}
