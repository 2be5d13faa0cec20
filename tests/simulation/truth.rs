//! What has the store really done, and which exceptions from the promise are there for it?

use super::machine::Time;
use super::signed::Used;
use super::values::Created;
use histories::record::{Change, Fact, Outcome, Span};
use std::collections::BTreeSet;
use std::time::Duration;

/// A change that the store has made for a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) at: u64,
    pub(crate) node: usize,
    pub(crate) fact: Fact,
    pub(crate) present: bool,
    /// The version that the object has afterwards.
    pub(crate) version: Option<u64>,
}

/// Why a client does not know how its change has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The node has returned an error.
    Failed,
    /// The node has made the change, and has returned that the other nodes may not know it.
    Unconfirmed,
    /// The client has not waited, or the node has died.
    Gone,
}

/// The exceptions from the promise. The guide's page `coherence` has them; all are about removals that
/// were never acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exception {
    /// A change whose client has gone returns to nobody. The node has published it before its call,
    /// so all nodes know of it one trust after the call.
    NobodyWaits,
    /// The same, and the node did not know yet that another server was the primary. All nodes know of
    /// the change when its node has found that server.
    NobodyWaitsForTheNewPrimary,
    /// A change is unconfirmed. Its node tells the others as soon as it reaches Redis again.
    Unconfirmed,
    /// Redis lost the fence of the change before the change ended. A node may then have cached the
    /// object from before the change. That entry stays until its time to live ends.
    FenceLost,
    /// The node died with an unconfirmed change in its retry queue, or before it found the new
    /// primary. The same holds.
    QueueLost,
}

/// The changes and the faults of a run, as the run has recorded them.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) made: Vec<Made>,
    /// From when until when fences may have been lost: those of this node, or those of all.
    pub(crate) fences_lost: Vec<(Span, Option<usize>)>,
    /// When a replica has replaced a primary.
    pub(crate) replaced: Vec<u64>,
    /// When nodes have died.
    pub(crate) died: Vec<(usize, u64)>,
    /// The changes that holders of signed URLs have made.
    pub(crate) used: Vec<Used>,
    /// The versions that nodes have created and acknowledged.
    pub(crate) created: Vec<Created>,
    /// The objects that were created while Redis lost the fence, by calls that the node was in doubt
    /// about, or by nodes that have died; also through the URLs of such nodes. A node may have cached
    /// the version from before such a call.
    pub(crate) in_doubt: BTreeSet<Fact>,
}

/// How long after its client has learned of nothing more the call of a change may happen: a call may
/// be late, and the node may stand still before it makes the call.
const LATEST: Time = Duration::from_secs(15);

pub(crate) const fn nanos(time: Time) -> u64 {
    time.as_nanos() as u64
}

impl Truth {
    /// Decides the changes that their clients are in doubt about, at a moment at which the nodes have
    /// recovered. Leaves out those that the store has not made. `done` has the other changes.
    pub(crate) fn decide(
        &mut self,
        done: &[Change],
        mut doubtful: Vec<(Change, Doubt)>,
        now: u64,
        trust: Time,
    ) -> Vec<Change> {
        for change in done {
            if let Some(made) = self.take_made(change, Time::ZERO)
                && let Some(version) = made.version
            {
                // A creation without Redis is in the node's retry queue, which dies with the node.
                match self.dies_after(change) {
                    true => self.in_doubt.insert(made.fact),
                    false => self.in_doubt.remove(&made.fact),
                };
                self.created.push(Created {
                    fact: made.fact,
                    version,
                    node: Some(made.node),
                    end: change.span.end,
                });
            }
        }
        let mut decided = self.decide_used(now);
        doubtful.sort_by_key(|(change, _)| change.span.end);
        for (change, doubt) in doubtful {
            if let Some(made) = self.take_made(&change, LATEST) {
                let end = change.span.end.max(made.at);
                let span = Span { end, ..change.span };
                let is_lost = self.loses_fence(span, change.node) || self.dies_after(&change);
                if change.present && is_lost {
                    self.in_doubt.insert(change.fact);
                }
                decided.push(self.decide_one(change, doubt, made.at, now, trust));
            }
        }
        decided
    }

