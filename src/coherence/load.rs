//! A load: how a question goes through the shared tier to the backend, and what may be filled.

use super::lease::Grant;
use std::time::Duration;

/// A load that is under way. Before it begins its rights are taken, after trust was seen; whatever
/// it reads may fill memory under these rights alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Load {
    /// Whether only the backend's own answer will do.
    verified: bool,
    steal: bool,
    pauses: usize,
}

/// What a load does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Ask the shared tier; memory is filled with what it knows.
    LookUp,
    /// Ask for the leases to fill what is missing. With `steal`, an entry or somebody else's lease
    /// is no obstacle; a change that is under way always is.
    Grant { steal: bool },
    /// Let somebody else fill, and look again.
    Pause(Duration),
    /// Nothing is missing: answer.
    Answer,
    /// Ask the backend, and fill with the leases that were granted.
    Ask,
}

/// What the backend said of what a load was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    /// It is there.
    Yes,
    /// It is not there.
    No,
    /// It failed.
    Nothing,
}

/// What is done about a fact when the backend has answered, after the answer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Settlement {
    /// Fill the shared tier with the lease, and memory if that was accepted.
    Fill,
    /// Give the lease back.
    Release,
    /// Take it away everywhere.
    Heal,
}

/// How long one who waits for somebody else's fill pauses before it looks again; after the last it
/// asks the backend, without the right to fill.
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

    pub(crate) const fn begin(&self) -> Step {
        match self.verified {
            true => self.grant(),
            false => Step::LookUp,
        }
    }

    const fn grant(&self) -> Step {
        Step::Grant { steal: self.steal }
    }

    /// The shared tier was asked, and now nothing is missing, or something.
    pub(crate) const fn looked_up(&self, nothing_is_missing: bool) -> Step {
        match nothing_is_missing {
            true => Step::Answer,
            false => self.grant(),
        }
    }

    /// The connection broke before the shared tier had answered: what is there may be too large to be
    /// read, and has to be replaced.
    pub(crate) const fn broken(&mut self) -> Step {
        self.steal = true;
        self.grant()
    }

    /// What was said of the leases; nothing at all if the shared tier could not be asked.
    pub(crate) fn granted(&mut self, grants: &[Grant]) -> Step {
        if self.verified {
            return Step::Ask;
        }
        if grants.contains(&Grant::Wait) {
            self.pauses += 1;
            let pause = PAUSES.get(self.pauses - 1);
            return pause.copied().map_or(Step::Ask, Step::Pause);
        }
        if grants.contains(&Grant::Hit) {
            // What is there and is still not understood has to be replaced.
            self.steal = true;
            return Step::LookUp;
        }
        Step::Ask
    }

    /// What is done about a fact that the backend said this of.
    pub(crate) const fn settle(&self, said: Said) -> Settlement {
        match said {
            Said::Yes => Settlement::Fill,
            // What was verified to be absent may be in a tier; what was missed was not.
            Said::No if self.verified => Settlement::Heal,
            Said::No | Said::Nothing => Settlement::Release,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_waits_looks_again_a_few_times_and_then_asks_without_a_lease() {
        let mut load = Load::new(false);
        assert_eq!(load.begin(), Step::LookUp);
        for pause in PAUSES {
            assert_eq!(load.looked_up(false), Step::Grant { steal: false });
            assert_eq!(load.granted(&[Grant::Wait]), Step::Pause(pause));
        }
        assert_eq!(load.granted(&[Grant::Wait]), Step::Ask);
    }

    #[test]
    fn what_is_there_and_not_understood_is_replaced() {
        let mut load = Load::new(false);
        assert_eq!(load.granted(&[Grant::Hit]), Step::LookUp);
        assert_eq!(load.looked_up(false), Step::Grant { steal: true });
        assert_eq!(load.granted(&[Grant::Granted]), Step::Ask);
    }

    #[test]
    fn a_change_that_is_under_way_or_no_answer_is_no_reason_to_wait() {
        for grants in [&[Grant::Blocked][..], &[]] {
            assert_eq!(Load::new(false).granted(grants), Step::Ask);
        }
    }

    #[test]
    fn what_was_verified_asks_no_tier_and_heals() {
        let mut load = Load::new(true);
        assert_eq!(load.begin(), Step::Grant { steal: true });
        assert_eq!(load.granted(&[Grant::Blocked]), Step::Ask);
        assert_eq!(load.settle(Said::No), Settlement::Heal);
        assert_eq!(load.settle(Said::Nothing), Settlement::Release);
        assert_eq!(Load::new(false).settle(Said::No), Settlement::Release);
    }
}
