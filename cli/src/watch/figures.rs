//! Which figures describe a node. They are computed from two samples of its metrics, or from one
//! sample for the whole time since its start.

use super::parse::Series;
use serde::Serialize;

/// The counts of one node, or of several together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    /// Hits and all look-ups, in this order: memberships in memory, memberships in Redis, metadata
    /// in memory, metadata in Redis.
    look_ups: [Option<(f64, f64)>; 4],
    loads: Option<f64>,
    fenced: Option<f64>,
    invalidations: Option<f64>,
    limit_hits: Option<f64>,
    /// The number of caches, and in `trusted` the number of those whose memory may answer.
    caches: Option<f64>,
    trusted: Option<f64>,
    /// Connections to Redis: those whose breaker is open, and all of them.
    breakers: Option<(f64, f64)>,
}

/// The figures that are shown. A figure that a node does not report is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Share of hits among the look-ups of a tier, from 0 to 1.
    pub(super) memory_membership: Option<f64>,
    pub(super) memory_meta: Option<f64>,
    pub(super) redis_membership: Option<f64>,
    pub(super) redis_meta: Option<f64>,
    /// Questions per second. With one sample only, all questions since the node started.
    pub(super) asked: Option<f64>,
    /// Loads that asked the backend, counted like `asked`.
    pub(super) loads: Option<f64>,
    /// Fills that were refused because of a change: races that the cache has caught.
    pub(super) fenced: Option<f64>,
    pub(super) invalidations: Option<f64>,
    pub(super) limit_hits: Option<f64>,
    /// Whether the memory of every cache may answer.
    pub(super) trusted: Option<bool>,
    /// Whether the breaker of at least one connection is open, so that Redis is not asked there.
    pub(super) breaker_open: Option<bool>,
}

/// The tiers and facts of [`Counts::look_ups`].
const LOOK_UPS: [(&str, &str); 4] = [
    ("memory", "membership"),
    ("redis", "membership"),
    ("memory", "meta"),
    ("redis", "meta"),
];

impl Counts {
    pub(super) fn read(series: &[Series]) -> Self {
        let sum = |name: &str, wanted: &[(&str, &str)]| {
            let has = |one: &Series, (name, value): &(&str, &str)| {
                let mut labels = one.labels.iter();
                labels.any(|(n, v)| n == name && v == value)
            };
            let meant =
                |one: &&Series| one.name == name && wanted.iter().all(|label| has(one, label));
            let mut values = series.iter().filter(meant).map(|one| one.value).peekable();
            values.peek().is_some().then(|| values.sum::<f64>())
        };
        Self {
            look_ups: LOOK_UPS.map(|(tier, fact)| {
                let labels = [("tier", tier), ("fact", fact)];
                let all = sum("layercache_lookups_total", &labels)?;
                let hit = [labels[0], labels[1], ("result", "hit")];
                Some((sum("layercache_lookups_total", &hit)?, all))
            }),
            loads: sum("layercache_backend_loads_total", &[]),
            fenced: sum("layercache_fills_total", &[("result", "fenced")]),
            invalidations: sum("layercache_invalidations_total", &[]),
            limit_hits: sum("layercache_limit_hits_total", &[]),
            caches: sum("layercache_caches", &[]),
            trusted: sum("layercache_memory_trusted", &[]),
            breakers: sum("layercache_redis_breakers", &[]).map(|all| {
                let open = sum("layercache_redis_breakers", &[("state", "open")]);
                (open.unwrap_or(0.0), all)
            }),
        }
    }

    /// Whether the metrics hold no count of a cache.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the counts since `before`. A count that is lower than before comes from a process
    /// that has restarted, so all of it is new.
    pub(super) fn since(&self, before: &Self) -> Self {
        let less = |now: f64, before: f64| if now < before { now } else { now - before };
        let both =
            |now: Option<f64>, before: Option<f64>| now.map(|now| less(now, before.unwrap_or(0.0)));
        let mut look_ups = self.look_ups;
        for (now, before) in look_ups.iter_mut().zip(before.look_ups) {
            if let (Some((hit, all)), Some((hit_before, all_before))) = (now, before) {
                // Subtracts from both counts or from neither, because their ratio would be wrong
                // otherwise.
                if *all >= all_before && *hit >= hit_before {
                    (*hit, *all) = (*hit - hit_before, *all - all_before);
                }
            }
        }
        Self {
            look_ups,
            loads: both(self.loads, before.loads),
            fenced: both(self.fenced, before.fenced),
            invalidations: both(self.invalidations, before.invalidations),
            limit_hits: both(self.limit_hits, before.limit_hits),
            ..self.clone()
        }
    }