    /// Takes the first change that the store has made for this one, up to this long after its end.
    /// The caller takes for the change that ends first, then for the next one. In another order a
    /// long change could take the store's change of a short one.
    fn take_made(&mut self, change: &Change, later: Time) -> Option<Made> {
        let window = change.span.begin..=change.span.end + nanos(later);
        let place = self.made.iter().position(|made| {
            made.fact == change.fact
                && made.present == change.present
                && made.node == change.node
                && window.contains(&made.at)
        });
        place.map(|place| self.made.remove(place))
    }

    /// Decides a change that the store has made at `at`.
    fn decide_one(
        &self,
        mut change: Change,
        doubt: Doubt,
        at: u64,
        now: u64,
        trust: Time,
    ) -> Change {
        change.outcome = Outcome::Done;
        change.span.end = change.span.end.max(at);
        match self.exception(&change, doubt, trust) {
            None => {}
            Some(Exception::NobodyWaits) => change.span.end += nanos(trust),
            Some(Exception::Unconfirmed | Exception::NobodyWaitsForTheNewPrimary) => {
                change.span.end = now;
            }
            // A later change that is acknowledged ends the exception.
            Some(Exception::FenceLost | Exception::QueueLost) => change.outcome = Outcome::Unknown,
        }
        change
    }

    /// Decides the changes of signed URLs. While the fence stands, no node caches the object.
    fn decide_used(&mut self, now: u64) -> Vec<Change> {
        let mut decided = Vec::new();
        for Used { mut change, asked } in self.used.clone() {
            let since = Span {
                begin: asked,
                end: change.span.end,
            };
            let dies = |(node, at): &(usize, u64)| *node == change.node && *at >= asked;
            if self.loses_fence(since, change.node) {
                match (change.present, self.died.iter().any(dies)) {
                    // No other node puts up the fence of a dead node.
                    (false, true) => change.outcome = Outcome::Unknown,
                    (true, true) => _ = self.in_doubt.insert(change.fact),
                    // When the URL has expired, the node notifies all others.
                    (false, false) => change.span.end = now,
                    (true, false) => {}
                }
            }
            decided.push(change);
        }
        decided
    }

    /// Returns whether a fence of this node may have been lost in this time.
    fn loses_fence(&self, time: Span, of: usize) -> bool {
        let mut lost = self.fences_lost.iter();
        lost.any(|(lost, node)| {
            lost.begin <= time.end && lost.end >= time.begin && node.is_none_or(|node| node == of)
        })
    }

    /// Returns whether the node of a change has died after the change began.
    fn dies_after(&self, change: &Change) -> bool {
        let mut died = self.died.iter();
        died.any(|(node, at)| *node == change.node && *at >= change.span.begin)
    }

    /// Returns whether a primary was replaced so late that the node of a change may not have known it.
    fn may_miss_the_primary(&self, change: &Change, trust: Time) -> bool {
        let since = change.span.begin.saturating_sub(nanos(trust));
        let mut replaced = self.replaced.iter();
        replaced.any(|at| (since..=change.span.end).contains(at))
    }

    fn exception(&self, change: &Change, doubt: Doubt, trust: Time) -> Option<Exception> {
        match doubt {
            // The cache never holds absence, so every node finds a created object at once.
            _ if change.present => None,
            _ if self.loses_fence(change.span, change.node) => Some(Exception::FenceLost),
            Doubt::Failed => None,
            Doubt::Unconfirmed if self.dies_after(change) => Some(Exception::QueueLost),
            Doubt::Unconfirmed => Some(Exception::Unconfirmed),
            Doubt::Gone if self.may_miss_the_primary(change, trust) => {
                Some(match self.dies_after(change) {
                    true => Exception::QueueLost,
                    false => Exception::NobodyWaitsForTheNewPrimary,
                })
            }
            Doubt::Gone => Some(Exception::NobodyWaits),
        }
    }
}
