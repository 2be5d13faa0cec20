//! How each fault happens.

use super::faults::{Armed, Fault, Planned, Trigger, Why};
use super::machine::Time;
use super::network::{Slowness, Way};
use super::server::Dump;
use super::topology::Step;
use super::truth::nanos;
use super::world::{Event, STEP, StoreFaults, World};
use histories::record::Span;
use std::time::Duration;

/// No fence expires in this time, not even if it is not renewed.
const SHORT: Time = Duration::from_millis(1_500);

/// Returns for how long a fault may remove fences from a server, or may keep nodes from renewing them;
/// and which node, if it is only one.
fn loses_fences(fault: Fault) -> Option<(Time, Option<usize>)> {
    let (time, node) = match fault {
        Fault::Evict(_, kind, _) | Fault::EvictOften(_, kind, _) => {
            return "fence::".starts_with(kind).then_some((Time::ZERO, None));
        }
        Fault::KillServer(..) | Fault::StartServer(_) | Fault::StepClock(..) => {
            return Some((Time::ZERO, None));
        }
        Fault::Hold(Way { machine, .. }, time)
        | Fault::Stall(Way { machine, .. }, time)
        | Fault::Cut(machine, _, time)
        | Fault::Offline(machine, time)
        | Fault::FreezeMachine(machine, time) => (time, Some(machine)),
        Fault::FreezeServer(_, time)
        | Fault::Fill(_, time)
        | Fault::Failover(Why::Frozen(time) | Why::Cut(time, _) | Why::Split(time), _) => {
            (time, None)
        }
        _ => return None,
    };
    (time > SHORT).then_some((time, node))
}

impl World {
    /// Plans a fault: at its time it begins, or waits for its trigger.
    pub(crate) fn plan(&mut self, planned: Planned) {
        let Planned { at, trigger, fault } = planned;
        match trigger {
            None => self.begin_at(at, fault),
            Some(armed) => {
                self.open_faults += 1;
                self.at(at, Event::Arm(armed, fault));
            }
        }
    }

    fn begin_at(&mut self, at: Time, fault: Fault) {
        self.open_faults += 1;
        self.at(at, Event::Fault(fault));
    }

    /// Lets the faults begin that wait for such an event of a machine.
    pub(crate) fn pull(&mut self, trigger: Trigger, machine: usize) {
        let is_due = |armed: &mut (Armed, Fault)| armed.0.trigger == trigger;
        let due: Vec<_> = self.armed.extract_if(.., is_due).collect();
        for (armed, fault) in due {
            let fault = match armed.is_there {
                true => fault.at_machine(machine),
                false => fault,
            };
            if trigger == Trigger::Asked && armed.after.is_zero() {
                // It begins before the node sends anything.
                self.open_faults += 1;
                self.begin(fault);
                continue;
            }
            let soon = self.soon(4) + armed.after;
            self.begin_at(soon, fault);
        }
    }

    /// A machine sends bytes to a server. They pull a trigger if they begin a heartbeat: only
    /// heartbeats have this command.
    pub(crate) fn may_be_heartbeat(&mut self, machine: usize, bytes: &[u8]) {
        let name = b"PERSIST";
        let mut armed = self.armed.iter();
        if armed.any(|(armed, _)| armed.trigger == Trigger::Heartbeat)
            && bytes.windows(name.len()).any(|window| window == name)
        {
            self.pull(Trigger::Heartbeat, machine);
        }
    }

    /// Lets a fault begin, and plans what ends it.
    pub(crate) fn begin(&mut self, fault: Fault) {
        self.open_faults -= 1;
        if let Some((time, end)) = self.strike(fault) {
            self.begin_at(self.now + time, end);
        }
    }

    /// Waits until all faults have ended, and lets everything work again.
    pub(crate) fn end_faults(&mut self) {
        self.is_busy = false;
        while self.open_faults > 0 || self.is_any_frozen() {
            self.run(self.now + Duration::from_millis(20));
        }
        self.armed.clear();
        self.store_faults = StoreFaults::default();
        self.network.heal();
        self.topology.heal();
    }

    fn is_any_frozen(&self) -> bool {
        let mut machines = self.machines.iter().flatten();
        machines.any(|machine| machine.frozen_until > self.now)
            || self
                .servers
                .iter()
                .any(|it| it.frozen_until(self.now).is_some())
    }

