//! How fast Redis is asked.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Spreads keys over time.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long one key takes.
    each: Duration,
    next: Instant,
}

impl Pace {
    /// For so many keys a second.
    pub(super) fn new(rate: f64) -> Self {
        Self {
            each: Duration::try_from_secs_f64(1.0 / rate).unwrap_or_default(),
            next: Instant::now(),
        }
    }

    /// Until the next may be looked at.
    pub(super) async fn wait(&self) {
        sleep_until(self.next).await;
    }

    /// So many keys have been looked at.
    pub(super) fn spend(&mut self, keys: usize) {
        let time = self.each * keys.try_into().unwrap_or(u32::MAX);
        self.next = self.next.max(Instant::now()) + time;
    }
}
