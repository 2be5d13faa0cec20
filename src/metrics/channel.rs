//! What a node's end of the channel counts.

use super::parts::Part;
use super::{limit_hits, table, trusted};
use metrics::{Counter, Histogram, counter, histogram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Why messages of other nodes may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The connection was closed or lost.
    Closed,
    /// The server was made to send no more.
    Unsubscribed,
    /// Nothing was answered any more.
    Silent,
    /// The server is no primary any more, or another one.
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

/// What a node's end of the channel counts.
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
    seen: Mutex<Seen>,
}

/// When trust was looked at last.
#[derive(Debug)]
struct Seen {
    at: Instant,
    trusts: bool,
    /// Without trust, and less than a second, so not yet counted.
    rest: Duration,
}

impl ChannelMeter {
    /// Of a node that does not trust its memory yet.
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
            seen: Mutex::new(Seen {
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

    /// Whether memory is trusted now, for whoever looks at the metrics: trust lapses without a word, so this
    /// has to be called now and then. Says whether it was trusted when this was called last.
    pub(crate) fn observe(&self, trusts: bool, now: Instant) -> bool {
        // It is whole between any two of its changes, whoever panicked.
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
