//! [`Returns`]: gives leases back and repeats denials in the background, so that no caller waits.

use super::retry_queue::RetryQueue;
use crate::cache::memory::jittered;
use crate::cache::shared::{SharedSettings, SharedTier};
use crate::coherence::Coherence;
use crate::coherence::lease::Token;
use crate::telemetry::metrics::limit_hits;
use crate::types::link::Key;
use crate::types::{Error, runtime};
use metrics::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// The pauses after attempts that failed. Together they are about as long as a lease lasts by
/// default, so the lease has then expired by itself.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(3200),
    Duration::from_millis(3200),
];

/// The most keys whose leases are being given back at a time. The leases of further keys expire by
/// themselves.
const MOST: usize = 10_000;

/// Gives leases back, and removes keys that the backend has denied, in the background.
#[derive(Debug)]
pub(super) struct Returns {
    tier: Arc<dyn SharedTier>,
    settings: SharedSettings,
    coherence: Arc<Coherence>,
    queue: Arc<RetryQueue>,
    open: AtomicUsize,
    limit_hits: Counter,
}

/// The job to do for some keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Return {
    /// Give back their leases with this token.
    Lease(Token),
    /// Remove what the tier holds of them.
    Denied,
}

/// A share of the [`MOST`] keys. It is freed on drop, also if the task ends with its runtime.
#[derive(Debug)]
struct Room {
    returns: Arc<Returns>,
    keys: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.returns.open.fetch_sub(self.keys, Ordering::Relaxed);
    }
}

impl Returns {
    pub(super) fn new(
        tier: Arc<dyn SharedTier>,
        settings: SharedSettings,
        coherence: Arc<Coherence>,
        queue: Arc<RetryQueue>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tier,
            settings,
            coherence,
            queue,
            open: AtomicUsize::new(0),
            limit_hits: limit_hits("leases"),
        })
    }

    /// Does the job in a task of its own, and tries again a few times if it fails. Redis executes
    /// the job after a `GRANT` that was sent before, even if the `GRANT` has no answer yet.
    pub(super) fn begin(self: &Arc<Self>, keys: Vec<Key>, what: Return) {
        // First, because most guards have nothing to give back when they are dropped.
        if keys.is_empty() {
            return;
        }
        let Ok(runtime) = runtime::current() else {
            // Without a runtime there is no task, and the leases expire by themselves.
            return;
        };
        let open = self.open.fetch_add(keys.len(), Ordering::Relaxed);
        let room = Room {
            returns: Arc::clone(self),
            keys: keys.len(),
        };
        if open + keys.len() > MOST {
            self.limit_hits.increment(1);
            return;
        }
        runtime.spawn(async move {
            let returns = &room.returns;
            for pause in PAUSES {
                match returns.attempt(&keys, what).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "not given back yet"),
                }
                sleep(jittered(pause)).await;
            }
            if let Err(error) = returns.attempt(&keys, what).await {
                tracing::debug!(%error, "not given back");
            }
        });
    }

    async fn attempt(&self, keys: &[Key], what: Return) -> Result<(), Error> {
        match what {
            Return::Lease(token) => self.tier.release(keys, token).await,
            Return::Denied => {
                let deadline = self.settings.read_deadline();
                let held = self.tier.deny(keys, deadline).await?;
                let held = keys.iter().zip(held).filter(|(_, is_held)| *is_held);
                let held: Vec<_> = held.map(|(key, _)| key.clone()).collect();
                if held.is_empty() {
                    return Ok(());
                }
                for key in &held {
                    self.coherence.generations.bump(key);
                }
                // Another `DENY` would find no entry, so the retry queue tells the other nodes.
                if self.tier.notify(&held, deadline).await.is_err() {
                    self.queue.enqueue_if_room(&held);
                }
                Ok(())
            }
        }
    }
}
