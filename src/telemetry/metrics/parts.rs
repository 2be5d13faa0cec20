//! Gauges that several caches of a process share. Each cache adds its part, and removes it when the
//! cache is dropped.

use metrics::Gauge;
use std::sync::atomic::{AtomicI64, Ordering};

/// One cache's part in a gauge. Dropping this removes the part.
#[derive(Debug)]
pub(crate) struct Part {
    gauge: Gauge,
    value: AtomicI64,
}

impl Part {
    pub(super) const fn new(gauge: Gauge) -> Self {
        Self {
            gauge,
            value: AtomicI64::new(0),
        }
    }

    pub(crate) fn add(&self, change: i64) {
        self.value.fetch_add(change, Ordering::Relaxed);
        self.gauge.increment(change as f64);
    }

    pub(crate) fn set(&self, value: i64) {
        let before = self.value.swap(value, Ordering::Relaxed);
        if before != value {
            self.gauge.increment((value - before) as f64);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The current state of one thing among `N` states. Each state has a gauge that counts the things
/// in it.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct OneOf<const N: usize> {
    states: [Part; N],
}

#[cfg(feature = "redis")]
impl<const N: usize> OneOf<N> {
    pub(super) const fn new(states: [Part; N]) -> Self {
        Self { states }
    }

    /// Enters this state, or none, and leaves the state before.
    pub(crate) fn enter(&self, state: Option<usize>) {
        for (i, part) in self.states.iter().enumerate() {
            part.set(i64::from(Some(i) == state));
        }
    }
}
