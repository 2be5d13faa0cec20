//! Decides the steps of a change, before and after the backend's own call.
//!
//! Before the node calls the backend, it removes the cached values and notifies the other nodes. If
//! the node dies at any point, no outdated value stays behind. A fence keeps the values out of the
//! cache until the backend's call is known to be over. The node awaits the other nodes'
//! acknowledgements while the call runs.

use super::lease::EndReply;
use super::rules::{Rule, kept};
use super::used_connections::UsedConnections;

/// Decides whether a change is made while Redis cannot be reached in time.
///
/// A *removal* removes something: a delete, an unlink, a rename away from a path, a
/// [`remove`](crate::LayerInfoCache::remove). A *creation* writes something: a put or a copy, a
/// link, a mount, the completion of a multipart upload, a rename to a path.
///
/// | | a creation without Redis | a removal without Redis |
/// |---|---|---|
/// | [`StrictRemovals`](Self::StrictRemovals), the default | is made | is refused |
/// | [`Strict`](Self::Strict) | is refused | is refused |
/// | [`BestEffort`](Self::BestEffort) | is made | is made |
///
/// A refused change has changed nothing, and its error is [retryable](crate::Error::is_retryable).
/// When this node makes a change without Redis, it keeps the keys in its retry queue. It reads
/// nothing from Redis until it has removed the keys there and all other nodes have dropped them
/// from memory. [`guide::coherence`](crate::guide::coherence) says what other nodes may answer
/// until then.
///
/// ```
/// use layercache::ChangePolicy;
///
/// assert_eq!(ChangePolicy::default(), ChangePolicy::StrictRemovals);
/// // Set it with `RedisConfig::with_change_policy`.
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangePolicy {
    /// Refuses removals ([`Error::ChangeRefused`](crate::Error::ChangeRefused)) and makes
    /// creations. After a creation without Redis, another node may answer with an older state of
    /// the object. After a removal without Redis, it would answer with something that no caller may
    /// read any more.
    #[default]
    StrictRemovals,
    /// Refuses both.
    Strict,
    /// Makes both. Other nodes may answer what was removed until they have dropped it from memory.
    /// If this node dies first, they may answer it until the time to live ends.
    BestEffort,
}

/// Tells a creation from a removal. [`ChangePolicy`] treats the two differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ChangeKind {
    /// The change writes something.
    Creation,
    /// The change removes something.
    Removal,
}

impl ChangePolicy {
    /// Returns whether a change of this kind is made while Redis cannot be reached.
    pub(crate) fn goes_on(self, kind: ChangeKind) -> bool {
        match (self, kind) {
            (Self::BestEffort, _) | (Self::StrictRemovals, ChangeKind::Creation) => true,
            (Self::StrictRemovals, ChangeKind::Removal) => !kept(Rule::RemovalsAreStrict),
            (Self::Strict, _) => false,
        }
    }
}

/// Tracks a change that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    /// Whether the change is made while Redis cannot be reached.
    goes_on: bool,
    /// The connections that `BEGIN` used, if it was executed.
    used: Option<UsedConnections>,
    /// Whether the other nodes have to be notified once more.
    publishes_again: bool,
    /// Whether the backend's call may still happen.
    is_open: bool,
}

/// Says what a change does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ChangeStep {
    /// Remove entry and lease, and set the fence with a new token. A token of an earlier try cannot
    /// be used again: that try may be executed late, and would then hide that its fence was gone in
    /// between.
    Begin,
    /// Publish the keys. Once every other node has acknowledged them or lost its trust, no node
    /// answers the old values.
    Publish,
    /// Call the backend. If the keys were published, await the other nodes meanwhile.
    Call { fenced: bool },
    /// Renew the fence for its whole TTL, because the call may still happen.
    Renew,
    /// Remove entry, lease and fence, after the call.
    End,
    /// Ask whether the servers that executed the last step are still the primaries. Otherwise a node
    /// that is connected to a new primary may not have received the published keys, and a fence may
    /// stand only at a server that no node uses any more.
    Confirm,
    /// Publish the keys once more, and await the other nodes. While the fence was gone, another
    /// node may have read the old value.
    PublishAgain,
    /// The change is over.
    Over(Conclusion),
}

