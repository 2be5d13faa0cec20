//! Decides whether Redis's clock has been steady, compared with the node's own clock.
//!
//! Members of the peer set carry Redis's time. A step of Redis's clock makes them look older or
//! younger than they are, and a heartbeat after the step does not show it. A node therefore
//! remembers how far Redis's clock was ahead of its own clock, for as long as any peer may trust
//! its memory.

use crate::coherence::rules::{Rule, kept};
use std::time::Duration;
use tokio::time::Instant;

/// How long a span is remembered. This is longer than any peer may trust its memory.
const KEPT: Duration = Duration::from_secs(120);

/// The most spans that are kept. When there are more, the two oldest are joined.
const MOST_SPANS: usize = 8;

/// One reading of Redis's clock: when the node asked, when Redis answered, and Redis's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    /// Redis's time, in milliseconds.
    pub(crate) time: u64,
}

/// Holds what a node knows of Redis's clock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerClock {
    base: Instant,
    trust: Duration,
    /// When the first reading was made.
    since: Option<Instant>,
    /// The spans, oldest first. The clock was steady within each span.
    spans: Vec<SteadySpan>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SteadySpan {
    offset: Offset,
    /// The clock may have kept this offset until then.
    until: Instant,
}

/// How far Redis's clock is ahead of the node's clock, in nanoseconds. It is a range, because Redis
/// read its clock at an unknown moment between the question and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Offset {
    least: i128,
    most: i128,
}

impl ServerClock {
    /// Returns the clock of a node that started at `base`, and whose trust lasts for `trust`.
    pub(crate) const fn new(base: Instant, trust: Duration) -> Self {
        Self {
            base,
            trust,
            since: None,
            spans: Vec::new(),
        }
    }

    /// Records a reading. Ignores it if its answer took longer than a quarter of `trust`, because
    /// such a reading is too vague.
    pub(crate) fn read(&mut self, reading: Reading) {
        let took = reading.answered.saturating_duration_since(reading.asked);
        if took > self.trust / 4 {
            return;
        }
        let now = reading.answered;
        self.since.get_or_insert(now);
        self.spans.retain(|span| now < span.until + KEPT);
        let offset = self.offset(reading);
        let most = (self.trust / 2).as_nanos();
        if let Some(last) = self.spans.last_mut() {
            // If the clock has stepped, it may have done so as late as now.
            last.until = now;
            let joined = last.offset.joined(offset);
            if joined.width() <= most {
                last.offset = joined;
                return;
            }
        }
        if !kept(Rule::StepsBetweenHeartbeatsCount) {
            self.spans.clear();
        }
        self.spans.push(SteadySpan { offset, until: now });
        if self.spans.len() > MOST_SPANS {
            let oldest = self.spans.remove(0);
            self.spans[0].offset = self.spans[0].offset.joined(oldest.offset);
        }
    }

    /// Returns whether Redis's clock has stepped by less than `tolerance` in total, from `since`
    /// until this reading. Returns `false` if the clock was not known at `since`.
    pub(crate) fn is_steady(&self, reading: Reading, since: Instant, tolerance: Duration) -> bool {
        let is_known = self.since.is_some_and(|known| known <= since);
        let is_known = is_known || !kept(Rule::WaitWhenJustConnected);
        let Some(last) = self.spans.last().filter(|_| is_known) else {
            return false;
        };
        let recent = self.spans.iter().filter(|span| span.until > since);
        let offset = recent
            .map(|span| span.offset)
            .fold(self.offset(reading).joined(last.offset), Offset::joined);
        offset.width() < tolerance.as_nanos() || !kept(Rule::WaitWhenTheClockWasSet)
    }

    fn offset(&self, reading: Reading) -> Offset {
        const MILLI: i128 = 1_000_000;
        let ours = |at: Instant| {
            let since = at.saturating_duration_since(self.base).as_nanos();
            i128::try_from(since).unwrap_or(i128::MAX / 2)
        };
        // Redis truncates its time to milliseconds.
        let time = i128::from(reading.time) * MILLI;
        let ends = [
            time - ours(reading.answered),
            time + MILLI - ours(reading.asked),
        ];
        Offset {
            least: ends[0].min(ends[1]),
            most: ends[0].max(ends[1]),
        }
    }
}

impl Offset {
    fn joined(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }

    fn width(self) -> u128 {
        self.most.abs_diff(self.least)
    }
}

