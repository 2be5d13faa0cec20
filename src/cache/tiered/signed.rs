//! Signed URLs for writes: each is a change whose call may happen at any time until the URL expires.
//!
//! The fence of such a change stands in Redis until then, even if this node dies. While the node
//! lives, it checks whether the fence still stands. If the fence was lost, the node puts up a new
//! one, with a new `BEGIN` and a new message to all nodes. That is safe, because the end of such a
//! change always tells all nodes and waits for them.

use super::expiring_fences::ExpiringFences;
use super::fence_keeper::{FenceKeeper, PARALLEL, SignedFence};
use super::{Shared, TieredCache};
use crate::coherence::Coherence;
use crate::coherence::change::ChangeKind;
use crate::coherence::generation::MemoryFence;
use crate::coherence::lease::Token;
use crate::coherence::rules::{Rule, kept};
use crate::coherence::used_connections::UsedConnections;
use crate::telemetry::metrics::limit_hits;
use crate::types::Error;
use crate::types::link::Key;
use crate::types::runtime;
use futures::future::join_all;
use metrics::Counter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The most keys that a node watches. The fences of further keys stand for their time, and the node
/// does not renew them.
const MOST: usize = 1 << 16;

/// The longest pause between two checks for replaced connections and expired URLs.
const PAUSE: Duration = Duration::from_millis(500);

/// A fence in Redis may end up to this much before [`OpenWrite::until`]; the task then renews it. The
/// caller has added more than this to the URL's time.
const SLACK: Duration = Duration::from_secs(30);

/// How many keys one `BEGIN` call and one message to the other nodes cover.
const TOGETHER: usize = 512;

/// The signed URLs of a node that have not expired, by key.
#[derive(Debug)]
pub(super) struct SignedWrites {
    coherence: Arc<Coherence>,
    expiring: Arc<ExpiringFences>,
    state: Mutex<State>,
    limit_hits: Counter,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<Key, OpenWrite>,
    /// The task ends with its runtime. The next caller then starts another one.
    task: Option<JoinHandle<()>>,
}

/// A key that a signed URL may change.
#[derive(Debug)]
struct OpenWrite {
    /// When the last URL of this key expires.
    until: Instant,
    /// The fence in this node's memory.
    fence: MemoryFence,
    /// The fence in Redis. `None` if it was lost, or was never put up.
    begun: Option<SignedFence>,
}

/// Fences in memory that end when this is dropped.
struct MemoryFences<'a> {
    coherence: &'a Coherence,
    fences: Vec<(Key, MemoryFence)>,
}

impl Drop for MemoryFences<'_> {
    fn drop(&mut self) {
        for (_, fence) in self.fences.drain(..) {
            self.coherence.generations.end(fence);
        }
    }
}

/// Lets the fences in memory stand until their URLs expire. Other name spaces of the cache have
/// keys in the same stripes, and live on.
impl Drop for SignedWrites {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        for (_, open) in std::mem::take(&mut state.open) {
            let left = open.until.saturating_duration_since(Instant::now());
            self.expiring.add([open.fence], left);
        }
    }
}

