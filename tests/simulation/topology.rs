//! [`Topology`]: how the servers of a run work together.

use super::cluster::{Moving, Slots};
use super::machine::Time;
use super::shape::{SERVICE, Shape, host};
use super::world::{Event, STEP, World};
use histories::record::Span;
use simulated_redis::{Effect, SentinelView, Service};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a server waits before it tries again what needs another server.
const AGAIN: Time = Duration::from_millis(50);

/// How many milliseconds after it was frozen a server learns at the latest that it was replaced.
const WAKING: u64 = 150;

/// What servers do by themselves.
#[derive(Debug)]
pub(crate) enum Step {
    /// Effects of a primary arrive at a replica that has begun to follow it as often as this.
    Effects(usize, u64, Vec<Effect>),
    /// A message of another server of the cluster arrives.
    Message(usize, Vec<u8>, Vec<u8>),
    /// A replica replaces this primary. It is tried this often.
    Promote(usize, u32),
    /// A server or a sentinel learns which servers are primaries.
    Inform(usize),
    /// A primary that was replaced can be reached again.
    Rejoin(usize),
    /// A server becomes a replica of the one that it has to follow.
    Attach(usize),
    /// A server that starts again.
    Start(usize),
    /// A server of the cluster does not reach most of the others.
    Refuse(usize),
    /// A slot of the cluster goes on moving.
    Move,
}

#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) shape: Shape,
    /// The server that each server has to follow.
    pub(crate) follows: Vec<Option<usize>>,
    /// The server whose effects each server gets.
    source: Vec<Option<usize>>,
    /// How often each server has begun to follow another one, or has ended it.
    attached: Vec<u64>,
    /// When the last bytes of a server arrive at another one.
    last: BTreeMap<(usize, usize), Time>,
    /// Until when two servers do not reach each other.
    splits: BTreeMap<(usize, usize), Time>,
    /// How much later effects arrive at replicas.
    pub(crate) lag: Time,
    pub(crate) epoch: u64,
    pub(crate) slots: Slots,
    pub(crate) moving: Option<Moving>,
}

impl Topology {
    pub(crate) fn new(shape: Shape) -> Self {
        let (data, primaries) = (shape.data(), shape.primaries());
        let follows = (0..data).map(|server| (server >= primaries).then(|| server % primaries));
        Self {
            shape,
            follows: follows.collect(),
            source: vec![None; data],
            attached: vec![0; data],
            last: BTreeMap::new(),
            splits: BTreeMap::new(),
            lag: Time::ZERO,
            epoch: 1,
            slots: Slots::new(data, primaries),
            moving: None,
        }
    }

    pub(crate) fn split(&mut self, one: usize, other: usize, until: Time) {
        let split = self.splits.entry((one.min(other), one.max(other)));
        let split = split.or_default();
        *split = until.max(*split);
    }

    pub(crate) fn is_split(&self, one: usize, other: usize, now: Time) -> bool {
        let split = self.splits.get(&(one.min(other), one.max(other)));
        split.is_some_and(|until| *until > now)
    }

    pub(crate) fn heal(&mut self) {
        self.splits.clear();
        self.lag = Time::ZERO;
    }

    /// Returns whether a server does not reach most of the other servers.
    pub(crate) fn is_isolated(&self, server: usize, now: Time) -> bool {
        let others = (0..self.shape.servers()).filter(|other| *other != server);
        let (all, split) = others.fold((0, 0), |(all, split), other| {
            (
                all + 1,
                split + usize::from(self.is_split(server, other, now)),
            )
        });
        split * 2 > all
    }

    /// Returns when what a server sends now arrives at another one.
    fn arrival(&mut self, from: usize, to: usize, time: Time) -> Time {
        let split = self.splits.get(&(from.min(to), from.max(to)));
        let split = split.copied().unwrap_or_default();
        let last = self.last.entry((from, to)).or_default();
        *last = time.max(split).max(*last);
        *last
    }

    /// Returns the servers that are primaries as far as the most sentinels or servers know.
    pub(crate) fn primaries(&self) -> impl Iterator<Item = usize> {
        let follows = self.follows.iter().enumerate();
        follows
            .filter(|(_, follows)| follows.is_none())
            .map(|(server, _)| server)
    }

    pub(crate) fn is_primary(&self, server: usize) -> bool {
        self.follows.get(server).is_some_and(Option::is_none)
    }

    /// Returns the server's primary, or the server if it is one.
    pub(crate) fn primary_of(&self, server: usize) -> usize {
        self.follows
            .get(server)
            .copied()
            .flatten()
            .unwrap_or(server)
    }
}

