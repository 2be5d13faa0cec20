//! [`Act`]: the faults of a scene, each time it happens.

use super::faults::{Fault, Trigger, Why};
use super::machine::Time;
use super::network::Way;
use super::plan::{draw_dump, draw_time};
use super::server::Dump;
use super::setting::{Setting, one_of};
use super::shape::Shape;
use std::ops::Range;
use std::time::Duration;

/// The faults of one act, and the event that starts them.
#[derive(Default)]
pub(crate) struct Act {
    pub(crate) trigger: Option<Trigger>,
    pub(crate) faults: Vec<Part>,
    /// How much later the next act begins.
    pub(crate) pause: Time,
}

/// A fault of an act.
pub(crate) struct Part {
    /// How much later than the act the fault begins.
    pub(crate) after: Time,
    /// Whether the fault is about the machine that has pulled the trigger.
    pub(crate) is_there: bool,
    pub(crate) fault: Fault,
}

/// Draws an act. Each method draws the faults of a scene, and returns how many milliseconds later the
/// next act begins.
pub(crate) struct Stage<'a> {
    pub(crate) random: &'a mut fastrand::Rng,
    pub(crate) setting: &'a Setting,
    pub(crate) act: Act,
}

impl Stage<'_> {
    pub(crate) fn lost_fences(&mut self) -> u64 {
        self.act.trigger = Some(Trigger::Change);
        let at = self.draw(0..self.setting.store.slow.min(800));
        let times = self.random.u32(2..40);
        match self.random.bool() {
            true => self.at_primaries(at, |server| Fault::Evict(server, "fence::", 1)),
            false => self.at_primaries(at, |server| Fault::EvictOften(server, "fence::", times)),
        }
        if self.random.u32(..6) == 0 {
            self.at_primaries(at, |server| Fault::Evict(server, "lease::", 1));
        }
        self.draw(200..700)
    }

    pub(crate) fn restored_fences(&mut self) -> u64 {
        self.act.trigger = Some(Trigger::Change);
        let lost = self.draw(20..400);
        let restored = lost + self.draw(20..300);
        // The replicas do not hear of the loss.
        let lag = Duration::from_millis(restored + 200);
        self.add(0, Fault::Lag(Duration::from_secs(8), lag));
        let times = self.random.u32(5..30);
        self.add(lost, Fault::EvictOften(0, "fence::", times));
        // A machine stays with the old primary.
        let (after, until) = (self.time(2..50), self.time(800..1_450));
        let why = Why::Cut(until, 1 << self.most_trusting());
        self.add(restored, Fault::Failover(why, after));
        self.draw(1_700..2_500)
    }

    pub(crate) fn stepped_clock(&mut self) -> u64 {
        let longest = self.longest();
        let machine = self.machine();
        let (at, time) = self.silence(machine);
        let share = one_of(self.random, &[30, 60, 90, 150, 250, 400]);
        let step = (longest * share / 100) as i64;
        self.at_primaries(at, |server| Fault::StepClock(server, step));
        self.at_primaries(time, |server| Fault::StepClock(server, -step));
        time + self.known_again()
    }

    pub(crate) fn lost_nodes(&mut self) -> u64 {
        let machine = match self.random.bool() {
            true => self.most_trusting(),
            false => self.machine(),
        };
        let (at, time) = self.silence(machine);
        match self.random.u32(..4) {
            0 => {
                let (server, time, dump) =
                    (self.primary(), self.time(1..30), draw_dump(self.random));
                self.add(at, Fault::KillServer(server, time, dump));
            }
            kind => {
                self.at_primaries(at, |server| Fault::Evict(server, "layercache::", 1));
                let others = (0..self.setting.nodes()).filter(|other| *other != machine);
                for other in others.filter(|_| kind > 1) {
                    let later = at + self.draw(0..60);
                    self.add(later, Fault::ResetMachine(other));
                }
            }
        }
        time + self.known_again()
    }

    /// Cuts a machine off from all servers, for longer than it trusts its memory. Returns after which
    /// time something else happens, and when the machine is back.
    fn silence(&mut self, machine: usize) -> (u64, u64) {
        let trust = self.setting.trusts[machine].as_millis() as u64;
        let time = trust + self.draw(100..400);
        let hears_only = self.random.u32(..4) == 0;
        for server in 0..self.setting.shape.servers() {
            let time = Duration::from_millis(time);
            let fault = match hears_only {
                true => Fault::Hold(to_machine(machine, server), time),
                false => Fault::Cut(machine, server, time),
            };
            self.add(0, fault);
        }
        (self.draw(1..trust / 3), time)
    }

    /// Returns after which time all nodes know how long each other node trusts its memory.
    fn known_again(&mut self) -> u64 {
        self.longest() * 11 / 10 + self.draw(200..500)
    }

    pub(crate) fn cut_primary(&mut self) -> u64 {
        let after = self.draw(20..500);
        let time = after + self.draw(300..2 * self.longest() + 300);
        if self.random.u32(..4) == 0 {
            let lag = Fault::Lag(Duration::from_secs(8), Duration::from_millis(after));
            self.add(0, lag);
        }
        let (after, until) = (Duration::from_millis(after), Duration::from_millis(time));
        let why = match self.random.u32(..6) {
            0 => Why::Split(until),
            1 => Why::HandOver,
            2..4 => Why::Cut(until, 1 << self.most_trusting()),
            _ => Why::Cut(until, self.random.u8(..)),
        };
        self.add(0, Fault::Failover(why, after));
        if self.random.u32(..3) == 0 {
            // A node that still uses the old primary purges it.
            let at = after.as_millis() as u64 + self.draw(60..400);
            let machine = self.most_trusting();
            self.add(at, Fault::Collect(machine));
        }
        time + self.draw(500..1_500)
    }

    pub(crate) fn frozen_primary(&mut self) -> u64 {
        let silent = self.setting.shape.node_timeout().unwrap_or_default();
        let after = silent + self.draw(20..150);
        let time = after + self.draw(300..1_000);
        let (after, until) = (Duration::from_millis(after), Duration::from_millis(time));
        self.add(0, Fault::Failover(Why::Frozen(until), after));
        time + self.draw(500..1_500)
    }

    pub(crate) fn late_sentinels(&mut self) -> u64 {
        let shape = self.setting.shape;
        let machine = self.most_trusting();
        // A node waits half a second for the sentinels.
        let late = self.time(440..495);
        let silent = self.time(1_000..2_000);
        for server in shape.data()..shape.servers() {
            let way = to_machine(machine, server);
            self.add(0, Fault::Stretch(way, late, silent));
        }
        let (split, after) = (self.time(1_500..2_500), self.time(2..20));
        let at = self.draw(60..200);
        self.add(at, Fault::Failover(Why::Split(split), after));
        self.draw(2_500..4_000)
    }

    pub(crate) fn old_data(&mut self) -> u64 {
        let time = self.time(1..60);
        if matches!(self.setting.shape, Shape::Single) || self.random.bool() {
            let dump = one_of(self.random, &[Dump::Old, Dump::Old, Dump::Latest]);
            let (server, machine) = (self.primary(), self.machine());
            match self.random.bool() {
                true => self.add(0, Fault::KillServer(server, time, dump)),
                false => {
                    // The machine may be the one that purges the server.
                    self.add(0, Fault::KillServer(server, Duration::from_millis(1), dump));
                    let at = self.draw(3..50);
                    let dead = self.time(50..800);
                    self.add(at, Fault::KillMachine(machine, dead));
                }
            }
            return self.draw(700..1_500);
        }
        // The replica has missed what its primary changed in the last moments.
        let before = self.draw(10..800);
        let lag = Fault::Lag(Duration::from_secs(8), Duration::from_millis(before));
        self.add(0, lag);
        let (longer, after) = (draw_time(self.random), self.time(20..200));
        let dead = Why::Killed(longer, Dump::Empty);
        self.add(before, Fault::Failover(dead, after));
        self.draw(1_500..3_000)
    }

    pub(crate) fn collections(&mut self) -> u64 {
        self.act.trigger = self.random.bool().then_some(Trigger::Load);
        let machine = self.machine();
        self.add(0, Fault::Collect(machine));
        self.draw(200..700)
    }

    pub(crate) fn late_tries(&mut self) -> u64 {
        self.act.trigger = Some(Trigger::Asked);
        let (server, late) = (self.primary(), self.draw(300..900));
        let time = Duration::from_millis(late);
        let gone = self.draw(2..20);
        // Redis receives the first try late.
        self.add_there(0, Fault::Stall(to_server(0, server), time));
        self.add_there(gone, Fault::Forsake(0));
        // The fence of the second try is lost before the first try arrives.
        let lost = gone + self.draw(60..150);
        let times = self.random.u32(10..40);
        self.at_primaries(lost, |server| Fault::EvictOften(server, "fence::", times));
        self.draw(500..1_200)
    }

    pub(crate) fn late_commands(&mut self) -> u64 {
        let (machine, server) = (self.machine(), self.primary());
        let trust = self.setting.trusts[machine].as_millis() as u64;
        // A node gives its connection up when the server has had no standing for as long as its trust.
        let time = self.time(trust * 5 / 4..3 * trust);
        // All nodes load everything again.
        let other = self.machine();
        self.add(0, Fault::Collect(other));
        let at = self.draw(10..100);
        self.add(at, Fault::Stall(to_server(machine, server), time));
        2 * trust + self.draw(100..600)
    }

    pub(crate) fn late_messages(&mut self) -> u64 {
        self.act.trigger = Some(Trigger::Asked);
        let deaf = self.machine();
        let trust = self.setting.trusts[deaf].as_millis() as u64;
        let late = self.draw(trust / 2..trust * 19 / 20);
        let (time, silent) = (Duration::from_millis(late), self.time(trust..2 * trust));
        let before = self.draw(0..8);
        for server in 0..self.setting.shape.primaries() {
            self.add_there(1, Fault::Stall(to_server(0, server), time));
            self.add(late - before, Fault::Hold(to_machine(deaf, server), silent));
        }
        late + 2 * trust + self.draw(100..500)
    }

    pub(crate) fn late_heartbeats(&mut self) -> u64 {
        self.act.trigger = Some(Trigger::Heartbeat);
        let trust = self.setting.trusts[0].as_millis() as u64;
        let first = self.time(trust / 2..trust * 19 / 20);
        let second = self.time(trust..3 * trust);
        // The node first asks who the server is. Then it sends the heartbeat.
        let at = self.draw(5..50);
        for server in 0..self.setting.shape.primaries() {
            let way = to_machine(0, server);
            self.add_there(at, Fault::Stretch(way, first, second));
        }
        trust * 3 + self.draw(100..500)
    }

    pub(crate) fn offline(&mut self) -> u64 {
        let (machine, time) = (self.machine(), self.time(50..1_500));
        match self.random.bool() {
            true => self.add(0, Fault::Offline(machine, time)),
            false => {
                for server in 0..self.setting.shape.servers() {
                    self.add(0, Fault::Cut(machine, server, time));
                }
            }
        }
        self.draw(500..1_500)
    }

    pub(crate) fn full_servers(&mut self) -> u64 {
        let time = self.draw(50..1_500);
        let full = Duration::from_millis(time);
        self.at_primaries(0, |server| Fault::Fill(server, full));
        // Each change waits for a machine that hears nothing.
        let deaf = self.machine();
        let at = self.draw(0..time);
        let silent = self.time(200..1_000);
        for server in 0..self.setting.shape.primaries() {
            self.add(at, Fault::Hold(to_machine(deaf, server), silent));
        }
        self.draw(600..1_300)
    }

    pub(crate) fn deaths(&mut self) -> u64 {
        self.act.trigger = Some(Trigger::Change);
        let (at, time) = (self.draw(0..self.setting.store.slow), self.time(50..800));
        self.add_there(at, Fault::KillMachine(0, time));
        self.draw(250..600)
    }

    pub(crate) fn crowds(&mut self) -> u64 {
        self.act.trigger = Some(Trigger::Asked);
        let machine = self.machine();
        // The machine hears of the first changes only.
        let (at, time) = (self.draw(2..12), self.time(100..400));
        for server in 0..self.setting.shape.primaries() {
            self.add(at, Fault::Hold(to_machine(machine, server), time));
        }
        self.draw(300..600)
    }

    /// Adds a fault that begins this many milliseconds later than the act.
    fn add(&mut self, at: u64, fault: Fault) {
        self.push(at, false, fault);
    }

    /// Adds a fault that is about the machine that has pulled the trigger.
    fn add_there(&mut self, at: u64, fault: Fault) {
        self.push(at, true, fault);
    }

    fn push(&mut self, at: u64, is_there: bool, fault: Fault) {
        let after = Duration::from_millis(at);
        self.act.faults.push(Part {
            after,
            is_there,
            fault,
        });
    }

    /// Adds a fault of each server that is a primary at the beginning.
    fn at_primaries(&mut self, at: u64, fault: impl Fn(usize) -> Fault) {
        for server in 0..self.setting.shape.primaries() {
            self.add(at, fault(server));
        }
    }

    /// Draws a number of the range, or returns its start if the range is empty.
    fn draw(&mut self, range: Range<u64>) -> u64 {
        self.random.u64(range.start..range.end.max(range.start + 1))
    }

    fn time(&mut self, range: Range<u64>) -> Time {
        Duration::from_millis(self.draw(range))
    }

    fn machine(&mut self) -> usize {
        self.random.usize(..self.setting.nodes())
    }

    fn primary(&mut self) -> usize {
        self.random.usize(..self.setting.shape.primaries())
    }

    fn longest(&self) -> u64 {
        self.setting.longest_trust().as_millis() as u64
    }

    /// Returns a machine that trusts its memory longest.
    fn most_trusting(&self) -> usize {
        let trusts = self.setting.trusts.iter().enumerate();
        let most = trusts.max_by_key(|(_, trust)| **trust);
        most.map_or(0, |(machine, _)| machine)
    }
}

const fn to_machine(machine: usize, server: usize) -> Way {
    Way {
        machine,
        server,
        to_server: false,
    }
}

const fn to_server(machine: usize, server: usize) -> Way {
    Way {
        machine,
        server,
        to_server: true,
    }
}
