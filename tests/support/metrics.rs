//! The metrics of one cache.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// What a cache that was made here counts.
#[derive(Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes a cache whose metrics are its own.
    pub fn of<T>(make: impl FnOnce() -> T) -> (Self, T) {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        (Self(handle), metrics::with_local_recorder(&recorder, make))
    }

    /// The value of a metric with these labels; 0 where it was never touched.
    pub fn get(&self, metric: &str) -> u64 {
        let text = self.0.render();
        let line = text.lines().find_map(|line| line.strip_prefix(metric));
        line.map_or(0, |value| value.trim().parse().expect("a whole number"))
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
