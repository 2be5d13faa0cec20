//! A change: how it goes around the backend's own call.
//!
//! What is cached is taken away, and the other nodes are told, before the backend is touched: whoever
//! dies then leaves nothing behind that is old. It is kept away until the backend's call is known to
//! be over; the other nodes are waited for beside the call.

use super::lease::Ended;
use super::through::Through;

/// What to do with a change while Redis cannot be told of it.
///
/// A *removal* takes something away: a delete, an unlink, a rename away from a path, a
/// [`remove`](crate::LayerInfoCache::remove). A *creation* writes: a put or a copy, a link, a mount, the
/// completion of a multipart upload, a rename to a path.
///
/// | | a creation without Redis | a removal without Redis |
/// |---|---|---|
/// | [`StrictRemovals`](Self::StrictRemovals), the default | is made | is refused |
/// | [`Strict`](Self::Strict) | is refused | is refused |
/// | [`BestEffort`](Self::BestEffort) | is made | is made |
///
/// A change that is refused has changed nothing, and its error is
/// [retryable](crate::Error::is_retryable). A change that is made without Redis is remembered by this
/// node, which asks Redis nothing until it has taken the keys away and all other nodes have forgotten
/// them. [`guide::coherence`](crate::guide::coherence) has what others may see until then.
///
/// ```
/// use layercache::ChangePolicy;
///
/// assert_eq!(ChangePolicy::default(), ChangePolicy::StrictRemovals);
/// // `RedisConfig::with_change_policy` takes it.
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangePolicy {
    /// A removal is refused ([`Error::ChangeRefused`](crate::Error::ChangeRefused)), a creation is made: an
    /// answer from before a creation is an older time or `ETag` of the same content at worst, one from
    /// before a removal is what nobody may read any more.
    #[default]
    StrictRemovals,
    /// Both are refused.
    Strict,
    /// Both are made. Until the others have forgotten them they may answer what was removed; if this
    /// node dies first, until the time to live ends.
    BestEffort,
}

/// What a change does, as far as it decides what happens without Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ChangeKind {
    /// It writes something.
    Creation,
    /// It takes something away.
    Removal,
}

impl ChangePolicy {
    /// Whether a change is made where Redis cannot be told of it.
    pub(crate) const fn goes_on(self, kind: ChangeKind) -> bool {
        match (self, kind) {
            (Self::BestEffort, _) | (Self::StrictRemovals, ChangeKind::Creation) => true,
            (Self::Strict, _) | (Self::StrictRemovals, ChangeKind::Removal) => false,
        }
    }
}

/// A change that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    /// Whether it is made where Redis cannot be told of it.
    goes_on: bool,
    /// The connections that `BEGIN` went through.
    through: Option<Through>,
    /// Whether the others have to be told once more.
    tells_again: bool,
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
    /// Take entry, lease and the fence away, after the call.
    End,
    /// Ask whether the servers that were told of the end were the primaries still: a node that has
    /// moved to another one would not have heard of the change.
    Confirm,
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

impl Change {
    pub(crate) const fn new(policy: ChangePolicy, kind: ChangeKind) -> Self {
        Self {
            goes_on: policy.goes_on(kind),
            through: None,
            tells_again: false,
        }
    }

    #[cfg(test)]
    pub(super) const fn through(&self) -> Option<&Through> {
        self.through.as_ref()
    }

    pub(crate) const fn first(&self) -> Step {
        Step::Begin
    }

    /// Whether it is made where Redis cannot be told of it.
    pub(crate) const fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// `BEGIN` was executed, through these connections; or `None`, and it may be executed later: then
    /// there may be time to try again.
    pub(crate) fn begun(&mut self, through: Option<Through>, again: bool) -> Step {
        self.through = through;
        match (&self.through, again) {
            (Some(_), _) => Step::Publish,
            (None, true) => Step::Begin,
            (None, false) => self.without_redis(),
        }
    }

    /// The keys are published, or that failed.
    pub(crate) fn published(&mut self, published: bool) -> Step {
        match published {
            true => Step::Call { fenced: true },
            false => self.without_redis(),
        }
    }

    fn without_redis(&mut self) -> Step {
        self.through = None;
        match self.goes_on {
            true => Step::Call { fenced: false },
            false => Step::Over(Verdict::Refused),
        }
    }

    /// The call is over, and so is the waiting.
    pub(crate) const fn called(&self, outcome: Outcome) -> Step {
        match (outcome, &self.through) {
            (_, None) => Step::Over(Verdict::Owed),
            (Outcome::Unknown, _) => Step::Over(Verdict::Open),
            (Outcome::Written | Outcome::Over | Outcome::Nothing, _) => Step::End,
        }
    }

    /// `END` was executed, through these connections; or `None`, and it may be executed later: then there
    /// may be time to try again. Another connection counts as a fence that was lost.
    ///
    /// A change that is made without Redis, too, needs no confirmation.
    pub(crate) fn ended(&mut self, ended: Option<(Ended, &Through)>, again: bool) -> Step {
        let Some((ended, after)) = ended else {
            return match again {
                true => Step::End,
                false => Step::Over(Verdict::Owed),
            };
        };
        let is_same = self
            .through
            .as_ref()
            .is_some_and(|before| before.is_same(after));
        self.tells_again |= !(ended.stood && is_same);
        match self.goes_on {
            true => self.confirmed(Some(true)),
            false => Step::Confirm,
        }
    }

