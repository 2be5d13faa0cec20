//! What goes wrong during a run, and when.

use super::machine::Time;
use super::network::Way;
use super::server::Dump;
use super::world::{StoreFaults, World};
use layercache::RedisConfig;
use std::time::Duration;

/// A fault of the network, of a machine, of a server, or of the store; or what ends it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Some bytes take up to this many milliseconds longer.
    Slow(u64),
    Fast,
    /// One direction between a machine and a server holds its bytes back.
    Hold(Way, Time),
    /// Both directions between a machine and a server hold their bytes back.
    Cut(usize, usize, Time),
    /// All connections of a machine end.
    ResetMachine(usize),
    /// All connections of a server end.
    ResetServer(usize),
    FreezeMachine(usize, Time),
    FreezeServer(usize, Time),
    /// A machine loses its power, and starts again after a while.
    KillMachine(usize, Time),
    StartMachine(usize),
    /// A server loses its power, and starts again after a while.
    KillServer(usize, Time, Dump),
    StartServer(usize),
    /// A server loses one in this many keys, as by an eviction.
    Evict(usize, u32),
    /// A server's clock steps by this many milliseconds.
    StepClock(usize, i64),
    /// A server has no memory for more.
    Fill(usize, Time),
    Empty(usize),
    Store(StoreFaults, Time),
    StoreWorks,
}

/// A fault, and when it begins.
pub(crate) struct Planned {
    pub(crate) at: Time,
    pub(crate) fault: Fault,
}

/// Draws the faults of a run, in order.
pub(crate) fn plan(
    random: &mut fastrand::Rng,
    machines: usize,
    servers: usize,
    end: Time,
) -> Vec<Planned> {
    let mut planned = Vec::new();
    for _ in 0..random.usize(..8) {
        let at = Duration::from_millis(random.u64(1_000..end.as_millis() as u64));
        let fault = draw(random, machines, servers);
        planned.push(Planned { at, fault });
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn draw(random: &mut fastrand::Rng, machines: usize, servers: usize) -> Fault {
    let (machine, server) = (random.usize(..machines), random.usize(..servers));
    let millis = match random.u32(..4) {
        0 => random.u64(1..60),
        1 | 2 => random.u64(60..1_500),
        _ => random.u64(1_500..6_000),
    };
    let time = Duration::from_millis(millis);
    match random.u32(..16) {
        0 | 1 => Fault::Slow(millis.min(300)),
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
        10 => {
            let dump = random.choice([Dump::Empty, Dump::Old, Dump::Latest]);
            Fault::KillServer(server, time, dump.expect("there are some"))
        }
        11 | 12 => Fault::Evict(server, random.u32(1..4)),
        13 => Fault::StepClock(server, random.i64(-8_000..8_000)),
        14 => Fault::Fill(server, time),
        _ => {
            let faults = StoreFaults {
                one_in: random.u32(2..30),
                slow: random.u64(1..3_000),
            };
            Fault::Store(faults, time)
        }
    }
}

impl World {
    /// Lets a fault begin. Returns what ends it, and when.
    pub(crate) fn begin(&mut self, fault: Fault, config: &RedisConfig) -> Option<Planned> {
        let begin = self.clock.next();
        self.history.fault(begin, format!("{fault:?}"));
        let now = self.now;
        let later = |time, fault| {
            Some(Planned {
                at: now + time,
                fault,
            })
        };
        match fault {
            Fault::Slow(millis) => {
                self.network.slow = millis;
                return later(Duration::from_secs(3), Fault::Fast);
            }
            Fault::Fast => self.network.slow = 0,
            Fault::Hold(way, time) => self.network.hold(way, now + time),
            Fault::Cut(machine, server, time) => {
                for to_server in [true, false] {
                    let way = Way {
                        machine,
                        server,
                        to_server,
                    };
                    self.network.hold(way, now + time);
                }
            }
            Fault::ResetMachine(machine) => {
                for link in self.network.links_of_machine(machine) {
                    self.reset(link);
                }
            }
            Fault::ResetServer(server) => {
                for link in self.network.links_of_server(server) {
                    self.reset(link);
                }
            }
            Fault::FreezeMachine(machine, time) => {
                if let Some(machine) = &mut self.machines[machine] {
                    machine.frozen_until = now + time;
                }
            }
            Fault::FreezeServer(server, time) => self.servers[server].freeze(now + time),
            Fault::KillMachine(machine, time) => {
                self.kill(machine);
                return later(time, Fault::StartMachine(machine));
            }
            Fault::StartMachine(machine) if self.machines[machine].is_none() => {
                self.restart(machine, config);
            }
            Fault::StartMachine(_) => {}
            Fault::KillServer(server, time, dump) => {
                self.servers[server].stop(dump);
                for link in self.network.links_of_server(server) {
                    self.reset(link);
                }
                return later(time, Fault::StartServer(server));
            }
            Fault::StartServer(server) => self.servers[server].start(now),
            Fault::Evict(server, one_in) => {
                self.servers[server].evict(one_in, &mut self.random);
            }
            Fault::StepClock(server, millis) => self.servers[server].step_clock(millis),
            Fault::Fill(server, time) => {
                self.servers[server].set_full(true);
                return later(time, Fault::Empty(server));
            }
            Fault::Empty(server) => self.servers[server].set_full(false),
            Fault::Store(faults, time) => {
                self.store_faults = faults;
                return later(time, Fault::StoreWorks);
            }
            Fault::StoreWorks => self.store_faults = StoreFaults::default(),
        }
        None
    }
}
