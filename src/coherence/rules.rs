//! Lists the rules of the protocol, and marks where the code keeps each.
//!
//! A line that asks [`kept`] keeps that rule. To find this line, search for the name of the rule. In
//! every normal build `kept` is the constant `true`, and the compiler leaves nothing of it. The
//! documentation of each Lua script names the rules that the script keeps.
//!
//! Two tests bend the rules, one at a time, and must find what breaks. The model
//! (`coherence::model`) bends its own steps. The simulation of whole nodes bends the code: a build
//! with `--cfg layercache_bends` has a function `bend`, after which `kept` returns `false` for one rule.

/// Defines [`Rule`], and lists the names of the rules that the code keeps.
macro_rules! rules {
    (
        code { $($(#[$doc:meta])* $name:ident,)* }
        model { $($(#[$model_doc:meta])* $model_name:ident,)* }
    ) => {
        /// A rule of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(
            dead_code,
            reason = "some rules are kept by scripts, and some are bent only in the model"
        )]
        pub(crate) enum Rule {
            $($(#[$doc])* $name,)*
            $($(#[$model_doc])* $model_name,)*
        }

        #[cfg(layercache_bends)]
        const OF_CODE: &[Rule] = &[$(Rule::$name,)*];
    };
}

rules! {
    code {
        /// Redis refuses a `FILL` without its lease.
        FillChecksItsLease,
        /// `BEGIN` removes the lease.
        BeginRemovesTheLease,
        /// `BEGIN` removes the entry.
        BeginRemovesTheEntry,
        /// Redis grants no lease while a fence stands.
        TheFence,
        /// `END` removes the lease.
        EndRemovesTheLease,
        /// `END` removes the entry, unless it fills it.
        EndRemovesTheEntry,
        /// `END` returns whether its token still stood. If not, the change notifies the other nodes
        /// once more.
        EndChecksItsToken,
        /// `END` fills a written link only under the lease of its own `BEGIN`, which every other
        /// change has removed.
        EndFillsUnderItsOwnLease,
        /// There is no `END` while the backend's call may still happen.
        NoEndWhileTheCallMayHappen,
        /// The fence is a set of tokens, and after a lost fence the change repeats only the
        /// publish. Bent in the model: a new token replaces the others, and the whole change is
        /// repeated. Bent in the code: the end of a change removes the tokens of the others.
        TheFenceIsASet,
        /// Each try of `BEGIN` has a token of its own.
        AFreshTokenForEachTry,
        /// A renewal never sets a lost fence again.
        RenewalNeverRecreates,
        /// A read compares the stamp of a value in memory. A thread's own copies of entries are
        /// compared by the same code.
        StampOnValues,
        /// A stamp to fill under is taken before the value is read, for each load of a batch too.
        StampBeforeTheRead,
        /// No read joins a load that started before the read began. Bent: every read joins it.
        NoReadJoinsAnEarlierLoad,
        /// Memory is filled only if Redis has accepted the fill.
        MemoryIsFilledAfterRedis,
        /// Memory answers only while the node has trust.
        Trust,
        /// Trust counts from when the node sent the heartbeat, not from when it came back. Bent in
        /// the code: the proof of the server's identity also counts from when the heartbeat came
        /// back. Otherwise this proof would end trust at nearly the right time.
        TrustCountsFromTheSending,
        /// After a reconnection the node flushes its memory, because it may have missed messages.
        FlushOnResubscribe,
        /// A change waits for acknowledgements, or T.
        WaitingForAcknowledgements,
        /// An acknowledgement carries the id of the message that it acknowledges.
        AcknowledgementsCarryTheId,
        /// The publish comes after `BEGIN`.
        PublishAfterBegin,
        /// The publish comes before the backend's call.
        PublishBeforeTheCall,
        /// The wait of T counts from when the publish was confirmed.
        WaitCountsFromTheConfirmation,
        /// A change waits T when the peer set has a new epoch.
        WaitWhenThePeerSetIsLost,
        /// A change waits T after its node has connected.
        WaitWhenJustConnected,
        /// A change waits T after Redis's clock was set.
        WaitWhenTheClockWasSet,
        /// A node remembers a step of Redis's clock, even if heartbeats came after it.
        StepsBetweenHeartbeatsCount,
        /// A step of Redis's clock that is shorter than the node's own trust hides no peer with a
        /// shorter trust.
        AStepHidesNoPeer,
        /// If the peer set is unknown, a change waits for the longest trust of the peers that were
        /// known before.
        TheLongestTrustIsRemembered,
        /// A node purges the entries of a server after a failover, or after a restart from a dump.
        PurgeAfterAFailover,
        /// While one node purges a server, no other node uses that server.
        NodesWaitForThePurge,
        /// A purge removes the leases before the entries.
        PurgeTakesLeasesFirst,
        /// If the connection was replaced, the fence counts as lost.
        AnotherConnectionIsALostFence,
        /// A removal is refused while Redis cannot be reached. Bent: it is made, and acknowledged.
        RemovalsAreStrict,
        /// A node reads nothing from Redis while its retry queue holds a key.
        NoReadFromRedisWhileKeysAreQueued,
        /// A change stays in the retry queue until the other nodes were notified.
        QueuedUntilTheNodesAreNotified,
        /// A lease that may have been granted does not count, because Redis may grant it after a
        /// change. Bent in the code: a read also fills if an answer of Redis did not come. Otherwise
        /// it would not ask Redis any more.
        AnUnknownGrantIsNoLease,
        /// A server has standing only while the node knows that the primary has not moved.
        StandingNeedsThePlace,
        /// A server's standing counts from when the node asked, not from when the answer came.
        StandingCountsFromTheBegin,
        /// A node does not ask a server without standing.
        NoReadWithoutStanding,
        /// After a primary was replaced, a change waits until no node uses the old one.
        WaitForTheOldPrimary,
        /// A change ends only if the server was still the primary after `END`.
        EndIsConfirmed,
        /// If the backend's call may still happen, the change is over only if its fence still stood
        /// and its server was still the primary. Otherwise the change begins once more.
        AnOpenChangeIsConfirmed,
        /// A purge is over only if its servers were still the primaries afterwards. Otherwise it is
        /// made again.
        APurgeIsConfirmed,
        /// The holder of a signed URL gets it only if the server was still the primary after the
        /// fence was put up.
        ASignedFenceIsConfirmed,
        /// The fence of a signed URL stands until the URL has expired.
        SignedFenceStands,
        /// When a signed URL has expired, its node notifies all nodes, even if the fence still stood.
        SignedEndNotifies,
    }
    model {
        /// `BEGIN` comes before the backend's call.
        BeginBeforeTheBackend,
        /// The peer set is read after the publish.
        PeerSetReadAfterThePublish,
        /// A purge flushes the nodes' memories after Redis is empty.
        PurgeFlushesLast,
        /// No read joins a load that started before the read began. Bent: a read joins it if the
        /// load's stamp is current and the node has trust, even if the load has no lease.
        JoiningByStampNeedsTheLease,
        /// No read joins a load that started before the read began. Bent: a read joins it if the
        /// load's stamp is current and the load has its lease or is still asking Redis, even if the
        /// node has no trust.
        JoiningByLeaseNeedsTrust,
        /// No read joins a load that started before the read began. Bent: a read joins it, but
        /// takes only the answer that the object was not found.
        NoNegativeFromAnEarlierLoad,
        /// A read checks trust before it reads a stamp. In the code the type
        /// [`Trusted`](super::Trusted) makes sure of it.
        TrustBeforeTheStamp,
        /// A heartbeat comes back through the channel, in order. The code has one connection and
        /// one consumer for both.
        HeartbeatInOrder,
        /// The shared channel is subscribed before the private one. The code subscribes to both
        /// with one command, before it uses the connection.
        SharedChannelFirst,
        /// A change is in the retry queue before its fences in memory end. The code does both
        /// without a pause in between.
        QueuedBeforeTheFencesEnd,
    }
}

/// Returns `true`: the caller keeps this rule.
#[cfg(not(layercache_bends))]
#[inline(always)]
pub(crate) const fn kept(_: Rule) -> bool {
    true
}

/// Returns whether the caller has to keep this rule.
#[cfg(layercache_bends)]
pub(crate) fn kept(rule: Rule) -> bool {
    bends::BENT.get() != Some(rule)
}

/// For the simulation: how a rule is bent.
#[cfg(layercache_bends)]
mod bends {
    use super::{OF_CODE, Rule};
    use std::cell::Cell;

    thread_local! {
        pub(super) static BENT: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Returns the names of the rules that can be bent.
    pub fn rules() -> Vec<String> {
        OF_CODE.iter().map(|rule| format!("{rule:?}")).collect()
    }

    /// Bends one rule, in all nodes that run in this thread from now on. `None` bends none. Returns
    /// whether there is such a rule.
    pub fn bend(name: Option<&str>) -> bool {
        let is_it = |rule: &&Rule| name == Some(format!("{rule:?}").as_str());
        let rule = OF_CODE.iter().find(is_it).copied();
        BENT.set(rule);
        rule.is_some() || name.is_none()
    }
}

#[cfg(layercache_bends)]
pub use bends::{bend, rules};