    /// Whether the servers were the primaries still after `END` was executed; or `None`, and nobody
    /// knows. Where others are it now, they are told of the end, too.
    pub(crate) const fn confirmed(&self, stayed: Option<bool>) -> Step {
        match stayed {
            Some(true) if self.tells_again => Step::Tell,
            Some(true) => Step::Over(Verdict::Done),
            Some(false) => Step::End,
            None => Step::Over(Verdict::Owed),
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

    const STRICT: ChangePolicy = ChangePolicy::Strict;
    const KINDS: [ChangeKind; 2] = [ChangeKind::Creation, ChangeKind::Removal];

    fn published() -> Change {
        let mut change = Change::new(STRICT, ChangeKind::Creation);
        assert_eq!(change.first(), Step::Begin);
        assert_eq!(change.begun(Some(Through::one(1)), false), Step::Publish);
        assert_eq!(change.published(true), Step::Call { fenced: true });
        change
    }

    #[test]
    fn a_change_that_nothing_disturbs() {
        let mut change = published();
        assert_eq!(change.called(Outcome::Over), Step::End);
        let ended = change.ended(Some((STOOD, &Through::one(1))), false);
        assert_eq!(ended, Step::Confirm);
        assert_eq!(change.confirmed(Some(true)), Step::Over(Verdict::Done));
    }

    #[test]
    fn only_a_change_that_redis_may_refuse_is_confirmed() {
        use ChangePolicy::{BestEffort, Strict, StrictRemovals};
        for (policy, confirms) in [
            (StrictRemovals, [false, true]),
            (Strict, [true, true]),
            (BestEffort, [false, false]),
        ] {
            for (kind, confirms) in KINDS.into_iter().zip(confirms) {
                let mut change = Change::new(policy, kind);
                change.begun(Some(Through::one(1)), false);
                let ended = change.ended(Some((STOOD, &Through::one(1))), false);
                assert_eq!(ended == Step::Confirm, confirms, "{policy:?} {kind:?}");
            }
        }
    }

    #[test]
    fn an_end_at_a_server_that_was_replaced_is_made_again_and_told_again() {
        let mut change = published();
        for number in [1, 2] {
            let ended = change.ended(Some((STOOD, &Through::one(number))), false);
            assert_eq!(ended, Step::Confirm);
            assert_eq!(change.confirmed(Some(false)), Step::End);
        }
        change.ended(Some((STOOD, &Through::one(1))), false);
        assert_eq!(change.confirmed(Some(true)), Step::Tell);
        assert_eq!(change.confirmed(None), Step::Over(Verdict::Owed));
    }

    #[test]
    fn a_fence_that_was_gone_is_told_once_more() {
        let gone = Ended {
            stood: false,
            ..STOOD
        };
        for (ended, through) in [(gone, 1), (STOOD, 2)] {
            let mut change = published();
            change.called(Outcome::Over);
            change.ended(Some((ended, &Through::one(through))), false);
            assert_eq!(change.confirmed(Some(true)), Step::Tell, "{ended:?}");
            assert_eq!(change.told_again(true), Step::Over(Verdict::Done));
            assert_eq!(change.told_again(false), Step::Over(Verdict::Owed));
        }
    }

    #[test]
    fn what_may_still_happen_has_no_end() {
        let change = published();
        assert_eq!(change.called(Outcome::Unknown), Step::Over(Verdict::Open));
    }

    #[test]
    fn without_redis_removals_are_strict_and_creations_go_on() {
        use ChangePolicy::{BestEffort, Strict, StrictRemovals};
        for (policy, makes) in [
            (StrictRemovals, [true, false]),
            (Strict, [false, false]),
            (BestEffort, [true, true]),
        ] {
            for (kind, makes) in KINDS.into_iter().zip(makes) {
                let last = match makes {
                    true => Step::Call { fenced: false },
                    false => Step::Over(Verdict::Refused),
                };
                let mut unbegun = Change::new(policy, kind);
                assert_eq!(unbegun.begun(None, true), Step::Begin);
                assert_eq!(unbegun.begun(None, false), last, "{policy:?} {kind:?}");
                let mut unpublished = Change::new(policy, kind);
                unpublished.begun(Some(Through::one(1)), false);
                assert_eq!(unpublished.published(false), last, "{policy:?} {kind:?}");
                for change in [&mut unbegun, &mut unpublished] {
                    assert_eq!(change.called(Outcome::Over), Step::Over(Verdict::Owed));
                }
            }
        }
    }

    #[test]
    fn an_end_that_is_lost_is_tried_again_while_there_is_time_and_then_owed() {
        let mut change = published();
        change.called(Outcome::Over);
        assert_eq!(change.ended(None, true), Step::End);
        assert_eq!(change.ended(None, false), Step::Over(Verdict::Owed));
    }
}