    /// Adds up the counts of several nodes.
    pub(super) fn together<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        all.fold(Self::default(), |sum, one| sum.plus(one))
    }

    fn plus(&self, other: &Self) -> Self {
        let one = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        let two = |a: Option<(f64, f64)>, b: Option<(f64, f64)>| match (a, b) {
            (Some(a), Some(b)) => Some((a.0 + b.0, a.1 + b.1)),
            (a, b) => a.or(b),
        };
        let mut look_ups = self.look_ups;
        for (sum, other) in look_ups.iter_mut().zip(other.look_ups) {
            *sum = two(*sum, other);
        }
        Self {
            look_ups,
            loads: one(self.loads, other.loads),
            fenced: one(self.fenced, other.fenced),
            invalidations: one(self.invalidations, other.invalidations),
            limit_hits: one(self.limit_hits, other.limit_hits),
            caches: one(self.caches, other.caches),
            trusted: one(self.trusted, other.trusted),
            breakers: two(self.breakers, other.breakers),
        }
    }

    /// Returns the figures for a span of `seconds`, or for the whole time if there is none.
    pub(super) fn figures(&self, seconds: Option<f64>) -> Figures {
        let seconds = seconds.unwrap_or(1.0).max(f64::MIN_POSITIVE);
        let rate = |count: Option<f64>| count.map(|count| count / seconds);
        let [membership, redis_membership, meta, redis_meta] = self.look_ups;
        let ratio = |look_ups: Option<(f64, f64)>| {
            let (hit, all) = look_ups?;
            (all > 0.0).then_some(hit / all)
        };
        let count = |look_ups: Option<(f64, f64)>| look_ups.map(|(_, all)| all);
        Figures {
            memory_membership: ratio(membership),
            memory_meta: ratio(meta),
            redis_membership: ratio(redis_membership),
            redis_meta: ratio(redis_meta),
            // Most questions ask for both facts.
            asked: rate(match (count(membership), count(meta)) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            }),
            loads: rate(self.loads),
            fenced: rate(self.fenced),
            invalidations: rate(self.invalidations),
            limit_hits: rate(self.limit_hits),
            trusted: self
                .caches
                .zip(self.trusted)
                .map(|(caches, trusted)| trusted >= caches),
            breaker_open: self.breakers.map(|(open, _)| open > 0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn counts(hits: u32, misses: u32, loads: u32) -> Counts {
        let text = format!(
            "layercache_lookups_total{{fact=\"meta\",tier=\"memory\",result=\"hit\"}} {hits}\n\
             layercache_lookups_total{{fact=\"meta\",tier=\"memory\",result=\"miss\"}} {misses}\n\
             layercache_backend_loads_total{{result=\"found\"}} {loads}\n\
             layercache_caches 1\nlayercache_memory_trusted 1\n\
             layercache_redis_breakers{{state=\"open\"}} 0\nlayercache_redis_breakers{{state=\"closed\"}} 1\n"
        );
        Counts::read(&parse(&text).unwrap())
    }

    #[test]
    fn figures_cover_the_time_between_two_samples() {
        let figures = counts(90, 10, 20)
            .since(&counts(15, 5, 10))
            .figures(Some(5.0));
        assert_eq!(figures.memory_meta, Some(75.0 / 80.0));
        assert_eq!((figures.asked, figures.loads), (Some(16.0), Some(2.0)));
        assert_eq!(
            (figures.trusted, figures.breaker_open),
            (Some(true), Some(false))
        );
        assert_eq!(
            (figures.redis_meta, figures.fenced),
            (None, None),
            "the metrics do not have them"
        );
    }

    #[test]
    fn the_counts_of_a_restarted_process_begin_at_zero() {
        let figures = counts(3, 1, 2)
            .since(&counts(90, 10, 20))
            .figures(Some(1.0));
        assert_eq!(
            (figures.memory_meta, figures.asked),
            (Some(0.75), Some(4.0))
        );
        assert_eq!(figures.loads, Some(2.0));
    }

    #[test]
    fn the_counts_of_nodes_add_up() {
        let all = [counts(90, 10, 1), counts(0, 100, 2), Counts::default()];
        let figures = Counts::together(all.iter()).figures(None);
        assert_eq!(
            (figures.memory_meta, figures.loads),
            (Some(0.45), Some(3.0))
        );
        assert!(Counts::default().is_empty() && !all[0].is_empty());
    }
}
