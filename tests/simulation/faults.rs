//! Plans the faults of a run, and when each begins. `strike.rs` lets them happen.

use super::machine::Time;
use super::network::Way;
use super::server::Dump;
use super::shape::Shape;
use super::world::StoreFaults;
use std::time::Duration;

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
    /// Both directions between a machine and a server hold their bytes back.
    Cut(usize, usize, Time),
    /// All connections of a machine end.
    ResetMachine(usize),
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

/// After how many milliseconds the servers of a cluster count another one as silent.
pub(crate) const NODE_TIMEOUT: u64 = 1_000;

/// A fault, and when it begins: at this time, or at the first event of this kind after it.
pub(crate) struct Planned {
    pub(crate) at: Time,
    pub(crate) trigger: Option<Trigger>,
    pub(crate) fault: Fault,
}

/// An event after which a fault begins. Most errors need a fault in the few milliseconds of a change
/// or of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A node changes an object in the store.
    Change,
    /// A node reads an object from the store.
    Load,
}

/// The keys that an eviction may be about.
const KINDS: [&str; 6] = [
    "",
    "lease::",
    "fence::",
    "fence::",
    "layercache::",
    "blobs::",
];

/// Draws the faults of a run, in order.
pub(crate) fn plan(
    random: &mut fastrand::Rng,
    machines: usize,
    shape: Shape,
    end: Time,
) -> Vec<Planned> {
    let mut planned = Vec::new();
    let end = end.as_millis() as u64;
    for _ in 0..random.usize(..7 + end as usize / 1_200) {
        let at = Duration::from_millis(random.u64(500..end));
        let fault = draw_any(random, machines, shape);
        if matches!(fault, Fault::Failover(..)) && random.bool() {
            // The replica has missed what its primary changed in the last moments.
            let before = Duration::from_millis(random.u64(10..2_000));
            let lag = Fault::Lag(Duration::from_secs(8), before);
            let at = at.saturating_sub(before);
            planned.push(Planned {
                at,
                trigger: None,
                fault: lag,
            });
        }
        let trigger = match random.u32(..6) {
            0..3 => None,
            3 | 4 => Some(Trigger::Change),
            _ => Some(Trigger::Load),
        };
        planned.push(Planned { at, trigger, fault });
        // Many errors need two faults at nearly the same time.
        if random.u32(..3) == 0 {
            let apart = random.choice([8, 60, 600]).expect("there are some");
            planned.push(Planned {
                at: at + Duration::from_millis(random.u64(..apart)),
                trigger,
                fault: draw_any(random, machines, shape),
            });
        }
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn draw_any(random: &mut fastrand::Rng, machines: usize, shape: Shape) -> Fault {
    match (shape, random.u32(..2)) {
        (Shape::Single, _) | (_, 0) => draw(random, machines, shape),
        (_, _) => draw_of_many(random, shape),
    }
}

/// Draws how long a fault takes.
fn draw_time(random: &mut fastrand::Rng) -> Time {
    Duration::from_millis(match random.u32(..4) {
        0 => random.u64(1..60),
        1 | 2 => random.u64(60..1_500),
        _ => random.u64(1_500..6_000),
    })
}

fn draw_dump(random: &mut fastrand::Rng) -> Dump {
    let dump = random.choice([Dump::Empty, Dump::Old, Dump::Latest]);
    dump.expect("there are some")
}

/// Draws a fault that there is with every kind of server.
fn draw(random: &mut fastrand::Rng, machines: usize, shape: Shape) -> Fault {
    let machine = random.usize(..machines);
    let server = match random.u32(..3) {
        0 => random.usize(..shape.servers()),
        _ => random.usize(..shape.primaries()),
    };
    let time = draw_time(random);
    match random.u32(..32) {
        0 | 1 => {
            let one_in = random.choice([20, 20, 4, 1]).expect("there are some");
            let most = if one_in == 1 { 45 } else { 300 };
            Fault::Slow(random.u64(1..=most), one_in)
        }
        2 | 3 => {
            let to_server = random.bool();
            let way = Way {
                machine,
                server,
                to_server,
            };
            Fault::Hold(way, time)
        }
        4 => Fault::Cut(machine, server, time),
        5 => Fault::ResetMachine(machine),
        6 => Fault::ResetServer(server),
        7 => Fault::FreezeMachine(machine, time),
        8 => Fault::FreezeServer(server, time),
        9 => Fault::KillMachine(machine, time),
        10 | 11 => Fault::KillServer(server, time, draw_dump(random)),
        12 | 13 => {
            let kind = random.choice(KINDS).expect("there are some");
            Fault::Evict(server, kind, random.u32(1..4))
        }
        14 => {
            let most = random
                .choice([600, 2_500, 8_000, 8_000])
                .expect("there are some");
            Fault::StepClock(server, random.i64(-most..most))
        }
        15 => Fault::Fill(server, time),
        16 => Fault::Flap(machine, random.u32(2..40)),
        17 => Fault::HalfOpen(machine),
        18 => Fault::Starve(machine, Duration::from_millis(random.u64(5..400)), 10),
        19 => Fault::Leave(machine, time),
        20 | 21 => Fault::Offline(machine, time / 4),
        22 => Fault::Drift(server, random.i64(-40..40)),
        23 | 24 => {
            let way = Way {
                machine,
                server,
                to_server: random.u32(..4) == 0,
            };
            let first = Duration::from_millis(random.u64(10..1_500));
            let second = Duration::from_millis(random.u64(1_000..5_000));
            Fault::Stretch(way, first, second)
        }
        25 | 26 => {
            let kind = random.choice(KINDS).expect("there are some");
            Fault::EvictOften(server, kind, random.u32(2..60))
        }
        27 => Fault::Collect(machine),
        28 => {
            // The machine is heard, and hears nothing, until after it has lost its trust.
            let way = Way {
                machine,
                server,
                to_server: false,
            };
            Fault::Hold(way, Duration::from_millis(random.u64(1_000..5_000)))
        }
        _ => {
            let faults = StoreFaults {
                one_in: random.choice([0, 2, 4, 30]).expect("there are some"),
                slow: random.choice([60, 500, 3_500]).expect("there are some"),
                share: random.choice([2, 20, 60]).expect("there are some"),
            };
            Fault::Store(faults, time)
        }
    }
}

/// Draws a fault that there is only with several servers.
fn draw_of_many(random: &mut fastrand::Rng, shape: Shape) -> Fault {
    let time = draw_time(random);
    // A replica of a cluster waits for the time after which servers count as silent.
    let after = match shape {
        Shape::Cluster { .. } => random.u64(NODE_TIMEOUT + 500..NODE_TIMEOUT + 1_500),
        _ => random.u64(100..3_000),
    };
    let after = Duration::from_millis(after);
    let longer = time + Duration::from_millis(random.u64(..3_000));
    match random.u32(..9) {
        0 => Fault::Failover(Why::Killed(longer, draw_dump(random)), after),
        1 => Fault::Failover(Why::Frozen(longer), after),
        2 => Fault::Failover(Why::Cut(longer, random.u8(..)), after),
        3 => Fault::Failover(Why::Split(longer), after),
        4 => Fault::Failover(Why::HandOver, Duration::from_millis(random.u64(1..50))),
        5 => Fault::Lag(Duration::from_millis(random.u64(1..3_000)), time),
        _ if shape.is_cluster() => Fault::MoveSlot(random.u32(..3) == 0, time / 20),
        _ => Fault::Failover(Why::Killed(longer, Dump::Empty), after),
    }
}
