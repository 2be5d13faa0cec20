//! The metrics of the verifier.

use super::{limit_hits, table};
use metrics::{Counter, counter};

/// The tier that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Memory,
    Redis,
}

impl Tier {
    const ALL: [Self; 2] = [Self::Memory, Self::Redis];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

/// Counts the verdicts of the verifier.
#[derive(Debug)]
pub(crate) struct Verdicts {
    pub(crate) ok: Counter,
    pub(crate) stale: Counter,
    pub(crate) unknown: Counter,
}

type ByTier = [Verdicts; Tier::ALL.len()];

#[derive(Debug)]
pub(crate) struct Verifications {
    hits: ByTier,
    deletes: [ByTier; Self::AGES.len()],
    /// Samples that were dropped because there was no room.
    pub(crate) dropped: Counter,
}

impl Verifications {
    /// How long after a delete the verifier looks into the tiers.
    pub(crate) const AGES: [&'static str; 3] = ["0.1s", "1s", "60s"];

    pub(crate) fn new() -> Self {
        Self {
            hits: by_tier(None, "0s"),
            deletes: std::array::from_fn(|age| by_tier(Some(age), Self::AGES[age])),
            dropped: limit_hits("verifier"),
        }
    }

    /// Returns the verdicts on hits, or on deletes of this age.
    pub(crate) fn of(&self, age: Option<usize>, tier: Tier) -> &Verdicts {
        let by_tier = age.map_or(&self.hits, |age| &self.deletes[age]);
        &by_tier[tier as usize]
    }

    pub(crate) const fn cause(age: Option<usize>) -> &'static str {
        match age {
            None => "hit",
            Some(_) => "delete",
        }
    }
}

fn by_tier(age: Option<usize>, label: &'static str) -> ByTier {
    let cause = Verifications::cause(age);
    Tier::ALL.map(|tier| {
        let verdict = |result: &'static str| {
            counter!(table::VERIFICATIONS, "cause" => cause, "age" => label, "tier" => tier.name(), "result" => result)
        };
        Verdicts {
            ok: verdict("ok"),
            stale: verdict("stale"),
            unknown: verdict("unknown"),
        }
    })
}