/// Says what the backend's call has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The call is over, and the cache may be filled with what it wrote.
    Written,
    /// The call is over, and may have changed something.
    Over,
    /// The call is over, and has changed nothing.
    Nothing,
    /// The call may still happen.
    Unknown,
}

/// Says how a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Conclusion {
    /// The change was refused before the backend was called.
    Refused,
    /// The change is made, and no node answers the old value.
    Done,
    /// The call may still happen. The fence stays until it expires.
    Open,
    /// The change is made, or may still be made. Its keys still have to be removed from the caches,
    /// by the retry queue.
    Queued,
}

impl Change {
    pub(crate) fn new(policy: ChangePolicy, kind: ChangeKind) -> Self {
        Self {
            goes_on: policy.goes_on(kind),
            used: None,
            publishes_again: false,
            is_open: false,
        }
    }

    #[cfg(test)]
    pub(super) const fn used(&self) -> Option<&UsedConnections> {
        self.used.as_ref()
    }

    pub(crate) fn first(&self) -> ChangeStep {
        match kept(Rule::PublishAfterBegin) {
            true => ChangeStep::Begin,
            false => ChangeStep::Publish,
        }
    }

    /// Returns whether the change is made while Redis cannot be reached.
    pub(crate) const fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Continues after `BEGIN`. `used` has the connections of a `BEGIN` that was executed.
    /// `None` means that it failed, and may be executed later. `again` says whether there is time
    /// for another try.
    pub(crate) fn begun(&mut self, used: Option<UsedConnections>, again: bool) -> ChangeStep {
        self.used = used;
        self.publishes_again = self.is_open;
        let publishes = kept(Rule::PublishAfterBegin) && kept(Rule::PublishBeforeTheCall);
        match (&self.used, again) {
            (Some(_), _) if self.is_open => ChangeStep::Confirm,
            (Some(_), _) if publishes => ChangeStep::Publish,
            (Some(_), _) => ChangeStep::Call { fenced: true },
            (None, true) => ChangeStep::Begin,
            (None, false) if self.is_open => ChangeStep::Over(Conclusion::Queued),
            (None, false) => self.without_redis(),
        }
    }

    /// Continues after the keys were published, or after that failed.
    pub(crate) fn published(&mut self, published: bool) -> ChangeStep {
        match published {
            true if !kept(Rule::PublishAfterBegin) => ChangeStep::Begin,
            true => ChangeStep::Call { fenced: true },
            false => self.without_redis(),
        }
    }

    fn without_redis(&mut self) -> ChangeStep {
        self.used = None;
        match self.goes_on {
            true => ChangeStep::Call { fenced: false },
            false => ChangeStep::Over(Conclusion::Refused),
        }
    }

    /// Continues after the backend's call, and after the other nodes were awaited.
    pub(crate) fn called(&mut self, outcome: Outcome) -> ChangeStep {
        self.is_open = outcome == Outcome::Unknown && kept(Rule::NoEndWhileTheCallMayHappen);
        match (self.is_open, &self.used) {
            (_, None) => ChangeStep::Over(Conclusion::Queued),
            (true, Some(_)) => ChangeStep::Renew,
            (false, Some(_)) => ChangeStep::End,
        }
    }

    /// Continues after the fence was renewed. `stood` says whether it still stood. `None` means that
    /// the renewal failed. `again` says whether there is time for another try. If the fence was
    /// lost, the change begins once more, without another call.
    pub(crate) fn renewed(&mut self, stood: Option<bool>, again: bool) -> ChangeStep {
        // Through a recent connection, other nodes may not have received the published keys.
        let used = self.used.as_ref();
        self.publishes_again = !used.is_some_and(|used| used.is_same(used));
        match stood {
            _ if !kept(Rule::AnOpenChangeIsConfirmed) => ChangeStep::Over(Conclusion::Open),
            Some(true) => ChangeStep::Confirm,
            Some(false) => ChangeStep::Begin,
            None if again => ChangeStep::Renew,
            None => ChangeStep::Over(Conclusion::Queued),
        }
    }