/// For the model: a node that compares only with the newest reading.
#[cfg(test)]
impl ServerClock {
    pub(super) fn forget_steps(&mut self) {
        let newest = self.spans.len().saturating_sub(1);
        self.spans.drain(..newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRUST: Duration = Duration::from_secs(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Returns a reading that was asked for at `at` ms of the node's life and took `took` ms.
    /// Redis's clock is `ahead` ms ahead.
    fn reading(base: Instant, at: u64, ahead: u64, took: u64) -> Reading {
        Reading {
            asked: base + ms(at),
            answered: base + ms(at + took),
            time: at + took / 2 + ahead,
        }
    }

    /// Makes a reading each half second, with the clock ahead by each of `aheads` in order. Returns
    /// whether the clock was steady in the two seconds before the last reading.
    fn is_steady(aheads: &[u64]) -> bool {
        let base = Instant::now();
        let mut clock = ServerClock::new(base, TRUST);
        let readings = aheads.iter().enumerate();
        let mut readings = readings.map(|(i, ahead)| reading(base, 500 * i as u64, *ahead, 2));
        for reading in readings.clone() {
            clock.read(reading);
        }
        let last = readings.next_back().unwrap();
        clock.is_steady(last, last.answered - TRUST, TRUST)
    }

    #[test]
    fn a_step_between_two_readings_is_remembered_until_all_earlier_trust_has_ended() {
        assert!(is_steady(&[9000; 8]));
        for step in [0, 12_000] {
            let stepped = |after| [vec![9000; 6], vec![step; after]].concat();
            for after in 1..=4 {
                assert!(!is_steady(&stepped(after)), "{after} readings ago");
            }
            assert!(is_steady(&stepped(5)), "the step is long ago");
        }
    }

    #[test]
    fn small_steps_add_up() {
        assert!(is_steady(&[0, 0, 0, 700, 700]));
        assert!(!is_steady(&[0, 0, 700, 1400, 2100]));
        assert!(
            !is_steady(&[0, 3000, 0, 0, 0]),
            "the clock stepped forward and back"
        );
    }

    #[test]
    fn a_clock_that_drifts_is_steady() {
        let base = Instant::now();
        let mut clock = ServerClock::new(base, TRUST);
        // Redis's clock gains a second per hour, and each answer takes up to a quarter of a second.
        for i in 0..20_000 {
            let reading = reading(base, 500 * i, i / 7, 250 * (i % 3) / 2);
            assert!(i < 10 || clock.is_steady(reading, reading.answered - TRUST, TRUST));
            clock.read(reading);
        }
    }

    #[test]
    fn an_answer_that_took_long_neither_proves_nor_hides_a_step() {
        let base = Instant::now();
        let mut clock = ServerClock::new(base, TRUST);
        let slow = reading(base, 0, 0, 1500);
        clock.read(slow);
        assert!(
            !clock.is_steady(slow, base, TRUST),
            "the clock is not known yet"
        );
        clock.read(reading(base, 2000, 0, 2));
        clock.read(reading(base, 2500, 0, 1500));
        let is_steady = |reading, since| clock.is_steady(reading, base + ms(since), TRUST);
        assert!(is_steady(reading(base, 4500, 0, 2), 2500));
        assert!(
            !is_steady(reading(base, 4500, 0, 2), 1500),
            "the clock was not known at that time"
        );
        // The clock stepped while the slow reading was under way.
        assert!(!is_steady(reading(base, 4500, 2500, 2), 2500));
        // A reading that itself took long may hide a step.
        assert!(!is_steady(reading(base, 4500, 0, 2100), 2500));
    }

    #[test]
    fn any_time_of_the_server_is_read_without_a_panic() {
        let base = Instant::now();
        let mut clock = ServerClock::new(base, TRUST);
        for i in 0..100 {
            let time = [0, u64::MAX, i * 1_000_000_000][i as usize % 3];
            let reading = Reading {
                time,
                ..reading(base, i, 0, 0)
            };
            clock.read(reading);
            assert!(clock.spans.len() <= MOST_SPANS);
            assert!(i == 0 || !clock.is_steady(reading, base, TRUST));
        }
    }

    proptest! {
        /// Checks that no reading since `since` differs by more than the tolerance while the clock
        /// counts as steady, however long the answers took.
        #[test]
        fn a_clock_that_counts_as_steady_was_steady(
            readings in prop::collection::vec((1..2000u64, 0..4000u64, 0..600u64), 2..40),
            window in 0..10_000u64,
        ) {
            let base = Instant::now();
            let mut clock = ServerClock::new(base, TRUST);
            let (mut at, mut taken) = (0, Vec::new());
            for (pause, ahead, took) in readings {
                at += pause;
                let reading = reading(base, at, ahead, took);
                at += took;
                let since = base + ms(at.saturating_sub(window));
                if clock.is_steady(reading, since, TRUST) {
                    for (answered, is_exact, other) in &taken {
                        if *answered > since && *is_exact {
                            prop_assert!(u64::abs_diff(*other, ahead) <= 2000);
                        }
                    }
                }
                clock.read(reading);
                taken.push((reading.answered, took <= 500, ahead));
            }
        }
    }
}