impl World {
    /// Makes the replicas, the sentinels and the cluster.
    pub(crate) fn assemble(&mut self) {
        let shape = self.topology.shape;
        if shape.is_cluster() {
            for server in 0..shape.data() {
                let view = self.cluster_view(server);
                self.servers[server].set_cluster(view);
            }
        }
        for server in 0..shape.data() {
            self.attach(server);
        }
        for sentinel in shape.data()..shape.servers() {
            let view = self.sentinel_view();
            self.servers[sentinel].set_sentinel(view);
        }
    }

    /// Returns whether all servers work, and each replica follows its primary.
    pub(crate) fn is_assembled(&self) -> bool {
        let topology = &self.topology;
        (0..self.servers.len()).all(|server| self.is_up(server))
            && topology.source == topology.follows
    }

    fn is_up(&self, server: usize) -> bool {
        let there = &self.servers[server];
        !there.is_down && there.frozen_until(self.now).is_none()
    }

    /// Returns whether both servers work and reach each other.
    pub(crate) fn can_talk(&self, one: usize, other: usize) -> bool {
        self.is_up(one) && self.is_up(other) && !self.topology.is_split(one, other, self.now)
    }

    /// Returns a time up to this many milliseconds from now.
    pub(crate) fn soon(&mut self, millis: u64) -> Time {
        self.now + STEP + Duration::from_millis(self.random.u64(..millis))
    }

    pub(crate) fn step_at(&mut self, time: Time, step: Step) {
        self.at(time, Event::Step(step));
    }

    /// Sends what a server has changed to its replicas, and its messages to the rest of the cluster.
    pub(crate) fn spread(&mut self, from: usize) {
        let shape = self.topology.shape;
        if matches!(shape, Shape::Single) || from >= shape.data() {
            return;
        }
        let effects = self.servers[from].take_effects();
        for to in 0..shape.data() {
            if effects.is_empty() || self.topology.source[to] != Some(from) {
                continue;
            }
            let time = self.soon(2) + self.topology.lag;
            let time = self.topology.arrival(from, to, time);
            let attached = self.topology.attached[to];
            self.step_at(time, Step::Effects(to, attached, effects.clone()));
        }
        for (channel, message) in self.servers[from].take_published() {
            for to in (0..shape.data()).filter(|to| *to != from) {
                let time = self.soon(2);
                let time = self.topology.arrival(from, to, time);
                self.step_at(time, Step::Message(to, channel.clone(), message.clone()));
            }
        }
    }

    /// Lets servers do a step.
    pub(crate) fn take_step(&mut self, step: Step) {
        match step {
            Step::Effects(to, ..) | Step::Message(to, ..) | Step::Inform(to) | Step::Refuse(to)
                if self.servers[to].frozen_until(self.now).is_some() =>
            {
                let until = self.servers[to].frozen_until(self.now);
                let later = match step {
                    // It may read from its clients before it reads from the other servers.
                    Step::Inform(_) => Duration::from_millis(self.random.u64(..WAKING)),
                    _ => Time::ZERO,
                };
                self.step_at(until.unwrap_or(self.now) + later, step);
            }
            Step::Effects(to, attached, effects) => {
                if self.topology.attached[to] == attached && !self.servers[to].is_down {
                    self.servers[to].apply(&effects, self.now);
                    self.spread(to);
                }
            }
            Step::Message(to, channel, message) => {
                if !self.servers[to].is_down {
                    self.servers[to].publish(&channel, &message);
                    self.send_outputs(to);
                }
            }
            Step::Promote(old, tries) => self.promote(old, tries),
            Step::Inform(server) => match self.is_up(server) && !self.is_alone(server) {
                true => self.inform(server),
                false => self.step_at(self.now + AGAIN, step),
            },
            Step::Rejoin(server) if !self.is_up(server) || self.is_alone(server) => {
                self.step_at(self.now + AGAIN, step);
            }
            Step::Rejoin(server) => {
                let wait = if self.topology.shape.is_cluster() {
                    300
                } else {
                    3_000
                };
                let time = self.soon(wait);
                self.step_at(time, Step::Inform(server));
                self.step_at(time + STEP, Step::Attach(server));
            }
            Step::Attach(server) => self.attach(server),
            Step::Start(server) => self.start_server(server),
            Step::Refuse(server) => {
                if self.is_alone(server) {
                    let mut view = self.cluster_view(server);
                    view.is_ok = false;
                    self.servers[server].set_cluster(view);
                }
            }
            Step::Move => self.go_on_moving(),
        }
    }

    fn is_alone(&self, server: usize) -> bool {
        self.topology.is_isolated(server, self.now)
    }

    /// Tells a server or a sentinel at once which servers are primaries.
    pub(crate) fn inform(&mut self, server: usize) {
        if self.topology.shape.is_cluster() {
            let view = self.cluster_view(server);
            self.servers[server].set_cluster(view);
        } else if server >= self.topology.shape.data() {
            let view = self.sentinel_view();
            self.servers[server].set_sentinel(view);
        }
    }

