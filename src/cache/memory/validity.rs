//! [`Validity`]: is a fact in memory still alive?

use crate::coherence::Trusted;
use crate::coherence::generation::EntryStamp;
use std::time::Duration;
use tokio::time::Instant;

/// The stamp that a fact was filled under, and the fact's deadline. It consists of 32-bit words, so
/// that a membership fits in 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    entry_stamp: [u32; 2],
    deadline: Tick,
}

/// A sixteenth of a second. The number of a tick fits in 32 bits for eight years.
const TICK: Duration = Duration::from_nanos(62_500_000);

/// A moment, in ticks since the memory was created. After eight years the number stays at its
/// maximum, and memory answers nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

/// Converts moments to ticks.
#[derive(Debug)]
pub(super) struct Clock {
    base: Instant,
}

impl Validity {
    /// A validity that has expired from the beginning.
    pub(super) const DEAD: Self = Self {
        entry_stamp: [0; 2],
        deadline: Tick(0),
    };

    pub(super) const fn new(entry_stamp: EntryStamp, deadline: Tick) -> Self {
        let word = entry_stamp.word();
        Self {
            entry_stamp: [(word >> 32) as u32, word as u32],
            deadline,
        }
    }

    /// Returns whether the fact's key has not changed since the fact was read, and the fact has not
    /// expired.
    pub(super) fn is_live(self, trusted: Trusted<'_>, now: Tick) -> bool {
        now < self.deadline && trusted.is_current(self.entry_stamp())
    }

    pub(super) const fn deadline(self) -> Tick {
        self.deadline
    }

    const fn entry_stamp(self) -> EntryStamp {
        let [high, low] = self.entry_stamp;
        EntryStamp::from_word((high as u64) << 32 | low as u64)
    }
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            base: Instant::now(),
        }
    }

    /// Returns the tick that contains `at`.
    pub(super) fn tick(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.base);
        let parts = u64::from(since.subsec_nanos()) / TICK.as_nanos() as u64;
        let ticks = since.as_secs().saturating_mul(16).saturating_add(parts);
        Tick(ticks.try_into().unwrap_or(u32::MAX))
    }

    /// Returns the tick that contains the moment `ttl` after `at`. A fact with this deadline
    /// expires up to a tick early.
    pub(super) fn after(&self, at: Instant, ttl: Duration) -> Tick {
        at.checked_add(ttl)
            .map_or(Tick(u32::MAX), |at| self.tick(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coherence::Coherence;
    use crate::types::Digest;

    #[test]
    fn a_validity_says_what_it_was_given() {
        assert_eq!(size_of::<Validity>(), 12);
        let coherence = Coherence::alone();
        let clock = Clock::new();
        let (now, key) = (Instant::now(), Digest::Sha256([7; 32]));
        for _ in 0..3 {
            let trusted = coherence.trusted(now).unwrap();
            let entry_stamp = coherence
                .generations
                .entry_stamp(&key, trusted.read_stamp(&key).unwrap());
            let validity = Validity::new(entry_stamp, clock.after(now, Duration::from_secs(1)));
            let at = |millis| clock.tick(now + Duration::from_millis(millis));
            assert!(validity.is_live(trusted, at(0)));
            assert!(validity.is_live(trusted, at(900)));
            assert!(!validity.is_live(trusted, at(1000)));
            coherence.generations.bump(&key);
            assert!(!validity.is_live(trusted, at(0)));
            coherence.generations.flush();
        }
    }

    #[test]
    fn what_is_to_live_for_ever_lives_for_years_and_no_time_overflows() {
        let clock = Clock::new();
        let now = Instant::now();
        let end = clock.after(now, Duration::MAX);
        let years = |years: u64| Duration::from_secs(3600 * 24 * 365 * years);
        assert!(clock.tick(now + years(8)) < end);
        assert!(clock.tick(now + years(9)) >= end);
    }

    #[test]
    fn no_fact_lives_longer_than_it_should() {
        let clock = Clock::new();
        for millis in [1, 62, 63, 100, 999, 1000, 123_456] {
            for late in [0, 1, 40, 61, 62, 63, 500] {
                let now = clock.base + Duration::from_millis(late);
                let ttl = Duration::from_millis(millis);
                let end = clock.after(now, ttl);
                assert!(clock.tick(now + ttl) >= end);
                let early = ttl.saturating_sub(TICK);
                assert!(early.is_zero() || clock.tick(now + early - Duration::from_nanos(1)) < end);
            }
        }
    }
}