impl SignedWrites {
    pub(super) fn new(coherence: Arc<Coherence>, expiring: Arc<ExpiringFences>) -> Arc<Self> {
        Arc::new(Self {
            coherence,
            expiring,
            state: Mutex::default(),
            limit_hits: limit_hits("signed"),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The table is consistent between its updates, even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these keys open until `until` if their fences stand long enough. Returns the other
    /// keys.
    fn extend(&self, keys: Vec<Key>, until: Instant, shared: Option<&Shared>) -> Vec<Key> {
        let mut state = self.state();
        let is_fresh = |key: &Key| {
            let Some(open) = state.open.get_mut(key) else {
                return true;
            };
            let stands = shared
                .zip(open.begun.as_ref())
                .is_some_and(|(shared, begun)| {
                    shared.tier.is_up(&begun.through) && begun.stands_until + SLACK >= until
                });
            if stands || shared.is_none() {
                open.until = open.until.max(until);
            }
            !stands && shared.is_some()
        };
        keys.into_iter().filter(is_fresh).collect()
    }

    /// Returns the connections of the fences in Redis that stand for these keys, if there are any.
    fn used(&self, keys: &[Key]) -> Option<UsedConnections> {
        let (state, mut used) = (self.state(), None::<UsedConnections>);
        let begun = |key| state.open.get(key)?.begun.clone();
        for begun in keys.iter().filter_map(begun) {
            used.get_or_insert_default().and_all(begun.through);
        }
        used
    }

    /// Notes that these keys may be changed until `until`. Returns the fences of the keys for which
    /// there is no room.
    fn note(
        &self,
        mut held: MemoryFences<'_>,
        until: Instant,
        begun: Option<SignedFence>,
    ) -> Vec<MemoryFence> {
        let mut state = self.state();
        let mut left = Vec::new();
        for (key, fence) in held.fences.drain(..) {
            let is_full = state.open.len() >= MOST;
            match state.open.get_mut(&key) {
                Some(open) => {
                    open.until = open.until.max(until);
                    open.begun = begun.clone().or_else(|| open.begun.take());
                    // The fence in `open` stands already.
                    self.coherence.generations.end(fence);
                }
                None if is_full => {
                    self.limit_hits.increment(1);
                    left.push(fence);
                }
                None => {
                    let open = OpenWrite {
                        until,
                        fence,
                        begun: begun.clone(),
                    };
                    state.open.insert(key, open);
                }
            }
        }
        left
    }

    fn keys(&self, which: impl Fn(&OpenWrite) -> bool) -> Vec<(Key, Option<SignedFence>, Instant)> {
        let state = self.state();
        let which = state.open.iter().filter(|(_, open)| which(open));
        which
            .map(|(key, open)| (key.clone(), open.begun.clone(), open.until))
            .collect()
    }

    /// Stores the state of a fence in Redis, unless another fence was put up meanwhile.
    fn set(&self, key: &Key, was: Option<Token>, begun: Option<SignedFence>) {
        if let Some(open) = self.state().open.get_mut(key)
            && open.begun.as_ref().map(|begun| begun.token) == was
        {
            open.begun = begun;
        }
    }

    /// Ends the changes whose URLs have expired. Tells all nodes and waits for them, even if a
    /// fence was lost.
    async fn end(&self, kept: Option<&FenceKeeper>) {
        let now = Instant::now();
        let expired = self.keys(|open| open.until <= now);
        if expired.is_empty() {
            return;
        }
        if let Some(kept) = kept {
            let keys: Vec<_> = expired.iter().map(|(key, ..)| key.clone()).collect();
            if let Err(error) = kept.end(&expired, &keys).await {
                tracing::debug!(%error, "what signed URLs may have changed has still to be told");
                kept.queue.enqueue(&keys, false);
            }
        }
        let mut state = self.state();
        for (key, ..) in expired {
            match state.open.get_mut(&key) {
                // Another URL of this key was signed meanwhile, and `END` has just removed its
                // fence.
                Some(open) if open.until > now => open.begun = None,
                _ => {
                    if let Some(open) = state.open.remove(&key) {
                        self.coherence.generations.end(open.fence);
                    }
                }
            }
        }
    }

    /// Puts up the fences that were lost.
    async fn begin(&self, kept: &FenceKeeper) {
        let stands = |begun: &SignedFence| kept.tier.is_up(&begun.through);
        let lost = self.keys(|open| !open.begun.as_ref().is_some_and(stands));
        for lost in lost.chunks(TOGETHER) {
            let keys: Vec<_> = lost.iter().map(|(key, ..)| key.clone()).collect();
            let time = kept.settings.fence_ttl;
            match kept
                .begin(&keys, time, kept.settings.removal_deadline())
                .await
            {
                // The other nodes drop these keys when the message arrives. This task does not wait
                // for that.
                Ok((begun, _)) => {
                    for (key, was, _) in lost {
                        let was = was.as_ref().map(|was| was.token);
                        self.set(key, was, Some(begun.clone()));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the fences of signed URLs are not put up");
                    return;
                }
            }
        }
    }

    /// Renews the fences that still stand, up to `until`. Returns the keys whose fences do not
    /// stand.
    async fn renewed(&self, kept: &FenceKeeper, keys: Vec<Key>, until: Instant) -> Vec<Key> {
        let mut fresh = Vec::new();
        for key in keys {
            let begun = self
                .state()
                .open
                .get(&key)
                .and_then(|open| open.begun.clone());
            let begun = begun.filter(|begun| kept.tier.is_up(&begun.through));
            let stood = self.renew_one(kept, key.clone(), begun, until).await;
            match self.state().open.get_mut(&key) {
                Some(open) if stood == Some(true) => open.until = open.until.max(until),
                _ => fresh.push(key),
            }
        }
        fresh
    }

    /// Renews the fences that are due, and notes which fences were lost.
    async fn renew(&self, kept: &FenceKeeper) {
        let (now, pause) = (Instant::now(), kept.settings.fence_ttl / 3);
        let due = self.keys(|open| {
            open.begun.as_ref().is_some_and(|begun| {
                begun.checked + pause <= now || begun.stands_until + SLACK < open.until
            })
        });
        for due in due.chunks(PARALLEL) {
            let renew = |(key, begun, until): &(Key, Option<SignedFence>, Instant)| {
                self.renew_one(kept, key.clone(), begun.clone(), *until)
            };
            if join_all(due.iter().map(renew)).await.contains(&None) {
                // Redis does not answer, so the other renewals would fail too.
                return;
            }
        }
    }

    /// Renews a fence. Returns whether it still stood, or `None` if that is not known.
    async fn renew_one(
        &self,
        kept: &FenceKeeper,
        key: Key,
        begun: Option<SignedFence>,
        until: Instant,
    ) -> Option<bool> {
        let (begun, now) = (begun?, Instant::now());
        let time = until.saturating_duration_since(now);
        let time = time.max(kept.settings.fence_ttl);
        let keys = std::slice::from_ref(&key);
        let deadline = kept.settings.removal_deadline();
        let renewed = kept.tier.renew(keys, begun.token, time, deadline).await;
        if let Err(error) = &renewed {
            tracing::debug!(%error, "the fence of a signed URL is not renewed");
        }
        let stood = renewed.ok()?;
        let renewed = SignedFence {
            stands_until: now + time,
            checked: now,
            ..begun
        };
        self.set(&key, Some(renewed.token), stood.then_some(renewed));
        Some(stood)
    }

    /// Returns whether no key is left. The task then ends.
    fn is_over(&self) -> bool {
        let mut state = self.state();
        let is_over = state.open.is_empty();
        if is_over {
            // Under the lock, so that the next caller starts another task.
            state.task = None;
        }
        is_over
    }
}

async fn keep(writes: Weak<SignedWrites>, kept: Option<FenceKeeper>) {
    loop {
        let fence = kept
            .as_ref()
            .map_or(PAUSE, |kept| kept.settings.fence_ttl / 3);
        sleep(fence.clamp(Duration::from_millis(10), PAUSE)).await;
        let Some(writes) = writes.upgrade() else {
            return;
        };
        writes.end(kept.as_ref()).await;
        if let Some(kept) = &kept {
            writes.renew(kept).await;
            writes.begin(kept).await;
        }
        if writes.is_over() {
            return;
        }
    }
}

impl TieredCache {
    /// Keeps `keys` out of all tiers for `time`, because the holder of a URL may change them. Once
    /// this has returned, no node answers with a value from before a change that the URL makes.
    ///
    /// # Errors
    /// [`Error::ChangeRefused`] if Redis could not be told.
    pub(crate) async fn open_signed(
        &self,
        kind: ChangeKind,
        keys: Vec<Key>,
        time: Duration,
    ) -> Result<(), Error> {
        let until = match kept(Rule::SignedFenceStands) {
            true => Instant::now() + time,
            false => Instant::now(),
        };
        let unique: BTreeSet<_> = keys.into_iter().collect();
        let mut keys: Vec<_> = unique.into_iter().collect();
        let used = self.signed.used(&keys);
        if self.is_confirmed(used).await {
            keys = self.signed.extend(keys, until, self.shared.as_ref());
            if let (Some(shared), false) = (&self.shared, keys.is_empty()) {
                keys = self
                    .signed
                    .renewed(&FenceKeeper::of(shared), keys, until)
                    .await;
            }
        }
        if !keys.is_empty() {
            self.open_fresh(kind, keys, time, until).await?;
        }
        self.keep_signed();
        Ok(())
    }

    /// Returns whether the fences that stand already stand at servers that are still the primaries.
    async fn is_confirmed(&self, used: Option<UsedConnections>) -> bool {
        let (Some(shared), Some(used)) = (&self.shared, used) else {
            return true;
        };
        let deadline = shared.settings.removal_deadline();
        let stands = FenceKeeper::of(shared);
        matches!(stands.confirm(&used, deadline).await, Ok(true))
    }

    async fn open_fresh(
        &self,
        kind: ChangeKind,
        keys: Vec<Key>,
        time: Duration,
        until: Instant,
    ) -> Result<(), Error> {
        let coherence = self.memory.coherence().as_ref();
        let begin = |key: &Key| (key.clone(), coherence.generations.begin(key));
        let held = MemoryFences {
            coherence,
            fences: keys.iter().map(begin).collect(),
        };
        self.work.invalidated.increment(keys.len() as u64);
        let begun = match &self.shared {
            None => None,
            Some(shared) => {
                let goes_on = shared.settings.policy.goes_on(kind);
                let deadline = match goes_on {
                    true => shared.settings.creation_deadline(),
                    false => shared.settings.removal_deadline(),
                };
                match FenceKeeper::of(shared).begin(&keys, time, deadline).await {
                    Ok((begun, others)) => {
                        others.await;
                        Some(begun)
                    }
                    Err(error) if goes_on => {
                        tracing::debug!(%error, "a URL is signed without Redis");
                        // The task that watches signed URLs puts up the fence later.
                        shared.queue.enqueue(&keys, false);
                        None
                    }
                    Err(source) => {
                        self.work.changes_refused.increment(1);
                        let source = Arc::new(source);
                        return Err(Error::ChangeRefused { source });
                    }
                }
            }
        };
        let left = self.signed.note(held, until, begun);
        if !left.is_empty() {
            self.expiring.add(left, time);
        }
        Ok(())
    }

    /// Starts the task that watches signed URLs, if there are any and no task runs.
    pub(super) fn keep_signed(&self) {
        let mut state = self.signed.state();
        let runs = |task: &JoinHandle<()>| !task.is_finished();
        if state.open.is_empty() || state.task.as_ref().is_some_and(runs) {
            return;
        }
        let kept = self.shared.as_ref().map(FenceKeeper::of);
        let task = keep(Arc::downgrade(&self.signed), kept);
        state.task = runtime::current().ok().map(|runtime| runtime.spawn(task));
    }
}
