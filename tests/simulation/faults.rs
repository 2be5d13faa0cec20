//! [`Fault`]: what fails in a run. `plan.rs` draws the faults, and `strike.rs` lets them happen.

use super::machine::Time;
use super::network::Way;
use super::server::Dump;
use super::world::StoreFaults;

/// A fault of the network, of a machine, of a server, or of the store; or what ends it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// One in this many packets takes up to this many milliseconds longer.
    Slow(u64, u32),
    Fast,
    /// One direction between a machine and a server holds its bytes back.
    Hold(Way, Time),
    /// One direction holds its bytes back for the first time. When half of that time is over, it
    /// begins to hold later bytes back for the second time. The earlier bytes do not wait for them.
    Stretch(Way, Time, Time),
    /// The open connections of one direction hold their bytes back. New connections do not.
    Stall(Way, Time),
    /// Both directions between a machine and a server hold their bytes back.
    Cut(usize, usize, Time),
    /// All connections of a machine end.
    ResetMachine(usize),
    /// All connections of a machine end. The servers still receive the bytes that the machine sent
    /// before, and then learn of the end.
    Forsake(usize),
    /// The connections of a machine end this often, one time after the other.
    Flap(usize, u32),
    /// The connections of a machine end, and servers refuse new ones for a while.
    Offline(usize, Time),
    /// All connections of a server end.
    ResetServer(usize),
    /// A server forgets all connections of a machine, which does not learn of it.
    HalfOpen(usize),
    FreezeMachine(usize, Time),
    FreezeServer(usize, Time),
    /// A task of a machine keeps the machine's thread busy this long, as often as this.
    Starve(usize, Time, u32),
    /// A node leaves the cluster. Its machine starts again after a while.
    Leave(usize, Time),
    /// A machine loses its power, and starts again after a while.
    KillMachine(usize, Time),
    StartMachine(usize),
    /// A server loses its power, and starts again after a while.
    KillServer(usize, Time, Dump),
    StartServer(usize),
    /// A server loses one in this many keys of a kind, as by an eviction.
    Evict(usize, &'static str, u32),
    /// A server loses all keys of a kind every few milliseconds, as often as this.
    EvictOften(usize, &'static str, u32),
    /// A server's clock steps by this many milliseconds.
    StepClock(usize, i64),
    /// A server's clock runs this much faster, in thousandths.
    Drift(usize, i64),
    /// A server has no memory for more.
    Fill(usize, Time),
    Empty(usize),
    Store(StoreFaults, Time),
    StoreWorks,
    /// Somebody deletes objects in the store without the cache's knowledge, and then lets this
    /// machine purge the cache.
    Collect(usize),
    /// The changes of the primaries arrive this much later at their replicas.
    Lag(Time, Time),
    NoLag,
    /// A replica replaces a primary after this time.
    Failover(Why, Time),
    /// A slot of a cluster moves, that of the set of nodes or that of an entry. There is up to this
    /// time between its steps.
    MoveSlot(bool, Time),
}

impl Fault {
    /// Returns the fault for this machine, if it is about a machine.
    pub(crate) fn at_machine(self, machine: usize) -> Self {
        let way = |way| Way { machine, ..way };
        match self {
            Self::Hold(of, time) => Self::Hold(way(of), time),
            Self::Stretch(of, first, second) => Self::Stretch(way(of), first, second),
            Self::Stall(of, time) => Self::Stall(way(of), time),
            Self::Cut(_, server, time) => Self::Cut(machine, server, time),
            Self::ResetMachine(_) => Self::ResetMachine(machine),
            Self::Forsake(_) => Self::Forsake(machine),
            Self::Flap(_, times) => Self::Flap(machine, times),
            Self::Offline(_, time) => Self::Offline(machine, time),
            Self::HalfOpen(_) => Self::HalfOpen(machine),
            Self::FreezeMachine(_, time) => Self::FreezeMachine(machine, time),
            Self::Starve(_, time, times) => Self::Starve(machine, time, times),
            Self::Leave(_, time) => Self::Leave(machine, time),
            Self::KillMachine(_, time) => Self::KillMachine(machine, time),
            Self::Collect(_) => Self::Collect(machine),
            other => other,
        }
    }
}

/// Why a replica replaces a primary.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Why {
    /// The primary has lost its power, for this long.
    Killed(Time, Dump),
    Frozen(Time),
    /// The primary does not reach the other servers, for this long. Each bit says whether a machine
    /// reaches only the primary; the machines of the other bits reach only the other servers.
    Cut(Time, u8),
    /// The same, and all machines reach all servers.
    Split(Time),
    /// Somebody asks for it.
    HandOver,
}

/// A fault, and when it begins: at this time, or after the first event of this kind.
pub(crate) struct Planned {
    pub(crate) at: Time,
    pub(crate) trigger: Option<Armed>,
    pub(crate) fault: Fault,
}

/// The event that a fault waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armed {
    pub(crate) trigger: Trigger,
    /// How long after the event the fault begins.
    pub(crate) after: Time,
    /// Whether a fault of a machine is then about the machine that has pulled the trigger.
    pub(crate) is_there: bool,
}

/// An event after which a fault begins. Most errors need a fault in the few milliseconds of a change
/// or of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A client asks a node to remove something.
    Asked,
    /// A node changes an object in the store. Most often it removes the object: then more errors
    /// show.
    Change,
    /// A node reads an object from the store.
    Load,
    /// A node sends a heartbeat.
    Heartbeat,
}
