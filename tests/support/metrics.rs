//! The metrics of one cache.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// What a cache that was made here counts.
#[derive(Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes a cache whose metrics are its own.
    pub fn of<T>(make: impl FnOnce() -> T) -> (Self, T) {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &[0.001, 1.0])
            .expect("buckets")
            .build_recorder();
        let handle = recorder.handle();
        (Self(handle), metrics::with_local_recorder(&recorder, make))
    }

    /// All of them, as Prometheus reads them.
    pub fn text(&self) -> String {
        self.0.render()
    }

    /// The value of a metric with these labels; 0 where it was never touched.
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
