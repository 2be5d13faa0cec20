//! Metrics, through the [`metrics`] facade. [`guide::metrics`](crate::guide::metrics) lists them
//! all.
//!
//! A cache takes its handles when it is created, so install the recorder before. All caches of a
//! process share the metrics, so a gauge is a sum of [`Part`]s.

#[cfg(feature = "redis")]
mod channel;
mod parts;
mod table;
mod verifications;

#[cfg(feature = "redis")]
pub(crate) use channel::{ChannelMeter, Gap};
#[cfg(feature = "redis")]
pub(crate) use parts::OneOf;
pub(crate) use parts::Part;
pub(crate) use table::describe;
pub(crate) use verifications::{Tier, Verifications};

use crate::types::link::KeyKind;
use crate::types::per_key::PerKey;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Counts the look-ups of one tier, by fact and result.
#[derive(Debug)]
pub(crate) struct Lookups([Results; KeyKind::NAMES.len()]);

#[derive(Debug)]
struct Results {
    hit: Counter,
    miss: Counter,
    none: Counter,
}

impl Lookups {
    /// Creates the counters of a tier. `none` is the result label of its look-ups without an
    /// answer.
    pub(crate) fn new(tier: &'static str, none: &'static str) -> Self {
        let fact = |fact: &'static str| {
            let counter = |result: &'static str| counter!(table::LOOKUPS, "fact" => fact, "tier" => tier, "result" => result);
            Results {
                hit: counter("hit"),
                miss: counter("miss"),
                none: counter(none),
            }
        };
        Self(KeyKind::NAMES.map(fact))
    }

    /// Counts a look-up: for each fact that it asked for, whether the tier has it.
    pub(crate) fn count(&self, asked: LookupResult) {
        asked.for_each(|(kind, hit)| {
            let Results { hit: yes, miss, .. } = &self.0[kind as usize];
            (if hit { yes } else { miss }).increment(1);
        });
    }

    /// Counts a look-up that the tier could not answer.
    pub(crate) fn count_none(&self, asked: LookupResult) {
        asked.for_each(|(kind, _)| self.0[kind as usize].none.increment(1));
    }
}

/// The facts that a look-up asked for, and whether each was found.
pub(crate) type LookupResult = PerKey<(KeyKind, bool)>;

/// Returns the histogram of the time that a tier takes to answer.
pub(crate) fn lookup_duration(tier: &'static str) -> Histogram {
    histogram!(table::LOOKUP_DURATION, "tier" => tier)
}

/// Counts the loads that ask the backend.
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

    pub(crate) fn count(&self, asked: LookupResult) {
        self.lookups.count(asked);
        match asked.iter().all(|(_, is_found)| *is_found) {
            true => self.found.increment(1),
            false => self.absent.increment(1),
        }
    }

    pub(crate) fn count_error(&self, asked: LookupResult) {
        self.lookups.count_none(asked);
        self.error.increment(1);
    }
}

/// Returns the counter of hits of this limit.
pub(crate) fn limit_hits(limit: &'static str) -> Counter {
    counter!(table::LIMIT_HITS, "limit" => limit)
}

/// Returns the gauges of the loads or changes under way, and of the callers that wait for a permit.
pub(crate) fn limiter_gauges(what: &'static str) -> (Gauge, Gauge) {
    let taken = gauge!(table::IN_FLIGHT, "what" => what);
    (taken, gauge!(table::WAITING, "what" => what))
}

/// Counts one more cache, until the part is dropped.
pub(crate) fn cache() -> Part {
    let part = Part::new(gauge!(table::CACHES));
    part.add(1);
    part
}

/// Returns a cache's part in the gauge of caches whose memory may answer: 0 or 1.
pub(crate) fn trusted() -> Part {
    Part::new(gauge!(table::TRUSTED))
}

/// Returns a cache's part in the gauge of keys that Redis must still be told of.
pub(crate) fn retry_queue_keys() -> Part {
    Part::new(gauge!(table::RETRY_QUEUE_KEYS))
}

/// Returns the counter of connections to a Redis that holds the cache of another storage.
#[cfg(feature = "redis")]
pub(crate) fn foreign_storage() -> Counter {
    counter!(table::FOREIGN_STORAGE)
}

/// Returns the counter of calls whose path the layout does not know.
pub(crate) fn unknown_paths() -> Counter {
    counter!(table::UNKNOWN_PATHS)
}

/// Returns the counter of purges with this cause.
pub(crate) fn purges(cause: &'static str) -> Counter {
    counter!(table::PURGES, "cause" => cause)
}

/// The number of entries in memory, and the bytes that they take.
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

/// Returns the gauges of breakers by state: closed, probing, open.
#[cfg(feature = "redis")]
pub(crate) fn breaker() -> OneOf<3> {
    let states = ["closed", "probing", "open"];
    OneOf::new(states.map(|state| Part::new(gauge!(table::BREAKERS, "state" => state))))
}

#[cfg(feature = "redis")]
pub(crate) fn breaker_opened() -> Counter {
    counter!(table::BREAKER_OPENED)
}

/// Returns the counters of values in Redis that no node can have written, one for each kind of fact.
#[cfg(feature = "redis")]
pub(crate) fn broken_values() -> [Counter; KeyKind::NAMES.len()] {
    KeyKind::NAMES.map(|fact| counter!(table::BROKEN_VALUES, "fact" => fact))
}

/// Runs `make` with a recorder of its own. Returns the result, and a function that reads how often
/// a limit was hit.
#[cfg(test)]
pub(crate) fn counted<T>(make: impl FnOnce() -> T) -> (T, impl Fn(&str) -> u64) {
    let (made, get) = metered(make);
    let hits = move |limit: &str| get(&format!("layercache_limit_hits_total{{limit=\"{limit}\"}}"));
    (made, hits)
}

/// Runs `make` with a recorder of its own. Returns the result, and a function that reads a metric.
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

/// Counts the work of the tiers besides answering.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) fills_stored: Counter,
    /// Fills refused because the key changed after the load had read it. Each is a race that was
    /// caught.
    pub(crate) fills_fenced: Counter,
    /// Fills refused because the lease was gone, although this node knows of no change.
    pub(crate) fills_late: Counter,
    /// Fills that were not tried because there was no lease for them.
    pub(crate) fills_unleased: Counter,
    pub(crate) fills_failed: Counter,
    pub(crate) leases_granted: Counter,
    pub(crate) leases_wait: Counter,
    pub(crate) leases_blocked: Counter,
    pub(crate) leases_found: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) changes_done: Counter,
    pub(crate) changes_refused: Counter,
    pub(crate) changes_unconfirmed: Counter,
    /// Changes that were made without Redis. Redis must still be told of them.
    pub(crate) changes_queued: Counter,
    /// Changes whose backend call may still happen.
    pub(crate) changes_open: Counter,
    /// Times that keys were removed because the backend denied their facts.
    pub(crate) repairs: Counter,
    /// Callers that joined a load which another caller on this node had started.
    pub(crate) joined_loads: Counter,
    /// Loads that another node's load answered.
    pub(crate) awaited: Counter,
    /// Keys that this node's memory forgot because of the node's own changes.
    pub(crate) invalidated: Counter,
    /// Times that this node's memory forgot everything because a caller asked for it.
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
            changes_queued: changes("queued"),
            changes_open: changes("open"),
            repairs: counter!(table::REPAIRS),
            joined_loads: coalesced("node"),
            awaited: coalesced("cluster"),
            invalidated: invalidations("local"),
            flushed: invalidations("purge"),
            purges: purges("asked"),
        }
    }
}
