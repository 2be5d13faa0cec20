//! Leases that are given back, and denials that are repeated, while nobody waits for it.

use super::debts::Debts;
use crate::Error;
use crate::cache::memory::jittered;
use crate::cache::shared::{SharedSettings, SharedTier};
use crate::coherence::Coherence;
use crate::coherence::lease::Token;
use crate::link::Key;
use crate::metrics::limit_hits;
use metrics::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// How long after an attempt that failed comes the next. Together they are about as long as a lease
/// lasts by default: then it has lapsed by itself.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(3200),
    Duration::from_millis(3200),
];

/// The most keys that are being given back at a time. The leases of more lapse by themselves.
const MOST: usize = 10_000;

/// Gives leases back, and takes away what the backend has denied, where nobody waits for it.
#[derive(Debug)]
pub(super) struct Returns {
    tier: Arc<dyn SharedTier>,
    settings: SharedSettings,
    coherence: Arc<Coherence>,
    debts: Arc<Debts>,
    open: AtomicUsize,
    limit_hits: Counter,
}

/// What is to be done about some keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Return {
    /// Give their leases with this token back.
    Lease(Token),
    /// Take away what the tier holds of them.
    Denied,
}

/// Room among the keys that are being given back. A task that ends with its runtime leaves it, too.
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
        debts: Arc<Debts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tier,
            settings,
            coherence,
            debts,
            open: AtomicUsize::new(0),
            limit_hits: limit_hits("leases"),
        })
    }

    /// Does it in a task of its own, and again a few times if it fails. What is sent now is executed
    /// after a `GRANT` that was sent before and has not been answered.
    pub(super) fn begin(self: &Arc<Self>, keys: Vec<Key>, what: Return) {
        let Ok(runtime) = Handle::try_current() else {
            // Without a runtime they lapse by themselves.
            return;
        };
        if keys.is_empty() {
            return;
        }
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
                // To deny them again would find nothing.
                if self.tier.mention(&held, deadline).await.is_err() {
                    self.debts.owe_if_room(&held);
                }
                Ok(())
            }
        }
    }
}
