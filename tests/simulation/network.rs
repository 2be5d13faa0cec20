//! [`Network`]: the connections, and how long bytes take on them.

use super::machine::Time;
pub(crate) use super::outbox::Link;
use super::outbox::Outbox;
use super::stream::{Inbox, SimStream};
use super::world::STEP;
use simulated_redis::ConnectionId;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::oneshot;

/// A way of bytes: from a machine to a server, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) machine: usize,
    pub(crate) server: usize,
    pub(crate) to_server: bool,
}

/// One in this many packets takes up to this many milliseconds longer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slowness {
    pub(crate) most: u64,
    pub(crate) one_in: u32,
}

/// The network between all machines and all servers.
#[derive(Debug, Default)]
pub(crate) struct Network {
    links: BTreeMap<Link, Open>,
    opened: Link,
    /// Until when a way holds its bytes back.
    held: BTreeMap<Way, Time>,
    /// Until when all servers refuse the connections of a machine.
    refused: BTreeMap<usize, Time>,
    /// How slow the network is without a fault, and how slow it is now.
    pub(crate) usual: Slowness,
    pub(crate) slow: Slowness,
    /// A machine that is far from all servers, and how much longer its messages take.
    far: Option<(usize, Time)>,
    /// Connections that are never answered.
    waiting: Vec<oneshot::Sender<io::Result<SimStream>>>,
}

#[derive(Debug)]
struct Open {
    machine: usize,
    server: usize,
    connection: ConnectionId,
    inbox: Inbox,
    /// When the last bytes arrive at the server, and at the machine.
    last: [Time; 2],
    /// Whether the server, and the machine, still have the connection.
    server_has: bool,
    machine_has: bool,
}

impl Network {
    pub(crate) fn new(usual: Slowness, far: Option<(usize, u64)>) -> Self {
        Self {
            far: far.map(|(machine, millis)| (machine, Duration::from_millis(millis))),
            usual,
            slow: usual,
            ..Self::default()
        }
    }

    pub(crate) fn delay(&self, random: &mut fastrand::Rng) -> Time {
        let slow = match random.u32(..self.slow.one_in.max(1)) {
            0 => random.u64(..=self.slow.most),
            _ => 0,
        };
        STEP + Duration::from_millis(random.u64(..2) + slow)
    }

    /// Holds the bytes of this way back until then.
    pub(crate) fn hold(&mut self, way: Way, until: Time) {
        let held = self.held.entry(way).or_default();
        *held = until.max(*held);
    }

    /// Holds the bytes of both ways between a machine and a server back until then.
    pub(crate) fn cut(&mut self, machine: usize, server: usize, until: Time) {
        for to_server in [true, false] {
            let way = Way {
                machine,
                server,
                to_server,
            };
            self.hold(way, until);
        }
    }

    /// Holds the bytes of the open connections of this way back until then.
    pub(crate) fn stall(&mut self, way: Way, until: Time) {
        let is_of = |open: &&mut Open| open.machine == way.machine && open.server == way.server;
        for open in self.links.values_mut().filter(is_of) {
            let last = &mut open.last[usize::from(!way.to_server)];
            *last = until.max(*last);
        }
    }

    pub(crate) fn refuse(&mut self, machine: usize, until: Time) {
        self.refused.insert(machine, until);
    }

    pub(crate) fn refuses(&self, machine: usize, now: Time) -> bool {
        self.refused.get(&machine).is_some_and(|until| *until > now)
    }

    /// Ends all faults, and makes the network fast.
    pub(crate) fn heal(&mut self) {
        self.held.clear();
        self.refused.clear();
        (self.slow, self.far) = (Slowness::default(), None);
    }

    /// Returns whether bytes are held back between the two.
    pub(crate) fn is_cut(&self, machine: usize, server: usize, now: Time) -> bool {
        [true, false].iter().any(|to_server| {
            let way = Way {
                machine,
                server,
                to_server: *to_server,
            };
            self.held.get(&way).is_some_and(|until| *until > now)
        })
    }