    fn sentinel_view(&self) -> SentinelView {
        let shape = self.topology.shape;
        let primary = self.topology.primaries().next().unwrap_or_default();
        let places = |servers: std::ops::Range<usize>| {
            let others = servers.filter(|server| *server != primary);
            others.map(|server| (host(server), 6379)).collect()
        };
        let service = Service {
            host: host(primary),
            port: 6379,
            run_id: self.servers[primary].run_id(),
            epoch: self.topology.epoch,
            is_down: false,
            replicas: places(0..shape.data()),
            sentinels: places(shape.data()..shape.servers() - 1),
            quorum: 2,
        };
        SentinelView {
            services: BTreeMap::from([(SERVICE.to_owned(), service)]),
        }
    }

    /// Lets a replica replace a primary. What has not arrived there is lost.
    fn promote(&mut self, old: usize, tries: u32) {
        if self.topology.follows[old].is_some() || tries == 0 {
            return;
        }
        let is_moving = self.topology.moving.as_ref();
        let is_moving = is_moving.is_some_and(|moving| moving.is_of(old));
        let fits = |replica: &usize| {
            self.topology.source[*replica] == Some(old)
                && self.is_up(*replica)
                && !self.is_alone(*replica)
        };
        let replicas: Vec<_> = (0..self.topology.shape.data()).filter(fits).collect();
        let Some(new) = self.random.choice(replicas).filter(|_| !is_moving) else {
            return self.step_at(self.now + AGAIN, Step::Promote(old, tries - 1));
        };
        self.servers[new].promote(self.now);
        let topology = &mut self.topology;
        topology.attached[new] += 1;
        topology.source[new] = None;
        for follows in &mut topology.follows {
            if *follows == Some(old) {
                *follows = Some(new);
            }
        }
        topology.follows[old] = Some(new);
        topology.follows[new] = None;
        topology.epoch += 1;
        topology.slots.take_over(old, new, topology.epoch);
        let begin = self.clock.next();
        let now = Span { begin, end: begin };
        self.truth.fences_lost.push((now, None));
        self.truth.replaced.push(begin);
        self.history
            .fault(begin, format!("server {new} replaces server {old}"));
        self.tell_all(new);
        for replica in 0..self.topology.shape.data() {
            if self.topology.follows[replica] == Some(new) && replica != old {
                let time = self.soon(1_000);
                self.step_at(time, Step::Attach(replica));
            }
        }
        self.step_at(self.now + STEP, Step::Rejoin(old));
    }

    /// One server learns of a change at once, and the others soon.
    pub(crate) fn tell_all(&mut self, first: usize) {
        let shape = self.topology.shape;
        let servers = match shape.is_cluster() {
            true => 0..shape.data(),
            false => shape.data()..shape.servers(),
        };
        let first = match shape.is_cluster() {
            true => first,
            false => self.random.usize(servers.clone()),
        };
        for server in servers {
            let time = if server == first {
                self.now
            } else {
                self.soon(300)
            };
            self.step_at(time, Step::Inform(server));
        }
    }

    /// Makes a server a replica, with a copy of its primary's data.
    fn attach(&mut self, server: usize) {
        let Some(primary) = self.topology.follows[server] else {
            return;
        };
        if self.topology.source[server] == Some(primary) {
            return;
        }
        if !self.can_talk(server, primary) {
            return self.step_at(self.now + AGAIN, Step::Attach(server));
        }
        self.spread(primary);
        let Ok([replica, primary_server]) = self.servers.get_disjoint_mut([server, primary]) else {
            return;
        };
        replica.follow(primary_server, self.now);
        self.topology.source[server] = Some(primary);
        self.topology.attached[server] += 1;
        if !self.topology.shape.is_cluster() {
            for link in self.network.links_of_server(server) {
                self.reset_by_server(link);
            }
        }
    }

    /// Starts a server that was stopped. A replica starts only when it finds its primary.
    pub(crate) fn start_server(&mut self, server: usize) {
        if !self.servers[server].is_down {
            return;
        }
        if server >= self.topology.shape.data() {
            return self.servers[server].start(self.now);
        }
        if self.topology.source[server].is_some()
            && let Some(primary) = self.topology.follows[server]
        {
            let is_there = self.is_up(primary) && self.topology.source[primary].is_none();
            if !is_there || self.topology.is_split(server, primary, self.now) {
                return self.step_at(self.now + AGAIN, Step::Start(server));
            }
            self.servers[server].start(self.now);
            self.topology.source[server] = None;
            return self.attach(server);
        }
        self.servers[server].start(self.now);
        for replica in 0..self.topology.shape.data() {
            if self.topology.source[replica] == Some(server) {
                self.topology.source[replica] = None;
                self.topology.attached[replica] += 1;
                let time = self.soon(100);
                self.step_at(time, Step::Attach(replica));
            }
        }
    }
}
