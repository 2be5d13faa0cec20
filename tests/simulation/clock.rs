//! [`Clock`]: the order of all events of a run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Gives each event a number. The number is the event's time in nanoseconds, and grows with each
/// event: what happens later has a greater number, also within one millisecond. A clone only
/// increments a reference count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Arc<Mutex<(u64, u64)>>);

impl Clock {
    pub(crate) fn set(&self, now: Duration) {
        self.0.lock().unwrap().0 = u64::try_from(now.as_nanos()).unwrap();
    }

    pub(crate) fn next(&self) -> u64 {
        let mut clock = self.0.lock().unwrap();
        clock.1 = clock.0.max(clock.1 + 1);
        clock.1
    }
}
