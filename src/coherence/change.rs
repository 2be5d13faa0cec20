//! A change: how it goes around the backend's own call.
//!
//! What is cached is taken away, and the other nodes are told, before the backend is touched: whoever
//! dies then leaves nothing behind that is old. It is kept away until the backend's call is known to
//! be over; the other nodes are waited for beside the call.

use super::lease::Ended;

/// What to do with a change while what caches hold of it cannot be taken away first.
///
/// ```
/// use layercache::ChangePolicy;
///
/// assert_eq!(ChangePolicy::default(), ChangePolicy::Strict);
/// // `RedisConfig::with_change_policy` takes it.
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ChangePolicy {
    /// Refuse it: nothing is changed, and the caller is told so
    /// ([`Error::ChangeRefused`](crate::Error::ChangeRefused)).
    #[default]
    Strict,
    /// Make it all the same. This node remembers what it owes, and asks Redis nothing until it has
    /// taken that away and all others have forgotten it. Until then the others may answer what was
    /// before; if this node dies first, until the time to live ends.
    BestEffort,
}

/// A change that is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    policy: ChangePolicy,
    tries: u8,
    /// The connection that `BEGIN` went through.
    session: Option<u64>,
    refused: bool,
}

/// What a change does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Take entry and lease away and put up the fence, with a fresh token: one that was tried
    /// before may be executed late, and would hide that its fence was gone in between.
    Begin,
    /// Publish the keys: nobody answers what was before once all have acknowledged that.
    Publish,
    /// Call the backend and, if something was published, wait for the others beside it.
    Call { fenced: bool },
    /// Take entry, lease and the fence away, after a call or because there will be none.
    End,
    /// Publish once more, and wait: while the fence was gone somebody may have read what was before.
    Tell,
    /// It is over.
    Over(Verdict),
}

/// What the backend's call has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It is over, and has written what the cache may be filled with.
    Written,
    /// It is over, whatever it did.
    Over,
    /// It is over, and has changed nothing.
    Nothing,
    /// It may still happen.
    Unknown,
}

/// How a change was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The backend was not touched.
    Refused,
    /// No node answers what was before.
    Done,
    /// The call may still happen: the fence stays, and lapses by itself.
    Open,
    /// It was made, and what caches hold of it has still to be taken away.
    Owed,
}

/// How often `BEGIN` is tried.
const TRIES: u8 = 3;

impl Change {
    pub(crate) const fn new(policy: ChangePolicy) -> Self {
        Self {
            policy,
            tries: 0,
            session: None,
            refused: false,
        }
    }

    #[cfg(test)]
    pub(super) const fn session(&self) -> Option<u64> {
        self.session
    }

    pub(crate) const fn first(&self) -> Step {
        Step::Begin
    }

    /// `BEGIN` was executed, through this connection at the latest; or `None`, and it may be
    /// executed later.
    pub(crate) fn begun(&mut self, session: Option<u64>) -> Step {
        self.session = session;
        self.tries += 1;
        match (session, self.policy) {
            (Some(_), _) => Step::Publish,
            (None, _) if self.tries < TRIES => Step::Begin,
            (None, ChangePolicy::Strict) => Step::Over(Verdict::Refused),
            (None, ChangePolicy::BestEffort) => Step::Call { fenced: false },
        }
    }

    /// The keys are published, or that failed.
    pub(crate) const fn published(&mut self, published: bool) -> Step {
        match (published, self.policy) {
            (true, _) => Step::Call { fenced: true },
            (false, ChangePolicy::Strict) => {
                self.refused = true;
                Step::End
            }
            (false, ChangePolicy::BestEffort) => {
                self.session = None;
                Step::Call { fenced: false }
            }
        }
    }

    /// The call is over, and so is the waiting.
    pub(crate) const fn called(&mut self, outcome: Outcome) -> Step {
        match (outcome, self.session) {
            (_, None) => Step::Over(Verdict::Owed),
            (Outcome::Unknown, _) => Step::Over(Verdict::Open),
            (Outcome::Written | Outcome::Over | Outcome::Nothing, _) => Step::End,
        }
    }

    /// `END` was executed, through this connection at the earliest; or `None`, and it may be
    /// executed later. Another connection counts as a fence that was lost.
    pub(crate) fn ended(&self, ended: Option<(Ended, u64)>) -> Step {
        match ended {
            _ if self.refused => Step::Over(Verdict::Refused),
            None => Step::Over(Verdict::Owed),
            Some((Ended { stood: true, .. }, session)) if self.session == Some(session) => {
                Step::Over(Verdict::Done)
            }
            Some(_) => Step::Tell,
        }
    }

    /// The others have been told once more, or not.
    pub(crate) const fn told_again(&self, told: bool) -> Step {
        Step::Over(match told {
            true => Verdict::Done,
            false => Verdict::Owed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOOD: Ended = Ended {
        stood: true,
        filled: false,
    };

    fn published(policy: ChangePolicy) -> Change {
        let mut change = Change::new(policy);
        assert_eq!(change.first(), Step::Begin);
        assert_eq!(change.begun(Some(1)), Step::Publish);
        assert_eq!(change.published(true), Step::Call { fenced: true });
        change
    }

    #[test]
    fn a_change_that_nothing_disturbs() {
        let mut change = published(ChangePolicy::Strict);
        assert_eq!(change.called(Outcome::Over), Step::End);
        assert_eq!(change.ended(Some((STOOD, 1))), Step::Over(Verdict::Done));
    }

    #[test]
    fn a_fence_that_was_gone_is_told_once_more() {
        let gone = Ended {
            stood: false,
            ..STOOD
        };
        for ended in [(gone, 1), (STOOD, 2)] {
            let mut change = published(ChangePolicy::Strict);
            change.called(Outcome::Over);
            assert_eq!(change.ended(Some(ended)), Step::Tell, "{ended:?}");
            assert_eq!(change.told_again(true), Step::Over(Verdict::Done));
            assert_eq!(change.told_again(false), Step::Over(Verdict::Owed));
        }
    }

    #[test]
    fn what_may_still_happen_has_no_end() {
        let mut change = published(ChangePolicy::Strict);
        assert_eq!(change.called(Outcome::Unknown), Step::Over(Verdict::Open));
    }

    #[test]
    fn without_redis_a_change_is_refused_or_owed() {
        for (policy, last) in [
            (ChangePolicy::Strict, Step::Over(Verdict::Refused)),
            (ChangePolicy::BestEffort, Step::Call { fenced: false }),
        ] {
            let mut change = Change::new(policy);
            for _ in 1..TRIES {
                assert_eq!(change.begun(None), Step::Begin);
            }
            assert_eq!(change.begun(None), last);
            assert_eq!(change.called(Outcome::Over), Step::Over(Verdict::Owed));
        }
    }

    #[test]
    fn what_cannot_be_published_is_refused_and_ended_or_owed() {
        let mut strict = Change::new(ChangePolicy::Strict);
        strict.begun(Some(1));
        assert_eq!(strict.published(false), Step::End);
        assert_eq!(strict.ended(None), Step::Over(Verdict::Refused));
        let mut best = Change::new(ChangePolicy::BestEffort);
        best.begun(Some(1));
        assert_eq!(best.published(false), Step::Call { fenced: false });
        assert_eq!(best.called(Outcome::Over), Step::Over(Verdict::Owed));
    }

    #[test]
    fn an_end_that_is_lost_is_owed() {
        let mut change = published(ChangePolicy::Strict);
        change.called(Outcome::Over);
        assert_eq!(change.ended(None), Step::Over(Verdict::Owed));
    }
}
