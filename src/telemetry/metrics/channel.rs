//! The metrics of a node's end of the channel between nodes.

use super::parts::Part;
use super::{limit_hits, table, trusted};
use metrics::{Counter, Histogram, counter, histogram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Why this node may have missed messages of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The connection was closed or lost.
    Closed,
    /// The server ended the subscription.
    Unsubscribed,
    /// The server no longer answered.
    Silent,
    /// The server is no longer a primary, or it is another server than before.
    Replaced,
    /// A new connection failed before it was used.
    Failed,
    /// A message could not be understood.
    Unreadable,
    /// No heartbeat came back in time.
    Lapsed,
}

impl Gap {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Closed, "closed"),
        (Self::Unsubscribed, "unsubscribed"),
        (Self::Silent, "silent"),
        (Self::Replaced, "replaced"),
        (Self::Failed, "failed"),
        (Self::Unreadable, "unreadable"),
        (Self::Lapsed, "lapsed"),
    ];
}

/// Counts the events at a node's end of the channel.
#[derive(Debug)]
pub(crate) struct ChannelMeter {
    gaps: [Counter; Gap::ALL.len()],
    pub(crate) remote: Counter,
    pub(crate) resynced: Counter,
    pub(crate) purged: Counter,
    pub(crate) lag: Histogram,
    pub(crate) limit_hits: Counter,
    trusted: Part,
    untrusted: Counter,
    seen: Mutex<LastObserved>,
}

/// The last observation of trust.
#[derive(Debug)]
struct LastObserved {
    at: Instant,
    trusts: bool,
    /// Time without trust that is not counted yet, because it is less than a second.
    rest: Duration,
}

impl ChannelMeter {
    /// Creates the metrics of a node that does not trust its memory yet.
    pub(crate) fn new(now: Instant) -> Self {
        let invalidations =
            |origin: &'static str| counter!(table::INVALIDATIONS, "origin" => origin);
        Self {
            gaps: Gap::ALL.map(|(_, cause)| counter!(table::CHANNEL_GAPS, "cause" => cause)),
            remote: invalidations("remote"),
            resynced: invalidations("resync"),
            purged: invalidations("purge"),
            lag: histogram!(table::INVALIDATION_LAG),
            limit_hits: limit_hits("acknowledgements"),
            trusted: trusted(),
            untrusted: counter!(table::UNTRUSTED_SECONDS),
            seen: Mutex::new(LastObserved {
                at: now,
                trusts: false,
                rest: Duration::ZERO,
            }),
        }
    }

    pub(crate) fn gap(&self, gap: Gap) {
        let all = Gap::ALL.iter().zip(&self.gaps);
        for (_, counter) in all.filter(|((it, _), _)| *it == gap) {
            counter.increment(1);
        }
    }

    /// Records whether memory is trusted now. Trust can end without an event, so the node must call
    /// this regularly. Returns whether memory was trusted at the last call.
    pub(crate) fn observe(&self, trusts: bool, now: Instant) -> bool {
        // The value is consistent between its updates, even after a panic.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let did = std::mem::replace(&mut seen.trusts, trusts);
        let since = now.saturating_duration_since(std::mem::replace(&mut seen.at, now));
        if !did {
            let rest = seen.rest + since;
            self.untrusted.increment(rest.as_secs());
            seen.rest = Duration::from_nanos(rest.subsec_nanos().into());
        }
        self.trusted.set(trusts.into());
        did
    }
}