    /// Continues after `END`. `ended` has the reply and the connections of an `END` that was
    /// executed. `None` means that it failed, and may be executed later. `again` says whether there
    /// is time for another try. If the connections differ from those of `BEGIN`, the fence counts
    /// as lost.
    pub(crate) fn ended(
        &mut self,
        ended: Option<(EndReply, &UsedConnections)>,
        again: bool,
    ) -> ChangeStep {
        let Some((ended, after)) = ended else {
            return match again {
                true => ChangeStep::End,
                false => ChangeStep::Over(Conclusion::Queued),
            };
        };
        let is_same = self
            .used
            .as_ref()
            .is_some_and(|before| before.is_same(after));
        let is_same = is_same || !kept(Rule::AnotherConnectionIsALostFence);
        let is_published = kept(Rule::PublishBeforeTheCall);
        self.publishes_again |= !(ended.stood && is_same && is_published);
        match kept(Rule::EndIsConfirmed) {
            true => ChangeStep::Confirm,
            false => self.confirmed(Some(true)),
        }
    }

    /// Continues after the confirmation. `stayed` says whether the servers were still the primaries
    /// after the last step. `None` means that the node could not find out. If other servers are the
    /// primaries now, the change sends `END` to them too. If its call may still happen, it begins
    /// once more instead.
    pub(crate) const fn confirmed(&self, stayed: Option<bool>) -> ChangeStep {
        match stayed {
            Some(true) if self.publishes_again => ChangeStep::PublishAgain,
            Some(true) => self.published_again(true),
            Some(false) if self.is_open => ChangeStep::Begin,
            Some(false) => ChangeStep::End,
            None => ChangeStep::Over(Conclusion::Queued),
        }
    }

