//! The rules of the protocol, each of which can be left out or bent.

/// A rule. Bent, the model has to find what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// `FILL` is refused without its lease.
    FillChecksItsLease,
    /// `BEGIN` takes the lease away.
    BeginRemovesTheLease,
    /// `BEGIN` takes the entry away.
    BeginRemovesTheEntry,
    /// `BEGIN` comes before the backend is touched.
    BeginBeforeTheBackend,
    /// While a fence stands no lease is granted.
    TheFence,
    /// `END` takes the lease away.
    EndRemovesTheLease,
    /// `END` says whether its token still stood, and if not the others are told once more.
    EndChecksItsToken,
    /// There is no `END` while the backend's call may still happen.
    NoEndWhileTheCallMayHappen,
    /// The fence is a set of tokens, and what is repeated after a lost one is the telling alone.
    TheFenceIsASet,
    /// Each try of `BEGIN` has a token of its own.
    AFreshTokenForEachTry,
    /// A renewal never makes a fence anew.
    RenewalNeverRecreates,
    /// A value in memory is compared with its stamp.
    StampOnValues,
    /// Nobody boards a load that has left; bent: anybody does.
    NobodyBoards,
    /// The same; bent: who sees that the stamp of the load has not moved boards it, lease or not.
    BoardingByStampNeedsTheLease,
    /// The same; bent: who sees stamp and lease boards, trusted or not.
    BoardingByLeaseNeedsTrust,
    /// The same; bent: who may not board takes what was not found all the same.
    NegativesBoardNeither,
    /// Trust is seen before a stamp is read.
    TrustBeforeTheStamp,
    /// Memory is filled only with what was accepted.
    MemoryFilledWithARight,
    /// Memory answers only while it is trusted.
    Trust,
    /// Trust counts from when the heartbeat was sent.
    TrustCountsFromTheSending,
    /// A heartbeat comes back through the channel, in order.
    HeartbeatInOrder,
    /// The shared channel is subscribed before the private one.
    SharedChannelFirst,
    /// What was missed between two connections is flushed.
    FlushOnResubscribe,
    /// A change waits for acknowledgements, or T.
    WaitingForAcknowledgements,
    /// An acknowledgement says of what.
    AcknowledgementsCarryTheId,
    /// The nodes are read after the publish.
    NodesReadAfterThePublish,
    /// The publish comes after `BEGIN`.
    PublishAfterBegin,
    /// The publish comes before the backend's call.
    PublishBeforeTheCall,
    /// T counts from when the publish was confirmed.
    WaitCountsFromTheConfirmation,
    /// T is waited when the set of nodes is another one than before.
    WaitWhenTheNodesAreLost,
    /// T is waited after one's own connection.
    WaitWhenJustConnected,
    /// T is waited when Redis's clock was set.
    WaitWhenTheClockWasSet,
    /// What another server knew is purged.
    PurgeAfterAFailover,
    /// Another connection counts as a fence that was lost.
    AnotherConnectionIsALostFence,
    /// A purge takes the leases away before the entries.
    PurgeTakesLeasesFirst,
    /// A purge flushes memories after Redis is empty.
    PurgeFlushesLast,
    /// A removal that Redis cannot be told of is refused; bent: it is made, and acknowledged.
    RemovalsAreStrict,
    /// While a node owes something it asks Redis nothing.
    NothingIsAskedWhileOwed,
    /// What is owed is in the retry queue before the fences in memory end.
    OwedBeforeTheFencesEnd,
    /// What is owed is owed until the others have been told.
    OwedIsTold,
    /// A step of Redis's clock is remembered, whatever heartbeats came after it.
    StepsBetweenHeartbeatsCount,
    /// A step that is small beside one's own trust hides no peer whose trust is shorter.
    AStepHidesNoPeer,
    /// Where nobody is known, the longest trust is waited of those who were there before.
    TheLongestTrustIsRemembered,
    /// A server has standing only while it is known that the primary has not moved.
    StandingNeedsThePlace,
    /// That is known from when it was asked, not from when the answer came.
    StandingCountsFromTheBegin,
    /// A lease that may have been granted is none: it may be granted after a change.
    UnknownIsNoLease,
    /// The fence of a signed URL stands until the URL has expired.
    SignedFenceStands,
    /// When a signed URL has expired all nodes are told, whatever became of its fence.
    SignedEndTells,
    /// A removal has ended only where the primary was the same still after its `END`.
    EndIsConfirmed,
}

/// What the environment may do wrong, once each time it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fault {
    EvictEntry,
    EvictLease,
    EvictFence,
    EvictNodes,
    /// This node's connection is lost, with all that was on its way through it.
    Disconnect(usize),
    /// This change's node dies.
    Crash(usize),
    /// The reply to this change's `BEGIN` is lost; the command may be executed at any later time.
    LateBegin(usize),
    /// The same, and the time of this change is over.
    LastBegin(usize),
    /// The reply to a load's `GRANT` is lost; the command may be executed at any later time.
    LateGrant,
    /// A load gives its `FILL` up; it may be executed at any later time.
    LateFill,
    /// A change gives its call up; it may happen at any later time.
    LateCall(usize),
    /// A renewal of this change's fence.
    Renewal(usize),
    /// Redis's clock is set forward by so many times T.
    SetClock(u8),
    /// Redis starts again, empty.
    Restart,
    /// From here on the replica lags.
    Lag,
    /// The replica becomes the primary.
    Failover,
    /// Another server becomes the primary and has all that this one has, which lives on and accepts
    /// whatever it is sent.
    HandOver,
}
