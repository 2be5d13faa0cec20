//! Draws the faults of a run, and when each begins.

use super::faults::{Armed, Fault, Planned, Trigger, Why};
use super::machine::Time;
use super::network::Way;
use super::scenes::Scene;
use super::server::Dump;
use super::setting::{Setting, one_of};
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
const OF_ALL: Range<u32> = 0..34;
const OF_MANY: Range<u32> = 34..43;

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
    setting: &Setting,
    scene: Option<Scene>,
) -> Vec<Planned> {
    let mut planned = match scene {
        Some(scene) => acts(random, setting, scene),
        None => single_faults(random, setting),
    };
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// Draws the acts of a scene.
fn acts(random: &mut fastrand::Rng, setting: &Setting, scene: Scene) -> Vec<Planned> {
    let mut planned = Vec::new();
    // All nodes know how long each other node trusts its memory.
    let known = setting.longest_trust() * 11 / 10;
    let mut at = known + Duration::from_millis(random.u64(300..800));
    while at < setting.busy {
        let act = scene.act(random, setting);
        for part in act.faults {
            let armed = |trigger| Armed {
                trigger,
                after: part.after,
                is_there: part.is_there,
            };
            planned.push(Planned {
                at: act.trigger.map_or(at + part.after, |_| at),
                trigger: act.trigger.map(armed),
                fault: part.fault,
            });
        }
        at += act.pause;
    }
    planned
}

/// Draws each fault by itself.
fn single_faults(random: &mut fastrand::Rng, setting: &Setting) -> Vec<Planned> {
    let palette = Palette::draw(random, setting.nodes(), setting.shape);
    let mut planned = Vec::new();
    let end = setting.busy.as_millis() as u64;
    for _ in 0..random.usize(..7 + end as usize / 1_200) {
        let trigger = match random.u32(..6) {
            0..3 => None,
            3 | 4 => Some(Trigger::Change),
            _ => Some(Trigger::Load),
        };
        let is_there = random.bool();
        let trigger = trigger.map(|trigger| Armed {
            trigger,
            after: Time::ZERO,
            is_there,
        });
        // Many errors need some faults at nearly the same time.
        let together = one_of(random, &[1, 1, 1, 2, 2, 3]);
        let apart = one_of(random, &[8, 60, 600]);
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
    planned
}

/// Draws how long a fault takes.
pub(crate) fn draw_time(random: &mut fastrand::Rng) -> Time {
    Duration::from_millis(match random.u32(..4) {
        0 => random.u64(1..60),
        1 | 2 => random.u64(60..1_500),
        _ => random.u64(1_500..6_000),
    })
}

pub(crate) fn draw_dump(random: &mut fastrand::Rng) -> Dump {
    one_of(random, &[Dump::Empty, Dump::Old, Dump::Latest])
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
            let one_in = one_of(random, &[20, 20, 4, 1]);
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
            let kind = one_of(random, &KINDS);
            Fault::Evict(server, kind, random.u32(1..4))
        }
        14 => {
            let most = one_of(random, &[600, 2_500, 8_000, 8_000]);
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
            let kind = one_of(random, &KINDS);
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
        29 => {
            let way = Way {
                machine,
                server,
                to_server: random.bool(),
            };
            Fault::Stall(way, time)
        }
        30 => Fault::Forsake(machine),
        _ => {
            let faults = StoreFaults {
                one_in: one_of(random, &[0, 2, 4, 30]),
                slow: one_of(random, &[60, 500, 3_500]),
                share: one_of(random, &[2, 20, 60]),
            };
            Fault::Store(faults, time)
        }
    }
}

/// Draws a fault that there is only with several servers.
fn draw_of_many(random: &mut fastrand::Rng, kind: u32, shape: Shape) -> Fault {
    let time = draw_time(random);
    // A replica of a cluster waits for the time after which servers count as silent.
    let after = match shape.node_timeout() {
        Some(silent) => silent + random.u64(500..1_500),
        None => random.u64(100..3_000),
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
