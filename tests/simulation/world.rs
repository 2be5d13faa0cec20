//! [`World`]: the machines, the servers, the network between them, and the order of events.

use super::clock::Clock;
use super::collect::Collected;
use super::faults::{Armed, Fault, Trigger};
use super::machine::{Machine, NodeConfig, Time};
use super::network::{Link, Network};
use super::outbox::Emission;
use super::request::Request;
use super::running::Running;
use super::server::Server;
use super::setting::Setting;
use super::signed::Signed;
use super::store::Call;
use super::stream::{End, SimStream};
use super::topology::{Step, Topology};
use super::traffic::{Client, Limits};
use super::truth::{Made, Truth};
use super::values::Values;
use histories::record::{Fact, History};
use object_store::memory::InMemory;
use simulated_redis::Flavor;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The shortest time of anything on the network.
pub(crate) const STEP: Time = Duration::from_millis(1);

/// Something that happens outside of the machines.
pub(crate) enum Event {
    Connect {
        machine: usize,
        host: String,
        reply: oneshot::Sender<io::Result<SimStream>>,
    },
    /// Bytes arrive at a server.
    Receive(Link, Vec<u8>),
    /// A server learns that a machine has closed a connection.
    Closed(Link),
    /// Bytes arrive at a machine.
    Deliver(Link, Vec<u8>),
    /// A machine learns that a connection has ended.
    End(Link, End),
    Execute(usize, Box<dyn Call>, Fate),
    Reply(usize, Box<dyn Call>, bool),
    Step(Step),
    /// A fault begins.
    Fault(Fault),
    /// The holder of a signed URL uses it.
    Use(Signed),
    /// A server loses the fence of a signed URL. The faults may have ended long before.
    Lose(Fault),
    /// A client asks a node.
    Ask(usize, Request),
    /// A fault waits for its trigger from now on.
    Arm(Armed, Fault),
}

/// How a call to the store ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Works,
    /// It happens, and its caller gets an error.
    FailsAfter,
    /// It happens after its caller has got an error.
    HappensLate,
}

/// How long after its error a call may happen, in milliseconds.
const LATEST: u64 = 2_000;

/// The faults of the store.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreFaults {
    /// One in this many calls fails; 0 for none.
    pub(crate) one_in: u32,
    /// The longest time of a call, in milliseconds.
    pub(crate) slow: u64,
    /// How many of 100 calls take up to that time. The others take some milliseconds.
    pub(crate) share: u32,
}

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) history: History,
    pub(crate) running: Running,
    pub(crate) values: Values,
    pub(crate) now: Time,
    pub(crate) random: fastrand::Rng,
    pub(crate) machines: Vec<Option<Machine>>,
    pub(crate) servers: Vec<Server>,
    pub(crate) topology: Topology,
    pub(crate) network: Network,
    pub(crate) backend: Arc<InMemory>,
    /// How the store works without a fault, and how it works now.
    pub(crate) store_speed: StoreFaults,
    pub(crate) store_faults: StoreFaults,
    pub(crate) blobs: u32,
    /// How the node of each machine is configured.
    pub(crate) configs: Vec<NodeConfig>,
    pub(crate) limits: Limits,
    pub(crate) truth: Truth,
    /// The facts that an exception from the promise is about.
    pub(crate) undecided: BTreeSet<Fact>,
    pub(crate) collected: Collected,
    /// Whether clients still send changes.
    pub(crate) is_busy: bool,
    /// How many faults have yet to begin, or have to end.
    pub(crate) open_faults: usize,
    /// Until when a signed URL may be used, and its end may take.
    pub(crate) signed_until: Time,
    /// The faults that wait for their trigger.
    pub(crate) armed: Vec<(Armed, Fault)>,
    /// The hash of all that has happened.
    pub(crate) hash: u64,
    queue: BTreeMap<(Time, u64), Event>,
    events: u64,
}

impl World {
    pub(crate) fn new(seed: u64, setting: &Setting) -> Self {
        let (blobs, shape) = (setting.blobs, setting.shape);
        let mut random = fastrand::Rng::with_seed(seed);
        let flavors = [Flavor::Redis6_2, Flavor::Redis7, Flavor::Valkey];
        let flavor = random.choice(flavors).expect("there are some");
        let servers = 0..shape.servers();
        let servers = servers.map(|number| Server::new(number, flavor, random.u64(..)));
        let mut world = Self {
            clock: Clock::default(),
            history: History::default(),
            running: Running::default(),
            values: Values::default(),
            now: Time::ZERO,
            servers: servers.collect(),
            topology: Topology::new(shape),
            random,
            machines: Vec::new(),
            network: Network::new(setting.network, setting.far),
            backend: Arc::default(),
            store_speed: setting.store,
            store_faults: setting.store,
            blobs,
            configs: Vec::new(),
            limits: Limits::default(),
            truth: Truth::default(),
            undecided: BTreeSet::new(),
            collected: Collected::default(),
            is_busy: true,
            open_faults: 0,
            signed_until: Time::ZERO,
            armed: Vec::new(),
            hash: seed,
            queue: BTreeMap::new(),
            events: 0,
        };
        world.assemble();
        world
    }

