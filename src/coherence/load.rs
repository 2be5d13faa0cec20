//! Decides the steps of a load: when it asks the shared tier and the backend, and what it may fill.

use super::lease::Grant;
use std::time::Duration;

/// Tracks a load that is under way. Its read stamps are taken after trust was seen, and before the
/// load begins. What the load reads may fill memory only under these stamps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Load {
    /// Whether only the backend's own answer counts.
    verified: bool,
    steal: bool,
    pauses: usize,
}

/// Says what a load does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LoadStep {
    /// Fetch from the shared tier, and fill memory with the result.
    LookUp,
    /// Ask for leases for the missing facts. With `steal`, Redis grants a lease in spite of an entry
    /// or of another load's lease, but never while a change is under way.
    Grant { steal: bool },
    /// Pause while another load fills, then fetch again.
    Pause(Duration),
    /// Answer: nothing is missing.
    Answer,
    /// Ask the backend, and fill under the leases that were granted.
    Ask,
}

/// Says what the backend answered about a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The fact is there.
    Yes,
    /// The fact is not there.
    No,
    /// The backend's call failed.
    Nothing,
}

/// Says what the load does about a fact at its end, after its callers have received the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FinishStep {
    /// Fill the shared tier under the lease. If that fill is accepted, fill memory too.
    Fill,
    /// Give the lease back.
    Release,
    /// Remove the fact from all tiers, on all nodes.
    Repair,
}

/// How long a load pauses for another load's fill, before each further look-up. After the last
/// pause the load asks the backend without a lease, and fills nothing.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
];

impl Load {
    pub(crate) const fn new(verified: bool) -> Self {
        Self {
            verified,
            steal: verified,
            pauses: 0,
        }
    }

    pub(crate) const fn is_verified(&self) -> bool {
        self.verified
    }

    pub(crate) const fn begin(&self) -> LoadStep {
        match self.verified {
            true => self.grant(),
            false => LoadStep::LookUp,
        }
    }

    const fn grant(&self) -> LoadStep {
        LoadStep::Grant { steal: self.steal }
    }

    /// Continues after the shared tier was asked.
    pub(crate) const fn looked_up(&self, nothing_is_missing: bool) -> LoadStep {
        match nothing_is_missing {
            true => LoadStep::Answer,
            false => self.grant(),
        }
    }

    /// Continues after the connection broke before the shared tier had answered. The entry may be
    /// too large to be read, so the load replaces it.
    pub(crate) const fn broken(&mut self) -> LoadStep {
        self.steal = true;
        self.grant()
    }

    /// Continues after the leases were asked for. `grants` is empty if the shared tier could not be
    /// asked.
    pub(crate) fn granted(&mut self, grants: &[Grant]) -> LoadStep {
        if self.verified {
            return LoadStep::Ask;
        }
        if grants.contains(&Grant::Wait) {
            self.pauses += 1;
            let pause = PAUSES.get(self.pauses - 1);
            return pause.copied().map_or(LoadStep::Ask, LoadStep::Pause);
        }
        if grants.contains(&Grant::Hit) {
            // If the next look-up cannot read the entry either, the load replaces it.
            self.steal = true;
            return LoadStep::LookUp;
        }
        LoadStep::Ask
    }

    /// Returns what to do about a fact, after this verdict of the backend.
    pub(crate) const fn finish(&self, verdict: Verdict) -> FinishStep {
        match verdict {
            Verdict::Yes => FinishStep::Fill,
            // A verified load did not ask the tiers, so a tier may hold the fact. Any other load
            // has found no entry there.
            Verdict::No if self.verified => FinishStep::Repair,
            Verdict::No | Verdict::Nothing => FinishStep::Release,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_load_looks_again_a_few_times_and_then_asks_the_backend_without_a_lease() {
        let mut load = Load::new(false);
        assert_eq!(load.begin(), LoadStep::LookUp);
        for pause in PAUSES {
            assert_eq!(load.looked_up(false), LoadStep::Grant { steal: false });
            assert_eq!(load.granted(&[Grant::Wait]), LoadStep::Pause(pause));
        }
        assert_eq!(load.granted(&[Grant::Wait]), LoadStep::Ask);
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_replaced() {
        let mut load = Load::new(false);
        assert_eq!(load.granted(&[Grant::Hit]), LoadStep::LookUp);
        assert_eq!(load.looked_up(false), LoadStep::Grant { steal: true });
        assert_eq!(load.granted(&[Grant::Granted]), LoadStep::Ask);
    }

    #[test]
    fn a_load_waits_neither_for_a_change_nor_for_a_silent_server() {
        for grants in [&[Grant::Blocked][..], &[]] {
            assert_eq!(Load::new(false).granted(grants), LoadStep::Ask);
        }
    }

    #[test]
    fn a_verified_load_asks_no_tier_and_repairs() {
        let mut load = Load::new(true);
        assert_eq!(load.begin(), LoadStep::Grant { steal: true });
        assert_eq!(load.granted(&[Grant::Blocked]), LoadStep::Ask);
        assert_eq!(load.finish(Verdict::No), FinishStep::Repair);
        assert_eq!(load.finish(Verdict::Nothing), FinishStep::Release);
        assert_eq!(Load::new(false).finish(Verdict::No), FinishStep::Release);
    }
}