    /// Continues after the other nodes were notified once more, or after that failed.
    pub(crate) const fn published_again(&self, published: bool) -> ChangeStep {
        ChangeStep::Over(match published {
            true if self.is_open => Conclusion::Open,
            true => Conclusion::Done,
            false => Conclusion::Queued,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOOD: EndReply = EndReply {
        stood: true,
        filled: false,
    };

    const STRICT: ChangePolicy = ChangePolicy::Strict;
    const KINDS: [ChangeKind; 2] = [ChangeKind::Creation, ChangeKind::Removal];

    fn published() -> Change {
        let mut change = Change::new(STRICT, ChangeKind::Creation);
        assert_eq!(change.first(), ChangeStep::Begin);
        assert_eq!(
            change.begun(Some(UsedConnections::one(1)), false),
            ChangeStep::Publish
        );
        assert_eq!(change.published(true), ChangeStep::Call { fenced: true });
        change
    }

    #[test]
    fn an_undisturbed_change_ends_after_its_confirmation() {
        let mut change = published();
        assert_eq!(change.called(Outcome::Over), ChangeStep::End);
        let ended = change.ended(Some((STOOD, &UsedConnections::one(1))), false);
        assert_eq!(ended, ChangeStep::Confirm);
        assert_eq!(
            change.confirmed(Some(true)),
            ChangeStep::Over(Conclusion::Done)
        );
    }

    #[test]
    fn every_change_is_confirmed_because_its_server_may_have_been_replaced() {
        use ChangePolicy::{BestEffort, Strict, StrictRemovals};
        for policy in [StrictRemovals, Strict, BestEffort] {
            for kind in KINDS {
                let mut change = Change::new(policy, kind);
                change.begun(Some(UsedConnections::one(1)), false);
                let ended = change.ended(Some((STOOD, &UsedConnections::one(1))), false);
                assert_eq!(ended, ChangeStep::Confirm, "{policy:?} {kind:?}");
            }
        }
    }

    #[test]
    fn an_end_at_a_replaced_server_is_sent_again_and_published_again() {
        let mut change = published();
        for number in [1, 2] {
            let ended = change.ended(Some((STOOD, &UsedConnections::one(number))), false);
            assert_eq!(ended, ChangeStep::Confirm);
            assert_eq!(change.confirmed(Some(false)), ChangeStep::End);
        }
        change.ended(Some((STOOD, &UsedConnections::one(1))), false);
        assert_eq!(change.confirmed(Some(true)), ChangeStep::PublishAgain);
        assert_eq!(change.confirmed(None), ChangeStep::Over(Conclusion::Queued));
    }

    #[test]
    fn a_change_whose_fence_was_gone_publishes_once_more() {
        let gone = EndReply {
            stood: false,
            ..STOOD
        };
        for (ended, number) in [(gone, 1), (STOOD, 2)] {
            let mut change = published();
            change.called(Outcome::Over);
            change.ended(Some((ended, &UsedConnections::one(number))), false);
            assert_eq!(
                change.confirmed(Some(true)),
                ChangeStep::PublishAgain,
                "{ended:?}"
            );
            assert_eq!(
                change.published_again(true),
                ChangeStep::Over(Conclusion::Done)
            );
            assert_eq!(
                change.published_again(false),
                ChangeStep::Over(Conclusion::Queued)
            );
        }
    }

    #[test]
    fn a_change_whose_call_may_still_happen_has_no_end() {
        let mut change = published();
        assert_eq!(change.called(Outcome::Unknown), ChangeStep::Renew);
        assert_eq!(change.renewed(None, true), ChangeStep::Renew);
        assert_eq!(change.renewed(Some(true), false), ChangeStep::Confirm);
        let open = ChangeStep::Over(Conclusion::Open);
        assert_eq!(change.confirmed(Some(true)), open);
    }

    #[test]
    fn a_change_whose_call_may_still_happen_begins_again_if_its_fence_was_gone() {
        let mut change = published();
        change.called(Outcome::Unknown);
        assert_eq!(change.renewed(Some(false), false), ChangeStep::Begin);
        let begun = change.begun(Some(UsedConnections::one(2)), false);
        assert_eq!(begun, ChangeStep::Confirm);
        assert_eq!(change.confirmed(Some(false)), ChangeStep::Begin);
        change.begun(Some(UsedConnections::one(3)), false);
        assert_eq!(change.confirmed(Some(true)), ChangeStep::PublishAgain);
        let open = ChangeStep::Over(Conclusion::Open);
        assert_eq!(change.published_again(true), open);
    }

    #[test]
    fn a_change_whose_call_may_still_happen_is_queued_if_redis_is_gone() {
        let mut change = published();
        change.called(Outcome::Unknown);
        let queued = ChangeStep::Over(Conclusion::Queued);
        assert_eq!(change.renewed(None, false), queued);
        assert_eq!(change.published_again(false), queued);
        assert_eq!(change.confirmed(None), queued);
        assert_eq!(change.begun(None, false), queued);
    }

    #[test]
    fn without_redis_removals_are_strict_and_creations_go_on() {
        use ChangePolicy::{BestEffort, Strict, StrictRemovals};
        for (policy, is_made) in [
            (StrictRemovals, [true, false]),
            (Strict, [false, false]),
            (BestEffort, [true, true]),
        ] {
            for (kind, is_made) in KINDS.into_iter().zip(is_made) {
                let last = match is_made {
                    true => ChangeStep::Call { fenced: false },
                    false => ChangeStep::Over(Conclusion::Refused),
                };
                let mut unbegun = Change::new(policy, kind);
                assert_eq!(unbegun.begun(None, true), ChangeStep::Begin);
                assert_eq!(unbegun.begun(None, false), last, "{policy:?} {kind:?}");
                let mut unpublished = Change::new(policy, kind);
                unpublished.begun(Some(UsedConnections::one(1)), false);
                assert_eq!(unpublished.published(false), last, "{policy:?} {kind:?}");
                for change in [&mut unbegun, &mut unpublished] {
                    assert_eq!(
                        change.called(Outcome::Over),
                        ChangeStep::Over(Conclusion::Queued)
                    );
                }
            }
        }
    }

    #[test]
    fn a_lost_end_is_tried_again_while_there_is_time_and_then_queued() {
        let mut change = published();
        change.called(Outcome::Over);
        assert_eq!(change.ended(None, true), ChangeStep::End);
        assert_eq!(
            change.ended(None, false),
            ChangeStep::Over(Conclusion::Queued)
        );
    }
}