    /// Starts a machine that does not run.
    pub(crate) fn start(&mut self, machine: usize) {
        if self.machines[machine].is_none() {
            let config = &self.configs[machine];
            self.machines[machine] = Some(Machine::start(self.now, &self.backend, config));
        }
    }

    /// Ends a process as a power failure does. The servers learn of it.
    pub(crate) fn kill(&mut self, machine: usize) {
        self.machines[machine] = None;
        self.running.died(machine, &self.clock);
        self.truth.died.push((machine, self.clock.next()));
        for link in self.network.links_of_machine(machine) {
            self.network.ended(link);
            self.close(link, self.now);
        }
    }

    /// Returns the node on a machine, as its clients see it.
    pub(crate) fn client(&self, node: usize) -> Option<Client> {
        let machine = self.machines[node].as_ref()?;
        Some(Client {
            stores: machine.stores.clone(),
            busy: machine.busy.clone(),
            outbox: machine.outbox.clone(),
            limits: self.limits,
            node,
            clock: self.clock.clone(),
            history: self.history.clone(),
            running: self.running.clone(),
            values: self.values.clone(),
            collected: self.collected.clone(),
            blobs: self.blobs,
        })
    }

    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.events += 1;
        self.queue.insert((time, self.events), event);
    }

    pub(crate) fn note(&mut self, what: u64, bytes: &[u8]) {
        let mut hash = self.hash ^ what ^ (self.now.as_millis() as u64) << 8;
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash = hash.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Lets the world run until `until`.
    pub(crate) fn run(&mut self, until: Time) {
        while self.now < until || self.is_anything_ready() {
            self.step(until);
        }
    }

    fn is_anything_ready(&self) -> bool {
        let ready = |machine: &Machine| machine.is_woken && machine.frozen_until <= self.now;
        let is_due = |time: &Time| *time <= self.now;
        self.machines.iter().flatten().any(ready)
            || self
                .queue
                .keys()
                .next()
                .is_some_and(|(time, _)| is_due(time))
    }

    /// Runs all machines until the next event, then lets it happen.
    fn step(&mut self, until: Time) {
        let mut end = self.next_event().min(until).max(self.now);
        for i in 0..self.machines.len() {
            while let Some(machine) = &mut self.machines[i] {
                if machine.frozen_until > self.now {
                    // A machine wakes exactly when its freeze ends.
                    end = end.min(machine.frozen_until);
                    break;
                }
                if machine.now < self.now {
                    machine.jump(self.now);
                }
                if machine.now >= end && !machine.is_woken {
                    break;
                }
                let emissions = machine.run(end.max(machine.now));
                for (at, emission) in emissions {
                    self.sent(i, at, emission);
                }
                end = end.min(self.next_event()).max(self.now);
            }
        }
        self.now = end;
        self.clock.set(end);
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let event = entry.remove();
            self.happen(event);
        }
    }

    fn next_event(&self) -> Time {
        let next = self.queue.keys().next();
        next.map_or(Time::MAX, |(time, _)| *time)
    }

    /// A machine has sent something, at `at`.
    fn sent(&mut self, machine: usize, at: Time, emission: Emission) {
        let at = at.max(self.now);
        match emission {
            Emission::Connect { host, reply } => {
                let time = at + self.network.delay(&mut self.random);
                let event = Event::Connect {
                    machine,
                    host,
                    reply,
                };
                self.at(time, event);
            }
            Emission::Bytes(link, bytes) => {
                self.may_be_heartbeat(machine, &bytes);
                if let Some(time) = self.network.arrival_at_server(link, at, &mut self.random) {
                    self.at(time, Event::Receive(link, bytes));
                }
            }
            Emission::Close(link) => {
                self.close(link, at);
                self.network.ended(link);
            }
            Emission::Call(call) => self.call(machine, at, call),
            Emission::Signed(signed) => self.signed(at, signed),
            Emission::Changed(fact, present) => self.changed(at, fact, present),
        }
    }

    fn close(&mut self, link: Link, at: Time) {
        if let Some(time) = self.network.arrival_at_server(link, at, &mut self.random) {
            self.at(time, Event::Closed(link));
        }
    }

    /// Ends a connection at both ends.
    pub(crate) fn reset(&mut self, link: Link) {
        let now = self.now;
        self.at(now + STEP, Event::Closed(link));
        self.at(now + STEP, Event::End(link, End::Reset));
    }

    /// A server ends a connection. The machine learns of it when it hears from the server again.
    pub(crate) fn reset_by_server(&mut self, link: Link) {
        let now = self.now;
        self.at(now + STEP, Event::Closed(link));
        let heard = self.network.arrival_at_machine(link, now, &mut self.random);
        self.at(heard.unwrap_or(now + STEP), Event::End(link, End::Reset));
    }

    /// A machine ends a connection. The server first receives the bytes that the machine has sent,
    /// and then learns of the end.
    pub(crate) fn forsake(&mut self, link: Link) {
        self.at(self.now + STEP, Event::End(link, End::Reset));
        self.close(link, self.now);
    }

    fn store_delay(&mut self) -> Time {
        let slow = self.store_faults.slow;
        let millis = match self.random.u32(..100) {
            number if number < self.store_faults.share => self.random.u64(1..2 + slow),
            30.. => 1,
            _ => self.random.u64(1..8),
        };
        Duration::from_millis(millis)
    }

    fn call(&mut self, machine: usize, at: Time, call: Box<dyn Call>) {
        match call.changes() {
            Some((_, true)) if self.random.u32(..3) > 0 => {}
            Some(_) => self.pull(Trigger::Change, machine),
            None => self.pull(Trigger::Load, machine),
        }
        let time = at + self.store_delay();
        let fails = match self.store_faults.one_in {
            0 => false,
            one_in => self.random.u32(..one_in) == 0,
        };
        let fate = match self.random.u32(..3) {
            _ if !fails => Fate::Works,
            0 => return self.at(time, Event::Reply(machine, call, true)),
            1 => Fate::FailsAfter,
            _ if call.changes().is_none() => Fate::FailsAfter,
            _ => Fate::HappensLate,
        };
        self.at(time, Event::Execute(machine, call, fate));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connect {
                machine,
                host,
                reply,
            } => self.connect(machine, &host, reply),
            Event::Receive(link, bytes) => self.receive(link, bytes),
            Event::Closed(link) => {
                if let Some((server, connection)) = self.network.server_end(link) {
                    self.servers[server].disconnect(connection);
                    self.network.closed(link);
                }
            }
            Event::Deliver(link, bytes) => {
                let Some((machine, inbox)) = self.network.machine_end(link) else {
                    return;
                };
                self.note(2, &bytes);
                inbox.deliver(&bytes);
                self.wake(machine);
            }
            Event::End(link, end) => {
                if let Some((machine, inbox)) = self.network.machine_end(link) {
                    inbox.end(end);
                    self.wake(machine);
                    self.network.ended(link);
                }
            }
            Event::Execute(machine, mut call, Fate::HappensLate) => {
                call.reply(true);
                self.wake(machine);
                let late = Duration::from_millis(self.random.u64(1..LATEST));
                self.at(
                    self.now + late,
                    Event::Execute(machine, call, Fate::FailsAfter),
                );
            }
            Event::Execute(machine, mut call, fate) => {
                call.execute();
                let changed = call
                    .changes()
                    .map(|(path, present)| (path.clone(), present));
                if let Some((path, present)) = &changed
                    && let Some(fact) = self.fact_at(path)
                {
                    self.truth.made.push(Made {
                        at: self.clock.next(),
                        node: machine,
                        fact,
                        present: *present,
                        version: self.version(fact),
                    });
                }
                let path = changed.as_ref().map_or("", |(path, _)| path.as_ref());
                self.note(3, path.as_bytes());
                let delay = self.store_delay();
                let fails = !matches!(fate, Fate::Works);
                self.at(self.now + delay, Event::Reply(machine, call, fails));
            }
            Event::Reply(machine, mut call, fails) => {
                call.reply(fails);
                self.wake(machine);
            }
            Event::Step(step) => self.take_step(step),
            Event::Fault(fault) => self.begin(fault),
            Event::Use(signed) => self.use_signed(signed),
            Event::Lose(fault) => {
                self.strike(fault);
            }
            Event::Ask(node, request) => self.ask(node, request, None),
            Event::Arm(armed, fault) => {
                self.open_faults -= 1;
                self.armed.push((armed, fault));
            }
        }
    }

    pub(crate) fn wake(&mut self, machine: usize) {
        if let Some(machine) = &mut self.machines[machine] {
            machine.is_woken = true;
        }
    }
}
