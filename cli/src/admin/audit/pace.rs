//! How fast may the audit ask Redis?

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The slowest rate: one key per minute.
const LEAST: f64 = 1.0 / 60.0;

/// Spreads keys over time.
#[derive(Debug)]
pub(super) struct Pace {
    /// Time per key.
    each: Duration,
    next: Instant,
}

impl Pace {
    /// Makes a pace of this many keys per second.
    pub(super) fn new(rate: f64) -> Self {
        let rate = if rate > 0.0 {
            rate.max(LEAST)
        } else {
            f64::INFINITY
        };
        Self {
            each: Duration::try_from_secs_f64(1.0 / rate).unwrap_or_default(),
            next: Instant::now(),
        }
    }

    /// Waits until the next key may be read.
    pub(super) async fn wait(&self) {
        sleep_until(self.next).await;
    }

    /// Records that this many keys were read.
    pub(super) fn spend(&mut self, keys: usize) {
        let time = self.each * keys.try_into().unwrap_or(u32::MAX);
        self.next = self.next.max(Instant::now()) + time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rate_overflows_a_clock() {
        for rate in [
            f64::MIN_POSITIVE,
            1e-300,
            1e-9,
            0.0,
            -0.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            f64::MAX,
        ] {
            let mut pace = Pace::new(rate);
            pace.spend(usize::MAX);
            pace.spend(500);
        }
        assert_eq!(Pace::new(1e-300).each, Duration::from_secs(60));
        assert_eq!(Pace::new(0.0).each, Duration::ZERO);
        assert_eq!(Pace::new(1000.0).each, Duration::from_millis(1));
    }
}
