//! Reads the metrics of one cache.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The metrics of a cache that was made by [`Self::of`].
#[derive(Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes a cache whose metrics are counted apart from all others.
    pub fn of<T>(make: impl FnOnce() -> T) -> (Self, T) {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &[0.001, 1.0])
            .expect("buckets")
            .build_recorder();
        let handle = recorder.handle();
        (Self(handle), metrics::with_local_recorder(&recorder, make))
    }

    /// Returns all metrics in the format that Prometheus reads.
    pub fn text(&self) -> String {
        self.0.render()
    }

    /// Returns the value of a metric with these labels, or 0 if the cache never touched it.
    pub fn get(&self, metric: &str) -> u64 {
        let text = self.text();
        let value = |line: &str| {
            let value = line.strip_prefix(metric)?.strip_prefix(' ')?;
            Some(value.parse().expect("a whole number"))
        };
        text.lines().find_map(value).unwrap_or(0)
    }

    pub fn limit_hits(&self, limit: &str) -> u64 {
        self.get(&format!("layercache_limit_hits_total{{limit=\"{limit}\"}}"))
    }

    pub fn in_flight(&self, what: &str) -> u64 {
        self.get(&format!("layercache_in_flight{{what=\"{what}\"}}"))
    }

    pub fn waiting(&self, what: &str) -> u64 {
        self.get(&format!("layercache_waiting{{what=\"{what}\"}}"))
    }
}
