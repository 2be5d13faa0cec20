//! [`Shared`]: what does a tiered cache keep for its shared tier?

use super::retry_queue::RetryQueue;
use super::returns::Returns;
use crate::cache::shared::{SharedSettings, SharedTier};
use crate::coherence::Coherence;
use crate::telemetry::metrics::{self, Lookups};
use ::metrics::Histogram;
use std::sync::Arc;

/// The shared tier of a cache or of one of its name spaces, and what this node owes it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) tier: Arc<dyn SharedTier>,
    pub(super) queue: Arc<RetryQueue>,
    pub(super) returns: Arc<Returns>,
    pub(super) settings: SharedSettings,
    pub(super) lookups: Lookups,
    pub(super) duration: Histogram,
}

impl Shared {
    pub(super) fn new(
        tier: Arc<dyn SharedTier>,
        settings: SharedSettings,
        coherence: &Arc<Coherence>,
    ) -> Self {
        let queue = RetryQueue::new(Arc::clone(&tier), settings);
        let returns = Returns::new(
            Arc::clone(&tier),
            settings,
            Arc::clone(coherence),
            Arc::clone(&queue),
        );
        Self {
            tier,
            queue,
            returns,
            settings,
            lookups: Lookups::new("redis", "error"),
            duration: metrics::lookup_duration("redis"),
        }
    }
}
