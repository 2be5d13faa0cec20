//! Lists the faults of the environment.

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
