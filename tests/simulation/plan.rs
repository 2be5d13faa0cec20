//! Draws the faults of a run, and when each begins.

use super::faults::{Fault, NODE_TIMEOUT, Planned, Trigger, Why};
use super::machine::Time;
use super::network::Way;
use super::server::Dump;
use super::shape::Shape;
use super::world::StoreFaults;
use std::ops::Range;
use std::time::Duration;

/// The keys that an eviction may be about.
const KINDS: [&str; 6] = [
    "",
    "lease::",
    "fence::",
    "fence::",
    "layercache::",
    "blobs::",
];

/// The kinds of faults that there are with every kind of server, and with several servers.
const OF_ALL: Range<u32> = 0..32;
const OF_MANY: Range<u32> = 32..41;

/// The most kinds of faults in a run that does not have all.
const FEW: usize = 4;

/// The faults that a run may have. Most runs have few kinds. Then the same fault happens again and
/// again, and the same faults happen together, which many errors need. In a run with all kinds that
/// is rare.
struct Palette {
    shape: Shape,
    machines: usize,
    kinds: Vec<u32>,
    /// The machine that most faults are about, if there is one.
    focus: Option<usize>,
}

impl Palette {
    fn draw(random: &mut fastrand::Rng, machines: usize, shape: Shape) -> Self {
        let kind = |random: &mut fastrand::Rng| match shape {
            Shape::Single => random.u32(OF_ALL),
            _ if random.bool() => random.u32(OF_ALL),
            _ => random.u32(OF_MANY),
        };
        let kinds = match random.u32(..4) {
            0 => OF_ALL.map(|_| kind(random)).collect(),
            _ => (0..=random.usize(..FEW)).map(|_| kind(random)).collect(),
        };
        let focus = random.bool().then(|| random.usize(..machines));
        Self {
            shape,
            machines,
            kinds,
            focus,
        }
    }

    fn machine(&self, random: &mut fastrand::Rng) -> usize {
        let other = random.usize(..self.machines);
        self.focus.filter(|_| random.u32(..4) > 0).unwrap_or(other)
    }

    fn fault(&self, random: &mut fastrand::Rng) -> Fault {
        let kind = self.kinds[random.usize(..self.kinds.len())];
        if OF_ALL.contains(&kind) {
            let machine = self.machine(random);
            return draw(random, kind, machine, self.shape);
        }
        draw_of_many(random, kind - OF_MANY.start, self.shape)
    }
}

/// Draws the faults of a run, in order.
pub(crate) fn plan(
    random: &mut fastrand::Rng,
    machines: usize,
    shape: Shape,
    end: Time,
) -> Vec<Planned> {
    let palette = Palette::draw(random, machines, shape);
    let mut planned = Vec::new();
    let end = end.as_millis() as u64;
    for _ in 0..random.usize(..7 + end as usize / 1_200) {
        let trigger = match random.u32(..6) {
            0..3 => None,
            3 | 4 => Some(Trigger::Change),
            _ => Some(Trigger::Load),
        };
        // Many errors need some faults at nearly the same time.
        let together = random.choice([1, 1, 1, 2, 2, 3]).expect("there are some");
        let apart = random.choice([8, 60, 600]).expect("there are some");
        let mut at = Duration::from_millis(random.u64(500..end));
        for _ in 0..together {
            let fault = palette.fault(random);
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
            planned.push(Planned { at, trigger, fault });
            at += Duration::from_millis(random.u64(..apart));
        }
    }
    planned.sort_by_key(|planned| planned.at);
    planned
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
fn draw(random: &mut fastrand::Rng, kind: u32, machine: usize, shape: Shape) -> Fault {
    let server = match random.u32(..3) {
        0 => random.usize(..shape.servers()),
        _ => random.usize(..shape.primaries()),
    };
    let time = draw_time(random);
    match kind {
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
fn draw_of_many(random: &mut fastrand::Rng, kind: u32, shape: Shape) -> Fault {
    let time = draw_time(random);
    // A replica of a cluster waits for the time after which servers count as silent.
    let after = match shape {
        Shape::Cluster { .. } => random.u64(NODE_TIMEOUT + 500..NODE_TIMEOUT + 1_500),
        _ => random.u64(100..3_000),
    };
    let after = Duration::from_millis(after);
    let longer = time + Duration::from_millis(random.u64(..3_000));
    match kind {
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
