//! [`Label`]: whether a fact in memory is still alive.

use crate::coherence::Trusted;
use crate::coherence::generation::Mark;
use std::time::Duration;
use tokio::time::Instant;

/// The stamp that a fact was filled under, and when it is too old. In 32-bit words, which is what
/// lets a membership have 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    mark: [u32; 2],
    deadline: Tick,
}

/// A sixteenth of a second: a tick's number fits 32 bits for eight years.
const TICK: Duration = Duration::from_nanos(62_500_000);

/// A moment, in ticks since its memory was made. The last one never comes: a process that is older
/// than eight years remembers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

/// Counts ticks.
#[derive(Debug)]
pub(super) struct Clock {
    base: Instant,
}

impl Label {
    /// Of what is too old from the beginning.
    pub(super) const DEAD: Self = Self {
        mark: [0; 2],
        deadline: Tick(0),
    };

    pub(super) const fn new(mark: Mark, deadline: Tick) -> Self {
        let word = mark.word();
        Self {
            mark: [(word >> 32) as u32, word as u32],
            deadline,
        }
    }

    /// Whether nothing has changed the fact's key since it was read, and it is not too old.
    pub(super) fn is_live(self, trusted: Trusted<'_>, now: Tick) -> bool {
        now < self.deadline && trusted.is_current(self.mark())
    }

    pub(super) const fn deadline(self) -> Tick {
        self.deadline
    }

    const fn mark(self) -> Mark {
        let [high, low] = self.mark;
        Mark::of_word((high as u64) << 32 | low as u64)
    }
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            base: Instant::now(),
        }
    }

    /// The tick that `at` is in.
    pub(super) fn tick(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.base);
        let parts = u64::from(since.subsec_nanos()) / TICK.as_nanos() as u64;
        let ticks = since.as_secs().saturating_mul(16).saturating_add(parts);
        Tick(ticks.try_into().unwrap_or(u32::MAX))
    }

    /// The tick that the moment `ttl` after `at` is in; so what ends then ends up to a tick early.
    pub(super) fn after(&self, at: Instant, ttl: Duration) -> Tick {
        at.checked_add(ttl)
            .map_or(Tick(u32::MAX), |at| self.tick(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::coherence::Coherence;

    #[test]
    fn a_label_says_what_it_was_given() {
        assert_eq!(size_of::<Label>(), 12);
        let coherence = Coherence::alone();
        let clock = Clock::new();
        let (now, key) = (Instant::now(), Digest::Sha256([7; 32]));
        for _ in 0..3 {
            let trusted = coherence.trusted(now).unwrap();
            let mark = coherence
                .generations
                .mark(&key, trusted.right(&key).unwrap());
            let label = Label::new(mark, clock.after(now, Duration::from_secs(1)));
            let at = |millis| clock.tick(now + Duration::from_millis(millis));
            assert!(label.is_live(trusted, at(0)));
            assert!(label.is_live(trusted, at(900)));
            assert!(!label.is_live(trusted, at(1000)));
            coherence.generations.bump(&key);
            assert!(!label.is_live(trusted, at(0)));
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
