//! Metrics, through the [`metrics`] facade; [`guide::metrics`](crate::guide::metrics) has them all.
//!
//! Handles are taken when a cache is made: install the recorder before. Caches of a process share
//! them, so a gauge is a sum of [`Part`]s.

mod audits;
#[cfg(feature = "redis")]
mod channel;
mod parts;
mod table;

pub(crate) use audits::{Audits, Tier};
#[cfg(feature = "redis")]
pub(crate) use channel::{ChannelMeter, Gap};
#[cfg(feature = "redis")]
pub(crate) use parts::OneOf;
pub(crate) use parts::Part;
pub(crate) use table::describe;

use crate::coherence::lease::Grant;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Look-ups of one tier, by fact and result.
#[derive(Debug)]
pub(crate) struct Lookups {
    membership: Results,
    meta: Results,
}

#[derive(Debug)]
struct Results {
    hit: Counter,
    miss: Counter,
    none: Counter,
}

impl Lookups {
    /// Of a tier, and what its look-ups without an answer are counted as.
    pub(crate) fn new(tier: &'static str, none: &'static str) -> Self {
        let fact = |fact: &'static str| {
            let counter = |result: &'static str| counter!(table::LOOKUPS, "fact" => fact, "tier" => tier, "result" => result);
            Results {
                hit: counter("hit"),
                miss: counter("miss"),
                none: counter(none),
            }
        };
        Self {
            membership: fact("membership"),
            meta: fact("meta"),
        }
    }

    /// Counts a look-up: for each fact that was asked for, whether it was found.
    pub(crate) fn count(&self, asked: Asked) {
        if let Some(hit) = asked.membership {
            self.membership.count(hit);
        }
        if let Some(hit) = asked.meta {
            self.meta.count(hit);
        }
    }

    /// Counts a look-up that the tier could not answer.
    pub(crate) fn count_none(&self, asked: Asked) {
        if asked.membership.is_some() {
            self.membership.none.increment(1);
        }
        if asked.meta.is_some() {
            self.meta.none.increment(1);
        }
    }
}

/// Which facts were asked for, and whether they were found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) membership: Option<bool>,
    pub(crate) meta: Option<bool>,
}

impl Asked {
    /// Whether all was found.
    const fn is_found(self) -> bool {
        !matches!(self.membership, Some(false)) && !matches!(self.meta, Some(false))
    }
}

impl Results {
    fn count(&self, hit: bool) {
        let counter = if hit { &self.hit } else { &self.miss };
        counter.increment(1);
    }
}

/// How long a tier takes to answer.
pub(crate) fn lookup_duration(tier: &'static str) -> Histogram {
    histogram!(table::LOOKUP_DURATION, "tier" => tier)
}

/// What the backend is asked by loads.
#[derive(Debug)]
pub(crate) struct Loads {
    lookups: Lookups,
    pub(crate) duration: Histogram,
    found: Counter,
    absent: Counter,
    error: Counter,
}

impl Loads {
    pub(crate) fn new() -> Self {
        let loads = |result: &'static str| counter!(table::BACKEND_LOADS, "result" => result);
        Self {
            lookups: Lookups::new("backend", "error"),
            duration: lookup_duration("backend"),
            found: loads("found"),
            absent: loads("absent"),
            error: loads("error"),
        }
    }

    pub(crate) fn count(&self, asked: Asked) {
        self.lookups.count(asked);
        match asked.is_found() {
            true => self.found.increment(1),
            false => self.absent.increment(1),
        }
    }

    pub(crate) fn count_error(&self, asked: Asked) {
        self.lookups.count_none(asked);
        self.error.increment(1);
    }
}

/// Counts how often this limit was hit.
pub(crate) fn limit_hits(limit: &'static str) -> Counter {
    counter!(table::LIMIT_HITS, "limit" => limit)
}

/// How many loads or changes are under way, and how many callers wait for their turn.
pub(crate) fn turns(what: &'static str) -> (Gauge, Gauge) {
    let taken = gauge!(table::IN_FLIGHT, "what" => what);
    (taken, gauge!(table::WAITING, "what" => what))
}

/// One more cache.
pub(crate) fn cache() -> Part {
    let part = Part::new(gauge!(table::CACHES));
    part.add(1);
    part
}

/// Whether a cache's memory may answer: 0 or 1.
pub(crate) fn trusted() -> Part {
    Part::new(gauge!(table::TRUSTED))
}

/// How many keys Redis has still to be told of.
pub(crate) fn owed_keys() -> Part {
    Part::new(gauge!(table::OWED_KEYS))
}

/// A cause of purges.
pub(crate) fn purges(cause: &'static str) -> Counter {
    counter!(table::PURGES, "cause" => cause)
}

/// What memory holds.
#[derive(Debug)]
pub(crate) struct Holdings {
    entries: Part,
    bytes: Part,
}

impl Holdings {
    pub(crate) fn new() -> Self {
        Self {
            entries: Part::new(gauge!(table::MEMORY_ENTRIES)),
            bytes: Part::new(gauge!(table::MEMORY_BYTES)),
        }
    }