    /// Lets a fault begin. Returns what ends it, and after which time.
    pub(crate) fn strike(&mut self, fault: Fault) -> Option<(Time, Fault)> {
        let begin = self.clock.next();
        self.history.fault(begin, format!("{fault:?}"));
        if let Some((time, node)) = loses_fences(fault) {
            let end = begin + nanos(time);
            self.truth.fences_lost.push((Span { begin, end }, node));
        }
        let now = self.now;
        let later = |time, fault| Some((time, fault));
        match fault {
            Fault::Slow(most, one_in) => {
                self.network.slow = Slowness { most, one_in };
                return later(Duration::from_secs(3), Fault::Fast);
            }
            Fault::Fast => self.network.slow = self.network.usual,
            Fault::Hold(way, time) => self.network.hold(way, now + time),
            Fault::Stretch(way, first, second) => {
                self.network.hold(way, now + first);
                return later(first / 2, Fault::Hold(way, second));
            }
            Fault::Stall(way, time) => self.network.stall(way, now + time),
            Fault::Cut(machine, server, time) => {
                self.network.cut(machine, server, now + time);
            }
            Fault::ResetMachine(machine) => {
                for link in self.network.links_of_machine(machine) {
                    self.reset(link);
                }
            }
            Fault::Forsake(machine) => {
                for link in self.network.links_of_machine(machine) {
                    self.forsake(link);
                }
            }
            Fault::Flap(machine, times) => {
                for link in self.network.links_of_machine(machine) {
                    self.reset(link);
                }
                if let Some(rest) = times.checked_sub(1) {
                    let pause = Duration::from_millis(self.random.u64(1..120));
                    return later(pause, Fault::Flap(machine, rest));
                }
            }
            Fault::Offline(machine, time) => {
                self.network.refuse(machine, now + time);
                for link in self.network.links_of_machine(machine) {
                    self.reset(link);
                }
            }
            Fault::HalfOpen(machine) => {
                for link in self.network.links_of_machine(machine) {
                    if let Some((server, connection)) = self.network.server_end(link) {
                        self.servers[server].disconnect(connection);
                        self.network.closed(link);
                    }
                }
            }
            Fault::ResetServer(server) => {
                for link in self.network.links_of_server(server) {
                    self.reset_by_server(link);
                }
            }
            Fault::FreezeMachine(machine, time) => self.freeze(machine, time),
            Fault::Starve(machine, time, times) => {
                self.freeze(machine, time);
                if let Some(rest) = times.checked_sub(1) {
                    let pause = Duration::from_millis(self.random.u64(1..20));
                    return later(time + pause, Fault::Starve(machine, time, rest));
                }
            }
            Fault::Leave(machine, time) => {
                if let Some(machine) = &mut self.machines[machine] {
                    machine.leave();
                }
                let while_it_leaves = Duration::from_millis(self.random.u64(1..2_000));
                return later(while_it_leaves, Fault::KillMachine(machine, time));
            }
            Fault::FreezeServer(server, time) => self.servers[server].freeze(now + time),
            Fault::KillMachine(machine, time) => {
                self.kill(machine);
                return later(time, Fault::StartMachine(machine));
            }
            Fault::StartMachine(machine) => self.start(machine),
            Fault::KillServer(server, time, dump) => {
                self.stop_server(server, dump);
                return later(time, Fault::StartServer(server));
            }
            Fault::StartServer(server) => self.start_server(server),
            // A replica evicts nothing by itself.
            Fault::Evict(server, kind, one_in) => {
                let server = self.topology.primary_of(server);
                self.servers[server].evict(kind, one_in, &mut self.random);
                self.spread(server);
            }
            Fault::EvictOften(server, kind, times) => {
                let server = self.topology.primary_of(server);
                self.servers[server].evict(kind, 1, &mut self.random);
                self.spread(server);
                if let Some(rest) = times.checked_sub(1) {
                    let pause = Duration::from_millis(self.random.u64(1..6));
                    return later(pause, Fault::EvictOften(server, kind, rest));
                }
            }
            Fault::Collect(machine) => self.collect(machine),
            Fault::Drift(server, rate) => self.servers[server].drift(rate, now),
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
            Fault::StoreWorks => self.store_faults = self.store_speed,
            Fault::Lag(lag, time) => {
                self.topology.lag = lag;
                return later(time, Fault::NoLag);
            }
            Fault::NoLag => self.topology.lag = Time::ZERO,
            Fault::Failover(why, after) => return self.fail_over(why, after),
            Fault::MoveSlot(is_of_nodes, pause) => self.begin_moving(is_of_nodes, pause),
        }
        None
    }

    fn freeze(&mut self, machine: usize, time: Time) {
        if let Some(machine) = &mut self.machines[machine] {
            machine.frozen_until = (self.now + time).max(machine.frozen_until);
        }
    }

    fn stop_server(&mut self, server: usize, dump: Dump) {
        if self.servers[server].is_down {
            return;
        }
        self.servers[server].stop(dump);
        for link in self.network.links_of_server(server) {
            self.reset_by_server(link);
        }
    }

    /// Lets one of the primaries fail, and a replica replace it after a while.
    fn fail_over(&mut self, why: Why, after: Time) -> Option<(Time, Fault)> {
        let primaries: Vec<_> = self.topology.primaries().collect();
        let old = self.random.choice(primaries)?;
        let (now, shape) = (self.now, self.topology.shape);
        let tries = if matches!(why, Why::HandOver) { 1 } else { 20 };
        self.step_at(now + after, Step::Promote(old, tries));
        match why {
            Why::Killed(time, dump) => {
                self.stop_server(old, dump);
                return Some((time, Fault::StartServer(old)));
            }
            Why::Frozen(time) => self.servers[old].freeze(now + time),
            Why::HandOver if shape.is_cluster() => {
                // The primary answers nobody until a replica has all that it has.
                self.servers[old].freeze(now + after + STEP);
                self.step_at(now + after + STEP, Step::Inform(old));
            }
            Why::HandOver => {}
            Why::Split(time) => self.isolate(old, time),
            Why::Cut(time, side) => {
                self.isolate(old, time);
                for machine in 0..self.machines.len() {
                    let is_with_it = side >> machine & 1 == 1;
                    for server in 0..shape.servers() {
                        if is_with_it == (server == old) {
                            continue;
                        }
                        self.network.cut(machine, server, now + time);
                    }
                }
            }
        }
        None
    }

    /// Cuts a primary off from all other servers.
    fn isolate(&mut self, primary: usize, time: Time) {
        let shape = self.topology.shape;
        for other in (0..shape.servers()).filter(|other| *other != primary) {
            self.topology.split(primary, other, self.now + time);
        }
        if let Some(silent) = shape.node_timeout() {
            let silent = Duration::from_millis(silent);
            self.step_at(self.now + silent, Step::Refuse(primary));
            self.step_at(self.now + silent, Step::Rejoin(primary));
        }
    }
}
