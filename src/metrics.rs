//! Metrics, through the [`metrics`] facade.
//!
//! Handles are taken when a cache is made: install the recorder before.

use metrics::{Counter, counter};

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
    error: Counter,
}

impl Lookups {
    pub(crate) fn new(tier: &'static str) -> Self {
        let fact = |fact: &'static str| {
            let counter = |result: &'static str| counter!("layercache_lookups_total", "fact" => fact, "tier" => tier, "result" => result);
            Results {
                hit: counter("hit"),
                miss: counter("miss"),
                error: counter("error"),
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
    pub(crate) fn count_error(&self, asked: Asked) {
        if asked.membership.is_some() {
            self.membership.error.increment(1);
        }
        if asked.meta.is_some() {
            self.meta.error.increment(1);
        }
    }
}

/// Which facts were asked for, and whether they were found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) membership: Option<bool>,
    pub(crate) meta: Option<bool>,
}

impl Results {
    fn count(&self, hit: bool) {
        let counter = if hit { &self.hit } else { &self.miss };
        counter.increment(1);
    }
}

/// Counts how often this limit was hit.
pub(crate) fn limit_hits(limit: &'static str) -> Counter {
    counter!("layercache_limit_hits_total", "limit" => limit)
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
        let fact = |fact: &'static str| counter!("layercache_broken_values_total", "fact" => fact);
        Self {
            membership: fact("membership"),
            meta: fact("meta"),
        }
    }
}

/// A cache whose metrics are its own, and how to read how often it hit a limit.
#[cfg(test)]
pub(crate) fn counted<T>(make: impl FnOnce() -> T) -> (T, impl Fn(&str) -> u64) {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let made = metrics::with_local_recorder(&recorder, make);
    let hits = move |limit: &str| {
        let text = handle.render();
        let name = format!("layercache_limit_hits_total{{limit=\"{limit}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |value| value.parse().unwrap())
    };
    (made, hits)
}

/// What the tiers do besides answering.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) fills_stored: Counter,
    /// Fills refused because their key was changed after they were read: races caught.
    pub(crate) fills_fenced: Counter,
    pub(crate) fills_failed: Counter,
    pub(crate) changes_done: Counter,
    pub(crate) changes_refused: Counter,
    pub(crate) changes_unconfirmed: Counter,
    /// Made without Redis, which has still to be told.
    pub(crate) changes_owed: Counter,
    /// Those whose call to the backend may still happen.
    pub(crate) changes_open: Counter,
    /// Times that keys were taken away because the backend denied what they say.
    pub(crate) heals: Counter,
    pub(crate) boarded: Counter,
}

impl Work {
    pub(crate) fn new() -> Self {
        let fills = |result: &'static str| counter!("layercache_fills_total", "result" => result);
        let changes =
            |result: &'static str| counter!("layercache_changes_total", "result" => result);
        Self {
            fills_stored: fills("stored"),
            fills_fenced: fills("fenced"),
            fills_failed: fills("error"),
            changes_done: changes("done"),
            changes_refused: changes("refused"),
            changes_unconfirmed: changes("unconfirmed"),
            changes_owed: changes("owed"),
            changes_open: changes("open"),
            heals: counter!("layercache_heals_total"),
            boarded: counter!("layercache_boarded_total"),
        }
    }
}
