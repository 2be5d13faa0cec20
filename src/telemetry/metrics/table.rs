//! The names, kinds, units and help texts of all metrics. `guide/metrics.md` lists the same metrics
//! for readers.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const LOOKUPS: &str = "layercache_lookups_total";
pub(super) const LOOKUP_DURATION: &str = "layercache_lookup_duration_seconds";
pub(super) const BACKEND_LOADS: &str = "layercache_backend_loads_total";
pub(super) const COALESCED: &str = "layercache_coalesced_total";
pub(super) const FILLS: &str = "layercache_fills_total";
pub(super) const LEASES: &str = "layercache_leases_total";
pub(super) const LEASES_LOST: &str = "layercache_leases_lost_total";
pub(super) const CHANGES: &str = "layercache_changes_total";
pub(super) const RETRY_QUEUE_KEYS: &str = "layercache_retry_queue_keys";
pub(super) const REPAIRS: &str = "layercache_repairs_total";
pub(super) const PURGES: &str = "layercache_purges_total";
pub(super) const INVALIDATIONS: &str = "layercache_invalidations_total";
pub(super) const INVALIDATION_LAG: &str = "layercache_invalidation_lag_seconds";
pub(super) const CACHES: &str = "layercache_caches";
pub(super) const TRUSTED: &str = "layercache_memory_trusted";
pub(super) const UNTRUSTED_SECONDS: &str = "layercache_untrusted_seconds_total";
pub(super) const CHANNEL_GAPS: &str = "layercache_channel_gaps_total";
pub(super) const BREAKERS: &str = "layercache_redis_breakers";
pub(super) const BREAKER_OPENED: &str = "layercache_redis_breaker_opened_total";
pub(super) const BROKEN_VALUES: &str = "layercache_broken_values_total";
pub(super) const FOREIGN_STORAGE: &str = "layercache_foreign_storage_total";
pub(super) const UNKNOWN_PATHS: &str = "layercache_unknown_paths_total";
pub(super) const MEMORY_ENTRIES: &str = "layercache_memory_entries";
pub(super) const MEMORY_BYTES: &str = "layercache_memory_bytes";
pub(super) const IN_FLIGHT: &str = "layercache_in_flight";
pub(super) const WAITING: &str = "layercache_waiting";
pub(super) const VERIFICATIONS: &str = "layercache_verifications_total";
pub(super) const LIMIT_HITS: &str = "layercache_limit_hits_total";

/// The description of a metric for a recorder.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    kind: MetricKind,
    unit: Unit,
    help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: MetricKind::Counter,
        unit: Unit::Count,
        help,
    }
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    Metric {
        name,
        kind: MetricKind::Gauge,
        unit,
        help,
    }
}

const fn seconds(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: MetricKind::Histogram,
        unit: Unit::Seconds,
        help,
    }
}

#[rustfmt::skip]
const METRICS: &[Metric] = &[
    counter(LOOKUPS, "Look-ups in a tier, one for each fact."),
    seconds(LOOKUP_DURATION, "Duration of a round trip of look-ups to Redis, or of a load's question to the backend."),
    counter(BACKEND_LOADS, "Loads that asked the backend."),
    counter(COALESCED, "Questions that the load of another caller answered."),
    counter(FILLS, "Fills of the tiers, one for each load that found something."),
    counter(LEASES, "Leases that this node asked Redis for, one for each key."),
    counter(LEASES_LOST, "Leases that were gone when the node wanted to fill, one for each key."),
    counter(CHANGES, "Changes of the backend that went through the cache."),
    gauge(RETRY_QUEUE_KEYS, Unit::Count, "Keys in the retry queue: this node still has to remove them from Redis, and does not ask Redis until then."),
    counter(REPAIRS, "Times that cached facts were removed because the backend denied them."),
    counter(PURGES, "Times that this node purged all of Redis."),
    counter(INVALIDATIONS, "Times that memory forgot something, one for each key, or one for everything."),
    seconds(INVALIDATION_LAG, "Time from sending a heartbeat to applying it, and all invalidations before it."),
    gauge(CACHES, Unit::Count, "Caches in this process."),
    gauge(TRUSTED, Unit::Count, "Caches in this process whose memory may answer."),
    counter(UNTRUSTED_SECONDS, "Seconds in which a cache's memory was not allowed to answer."),
    counter(CHANNEL_GAPS, "Times that this node may have missed messages of other nodes, so that memory stopped answering."),
    gauge(BREAKERS, Unit::Count, "Connections to Redis, by the state of their breaker."),
    counter(BREAKER_OPENED, "Times that the node stopped asking a server until the server answered again."),
    counter(BROKEN_VALUES, "Values in Redis that neither a node nor a Go registry writes."),
    counter(FOREIGN_STORAGE, "Connections that the node gave up because this Redis holds the facts of another storage."),
    counter(UNKNOWN_PATHS, "Calls of a store whose path the layout does not know."),
    gauge(MEMORY_ENTRIES, Unit::Count, "Entries in memory."),
    gauge(MEMORY_BYTES, Unit::Bytes, "Bytes that the entries in memory take, approximately."),
    gauge(IN_FLIGHT, Unit::Count, "Loads or changes that are running."),
    gauge(WAITING, Unit::Count, "Callers that wait for a permit."),
    counter(LIMIT_HITS, "Times that a limit was hit."),
    counter(VERIFICATIONS, "Answers of the tiers that the verifier compared with the backend."),
];

/// Describes all metrics to the recorder that is installed.
pub(crate) fn describe() {
    for metric in METRICS {
        let Metric {
            name,
            kind,
            unit,
            help,
        } = *metric;
        match kind {
            MetricKind::Counter => describe_counter!(name, unit, help),
            MetricKind::Gauge => describe_gauge!(name, unit, help),
            MetricKind::Histogram => describe_histogram!(name, unit, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rows of the guide: name, kind and meaning.
    fn rows() -> Vec<(String, String, String)> {
        let guide = include_str!("../../guide/metrics.md");
        let rows = guide.lines().filter_map(|line| {
            let cells = line.strip_prefix("| `layercache_")?;
            let mut cells = cells.split(" | ");
            let name = cells.next()?.trim_end_matches('`');
            let (kind, what) = (cells.next()?, cells.next()?);
            Some((
                format!("layercache_{name}"),
                kind.to_owned(),
                what.to_owned(),
            ))
        });
        rows.collect()
    }

    #[test]
    fn the_guide_has_the_same_in_the_same_order() {
        let rows = rows();
        let names = METRICS.iter().map(|metric| metric.name);
        let in_guide = rows.iter().map(|(name, ..)| name.as_str());
        assert_eq!(in_guide.collect::<Vec<_>>(), names.collect::<Vec<_>>());
        for (metric, (name, kind, what)) in METRICS.iter().zip(&rows) {
            let is = format!("{:?}", metric.kind).to_lowercase();
            assert_eq!(*kind, is, "{name}");
            assert!(what.starts_with(metric.help), "{name}: {what}");
        }
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for metric in METRICS {
            let name = metric.name;
            let is_counter = metric.kind == MetricKind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            let is_time = metric.kind == MetricKind::Histogram;
            assert_eq!(name.ends_with("_seconds"), is_time, "{name}");
            let is_size = metric.unit == Unit::Bytes;
            assert_eq!(name.ends_with("_bytes"), is_size, "{name}");
        }
    }
}