    pub(crate) fn put(&self, bytes: usize) {
        self.entries.add(1);
        self.bytes.add(bytes as i64);
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.entries.add(-1);
        self.bytes.add(-(bytes as i64));
    }
}

/// Which states breakers are in: closed, probing, open.
#[cfg(feature = "redis")]
pub(crate) fn breaker() -> OneOf<3> {
    let states = ["closed", "probing", "open"];
    OneOf::new(states.map(|state| Part::new(gauge!(table::BREAKERS, "state" => state))))
}

#[cfg(feature = "redis")]
pub(crate) fn breaker_opened() -> Counter {
    counter!(table::BREAKER_OPENED)
}

/// Values that were read from Redis and cannot be what a node wrote, by fact.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct BrokenValues {
    pub(crate) membership: Counter,
    pub(crate) meta: Counter,
}

#[cfg(feature = "redis")]
impl BrokenValues {
    pub(crate) fn new() -> Self {
        let fact = |fact: &'static str| counter!(table::BROKEN_VALUES, "fact" => fact);
        Self {
            membership: fact("membership"),
            meta: fact("meta"),
        }
    }
}

/// A cache whose metrics are its own, and how to read how often it hit a limit.
#[cfg(test)]
pub(crate) fn counted<T>(make: impl FnOnce() -> T) -> (T, impl Fn(&str) -> u64) {
    let (made, get) = metered(make);
    let hits = move |limit: &str| get(&format!("layercache_limit_hits_total{{limit=\"{limit}\"}}"));
    (made, hits)
}

/// A cache whose metrics are its own, and how to read them.
#[cfg(test)]
pub(crate) fn metered<T>(make: impl FnOnce() -> T) -> (T, impl Fn(&str) -> u64) {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let made = metrics::with_local_recorder(&recorder, make);
    let get = move |series: &str| {
        let text = handle.render();
        let value = |line: &str| Some(line.strip_prefix(series)?.strip_prefix(' ')?.to_owned());
        let value = text.lines().find_map(value);
        value.map_or(0, |value| value.parse().unwrap())
    };
    (made, get)
}

/// What the tiers do besides answering.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) fills_stored: Counter,
    /// Fills refused because their key was changed after they were read: races caught.
    pub(crate) fills_fenced: Counter,
    /// Fills refused without a change that was heard of: the lease was gone.
    pub(crate) fills_late: Counter,
    /// Fills that were not tried because there was no lease for them.
    pub(crate) fills_unleased: Counter,
    pub(crate) fills_failed: Counter,
    leases_granted: Counter,
    leases_wait: Counter,
    leases_blocked: Counter,
    leases_found: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) changes_done: Counter,
    pub(crate) changes_refused: Counter,
    pub(crate) changes_unconfirmed: Counter,
    /// Made without Redis, which has still to be told.
    pub(crate) changes_owed: Counter,
    /// Those whose call to the backend may still happen.
    pub(crate) changes_open: Counter,
    /// Times that keys were taken away because the backend denied what they say.
    pub(crate) heals: Counter,
    /// Callers who have boarded a load that another one has started.
    pub(crate) boarded: Counter,
    /// Loads that another node's load has answered.
    pub(crate) awaited: Counter,
    /// Keys that this node has forgotten because of its own changes.
    pub(crate) invalidated: Counter,
    /// Times that this node has forgotten everything because it was told so.
    pub(crate) flushed: Counter,
    pub(crate) purges: Counter,
}

impl Work {
    pub(crate) fn new() -> Self {
        let fills = |result: &'static str| counter!(table::FILLS, "result" => result);
        let leases = |result: &'static str| counter!(table::LEASES, "result" => result);
        let changes = |result: &'static str| counter!(table::CHANGES, "result" => result);
        let invalidations =
            |origin: &'static str| counter!(table::INVALIDATIONS, "origin" => origin);
        let coalesced = |scope: &'static str| counter!(table::COALESCED, "scope" => scope);
        Self {
            fills_stored: fills("stored"),
            fills_fenced: fills("fenced"),
            fills_late: fills("late"),
            fills_unleased: fills("unleased"),
            fills_failed: fills("error"),
            leases_granted: leases("granted"),
            leases_wait: leases("wait"),
            leases_blocked: leases("blocked"),
            leases_found: leases("found"),
            leases_lost: counter!(table::LEASES_LOST),
            changes_done: changes("done"),
            changes_refused: changes("refused"),
            changes_unconfirmed: changes("unconfirmed"),
            changes_owed: changes("owed"),
            changes_open: changes("open"),
            heals: counter!(table::HEALS),
            boarded: coalesced("node"),
            awaited: coalesced("cluster"),
            invalidated: invalidations("local"),
            flushed: invalidations("purge"),
            purges: purges("asked"),
        }
    }

    /// Counts what was said of leases.
    pub(crate) fn count_leases(&self, grants: &[Grant]) {
        for grant in grants {
            let counter = match grant {
                Grant::Granted => &self.leases_granted,
                Grant::Wait => &self.leases_wait,
                Grant::Blocked => &self.leases_blocked,
                Grant::Hit => &self.leases_found,
                Grant::Unknown => continue,
            };
            counter.increment(1);
        }
    }
}