    pub(crate) fn keep_waiting(&mut self, reply: oneshot::Sender<io::Result<SimStream>>) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(reply);
    }

    pub(crate) fn open(
        &mut self,
        machine: usize,
        server: usize,
        connection: ConnectionId,
        outbox: &Outbox,
    ) -> SimStream {
        self.opened += 1;
        let (link, inbox) = (self.opened, Inbox::default());
        let stream = SimStream::new(link, outbox.clone(), inbox.clone());
        let open = Open {
            machine,
            server,
            connection,
            inbox,
            last: [Time::ZERO; 2],
            server_has: true,
            machine_has: true,
        };
        self.links.insert(link, open);
        stream
    }

    /// Returns when bytes that a machine sends now arrive. `None` if there is no such connection.
    pub(crate) fn arrival_at_server(
        &mut self,
        link: Link,
        at: Time,
        random: &mut fastrand::Rng,
    ) -> Option<Time> {
        self.arrival(link, at, true, random)
    }

    pub(crate) fn arrival_at_machine(
        &mut self,
        link: Link,
        at: Time,
        random: &mut fastrand::Rng,
    ) -> Option<Time> {
        self.arrival(link, at, false, random)
    }

    fn arrival(
        &mut self,
        link: Link,
        at: Time,
        to_server: bool,
        random: &mut fastrand::Rng,
    ) -> Option<Time> {
        let delay = self.delay(random);
        let open = self.links.get_mut(&link)?;
        let way = Way {
            machine: open.machine,
            server: open.server,
            to_server,
        };
        let held = self.held.get(&way).copied().unwrap_or_default();
        let far = self.far.filter(|(machine, _)| *machine == open.machine);
        let delay = delay + far.map_or(Time::ZERO, |(_, time)| time);
        let last = &mut open.last[usize::from(!to_server)];
        *last = (at + delay).max(held).max(*last);
        Some(*last)
    }

    pub(crate) fn server_end(&self, link: Link) -> Option<(usize, ConnectionId)> {
        let open = self.links.get(&link).filter(|open| open.server_has)?;
        Some((open.server, open.connection))
    }

    pub(crate) fn machine_end(&self, link: Link) -> Option<(usize, Inbox)> {
        let open = self.links.get(&link).filter(|open| open.machine_has)?;
        Some((open.machine, open.inbox.clone()))
    }

    /// The server no longer has the connection.
    pub(crate) fn closed(&mut self, link: Link) {
        if let Some(open) = self.links.get_mut(&link) {
            open.server_has = false;
        }
        self.forget(link);
    }

    /// The machine no longer has the connection.
    pub(crate) fn ended(&mut self, link: Link) {
        if let Some(open) = self.links.get_mut(&link) {
            open.machine_has = false;
        }
        self.forget(link);
    }

    fn forget(&mut self, link: Link) {
        let is_gone = |open: &Open| !open.server_has && !open.machine_has;
        if self.links.get(&link).is_some_and(is_gone) {
            self.links.remove(&link);
        }
    }

    pub(crate) fn link_of(&self, server: usize, connection: ConnectionId) -> Option<Link> {
        let is_it = |open: &Open| open.server == server && open.connection == connection;
        let mut links = self.links.iter();
        links.find(|(_, open)| is_it(open)).map(|(link, _)| *link)
    }

    pub(crate) fn links_of_machine(&self, machine: usize) -> Vec<Link> {
        let links = self.links.iter();
        let links = links.filter(|(_, open)| open.machine == machine);
        links.map(|(link, _)| *link).collect()
    }

    pub(crate) fn links_of_server(&self, server: usize) -> Vec<Link> {
        let links = self.links.iter();
        let links = links.filter(|(_, open)| open.server == server);
        links.map(|(link, _)| *link).collect()
    }
}
