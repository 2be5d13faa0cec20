//! Lists the rules of the protocol, each of which a test can bend, and the faults of the
//! environment.

/// A rule of the protocol. When a test bends it, the model must find what breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// Redis refuses a `FILL` without its lease.
    FillChecksItsLease,
    /// `BEGIN` removes the lease.
    BeginRemovesTheLease,
    /// `BEGIN` removes the entry.
    BeginRemovesTheEntry,
    /// `BEGIN` comes before the backend's call.
    BeginBeforeTheBackend,
    /// Redis grants no lease while a fence stands.
    TheFence,
    /// `END` removes the lease.
    EndRemovesTheLease,
    /// `END` returns whether its token still stood. If not, the change notifies the other nodes
    /// once more.
    EndChecksItsToken,
    /// There is no `END` while the backend's call may still happen.
    NoEndWhileTheCallMayHappen,
    /// The fence is a set of tokens, and after a lost fence the change repeats only the publish.
    /// Bent: a new token replaces the others, and the whole change is repeated.
    TheFenceIsASet,
    /// Each try of `BEGIN` has a token of its own.
    AFreshTokenForEachTry,
    /// A renewal never sets a lost fence again.
    RenewalNeverRecreates,
    /// A read compares the stamp of a value in memory.
    StampOnValues,
    /// No read joins a load that started before the read began. Bent: every read joins it.
    NoReadJoinsAnEarlierLoad,
    /// No read joins a load that started before the read began. Bent: a read joins it if the load's
    /// stamp is current and the node has trust, even if the load has no lease.
    JoiningByStampNeedsTheLease,
    /// No read joins a load that started before the read began. Bent: a read joins it if the load's
    /// stamp is current and the load has its lease or is still asking Redis, even if the node has
    /// no trust.
    JoiningByLeaseNeedsTrust,
    /// No read joins a load that started before the read began. Bent: a read joins it, but takes
    /// only the answer that the object was not found.
    NoNegativeFromAnEarlierLoad,
    /// A read checks trust before it reads a stamp.
    TrustBeforeTheStamp,
    /// Memory is filled only if Redis has accepted the fill.
    MemoryIsFilledAfterRedis,
    /// Memory answers only while the node has trust.
    Trust,
    /// Trust counts from when the heartbeat was sent, not from when it came back.
    TrustCountsFromTheSending,
    /// A heartbeat comes back through the channel, in order.
    HeartbeatInOrder,
    /// The shared channel is subscribed before the private one.
    SharedChannelFirst,
    /// After a reconnection the node flushes its memory, because it may have missed messages.
    FlushOnResubscribe,
    /// A change waits for acknowledgements, or T.
    WaitingForAcknowledgements,
    /// An acknowledgement carries the id of the message that it acknowledges.
    AcknowledgementsCarryTheId,
    /// The peer set is read after the publish.
    PeerSetReadAfterThePublish,
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
    /// A node purges the entries of a server after a failover.
    PurgeAfterAFailover,
    /// If the connection was replaced, the fence counts as lost.
    AnotherConnectionIsALostFence,
    /// A purge removes the leases before the entries.
    PurgeTakesLeasesFirst,
    /// A purge flushes the nodes' memories after Redis is empty.
    PurgeFlushesLast,
    /// A removal is refused while Redis cannot be reached. Bent: it is made, and acknowledged.
    RemovalsAreStrict,
    /// A node reads nothing from Redis while its retry queue holds a key.
    NoReadFromRedisWhileKeysAreQueued,
    /// A change is in the retry queue before its fences in memory end.
    QueuedBeforeTheFencesEnd,
    /// A change stays in the retry queue until the other nodes were notified.
    QueuedUntilTheNodesAreNotified,
    /// A node remembers a step of Redis's clock, even if heartbeats came after it.
    StepsBetweenHeartbeatsCount,
    /// A step of Redis's clock that is shorter than the node's own trust hides no peer with a
    /// shorter trust.
    AStepHidesNoPeer,
    /// If the peer set is unknown, a change waits for the longest trust of the peers that were
    /// known before.
    TheLongestTrustIsRemembered,
    /// A server has standing only while the node knows that the primary has not moved.
    StandingNeedsThePlace,
    /// A server's standing counts from when the node asked, not from when the answer came.
    StandingCountsFromTheBegin,
    /// A lease that may have been granted does not count, because Redis may grant it after a
    /// change.
    AnUnknownGrantIsNoLease,
    /// The fence of a signed URL stands until the URL has expired.
    SignedFenceStands,
    /// When a signed URL has expired, all nodes are notified, even if its fence still stood.
    SignedEndNotifies,
    /// A removal ends only if the server was still the primary after `END`.
    EndIsConfirmed,
}

/// A fault of the environment. It happens at most as often as a world lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fault {
    EvictEntry,
    EvictLease,
    EvictFence,
    EvictPeerSet,
    /// This node's connection is lost, with all messages on it.
    Disconnect(usize),
    /// This change's node dies.
    Crash(usize),
    /// The reply to this change's `BEGIN` is lost, and the change tries again. Redis may execute
    /// the lost command at any later time.
    LateBegin(usize),
    /// The reply to this change's `BEGIN` is lost, and the change has no time for another try.
    /// Redis may execute the lost command at any later time.
    LastBegin(usize),
    /// The reply to a load's `GRANT` is lost. Redis may execute the command at any later time.
    LateGrant,
    /// A load gives up its `FILL`. Redis may execute the command at any later time.
    LateFill,
    /// A change gives up its call to the backend. The call may happen at any later time.
    LateCall(usize),
    /// This change's fence is renewed.
    Renewal(usize),
    /// Redis's clock is set forward by this number of ticks.
    SetClock(u8),
    /// Redis restarts empty.
    Restart,
    /// The replica receives no writes from now on.
    Lag,
    /// The replica becomes the primary.
    Failover,
    /// Another server becomes the primary, with all data of the old one. The old one goes on and
    /// accepts all commands.
    HandOver,
}
