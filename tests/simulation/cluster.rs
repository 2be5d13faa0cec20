//! The slots of a cluster: which server has each slot, and how a slot moves.

use super::machine::Time;
use super::shape::host;
use super::topology::Step;
use super::world::World;
use simulated_redis::{ClusterNode, ClusterView, slot_of};
use std::time::Duration;

/// How many slots a cluster has.
const SLOTS: usize = 16384;
/// The key of the set of nodes.
const NODES: &[u8] = b"layercache::{nodes}";

/// Which server serves which slot.
#[derive(Debug)]
pub(crate) struct Slots {
    owners: Vec<u8>,
    /// The epoch in which each server took slots over.
    epochs: Vec<u64>,
}

/// A slot that moves from one server to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moving {
    slot: u16,
    from: usize,
    to: usize,
    phase: Phase,
    /// The longest time between two steps, in milliseconds.
    pause: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Begins,
    /// The new server imports the slot.
    Imports,
    /// The old server sends clients to the new one for keys that it does not have.
    Migrates,
}

impl Moving {
    pub(crate) const fn is_of(&self, server: usize) -> bool {
        self.from == server || self.to == server
    }
}

impl Slots {
    pub(crate) fn new(servers: usize, primaries: usize) -> Self {
        let owners = (0..SLOTS).map(|slot| slot * primaries / SLOTS);
        Self {
            owners: owners.map(|owner| owner as u8).collect(),
            epochs: vec![1; servers],
        }
    }

    pub(crate) fn owner(&self, slot: u16) -> usize {
        self.owners[usize::from(slot)].into()
    }

    /// A server takes over all slots of another one.
    pub(crate) fn take_over(&mut self, old: usize, new: usize, epoch: u64) {
        for owner in &mut self.owners {
            if usize::from(*owner) == old {
                *owner = new as u8;
            }
        }
        self.epochs[new] = epoch;
    }

    fn ranges(&self, server: usize) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (slot, owner) in (0..).zip(&self.owners) {
            if usize::from(*owner) != server {
                continue;
            }
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }
}

fn id(server: usize) -> String {
    format!("{:040x}", server + 1)
}

impl World {
    /// Returns the slots and servers as a server of the cluster knows them after all changes have
    /// reached it.
    pub(crate) fn cluster_view(&self, me: usize) -> ClusterView {
        let topology = &self.topology;
        let node = |server: usize| ClusterNode {
            id: id(server),
            host: host(server),
            port: 6379,
            slots: topology.slots.ranges(server),
            epoch: topology.slots.epochs[server],
            primary: topology.follows[server].map(id),
            has_failed: false,
        };
        let mut view = ClusterView {
            me: id(me),
            epoch: topology.epoch,
            is_ok: true,
            nodes: (0..topology.shape.data()).map(node).collect(),
            migrating: Default::default(),
            importing: Default::default(),
        };
        if let Some(moving) = &topology.moving {
            if moving.to == me && moving.phase >= Phase::Imports {
                view.importing.insert(moving.slot, id(moving.from));
            }
            if moving.from == me && moving.phase >= Phase::Migrates {
                view.migrating.insert(moving.slot, id(moving.to));
            }
        }
        view
    }

    /// Returns whether this server has to have this key.
    pub(crate) fn belongs(&self, key: &str, server: usize) -> bool {
        let topology = &self.topology;
        match topology.shape.is_cluster() {
            true => topology.slots.owner(slot_of(key.as_bytes())) == server,
            false => topology.is_primary(server),
        }
    }

    /// Lets a slot begin to move. It is the slot of the set of nodes, or of an entry.
    pub(crate) fn begin_moving(&mut self, is_of_nodes: bool, pause: Time) {
        if !self.topology.shape.is_cluster() || self.topology.moving.is_some() {
            return;
        }
        let primaries: Vec<_> = self.topology.primaries().collect();
        let mut keys = Vec::new();
        for primary in &primaries {
            let all = self.servers[*primary].all_keys().into_iter();
            keys.extend(all.filter(|key| !key.starts_with(b"layercache::")));
        }
        let key = match is_of_nodes {
            true => None,
            false => self.random.choice(keys),
        };
        let slot = slot_of(key.as_deref().unwrap_or(NODES));
        let from = self.topology.slots.owner(slot);
        if !self.is_on_record(from) {
            return;
        }
        let others: Vec<_> = primaries.into_iter().filter(|to| *to != from).collect();
        let Some(to) = self.random.choice(others) else {
            return;
        };
        self.topology.moving = Some(Moving {
            slot,
            from,
            to,
            phase: Phase::Begins,
            pause: 1 + pause.as_millis() as u64,
        });
        self.step_at(self.now, Step::Move);
    }

    /// Returns whether the nodes have put a server on record. They purge a server that has taken over
    /// before they do. The guide's page `redis` says that no slot may move from it earlier.
    fn is_on_record(&mut self, server: usize) -> bool {
        let place = self.topology.slots.owner(slot_of(NODES));
        let record = format!("{}::servers", String::from_utf8_lossy(NODES));
        let known = self.servers[place].members(&record, self.now);
        let run_id = self.servers[server].run_id();
        known.iter().any(|server| server.starts_with(&run_id))
    }

    /// Makes the next step of the slot that moves.
    pub(crate) fn go_on_moving(&mut self) {
        let Some(mut moving) = self.topology.moving else {
            return;
        };
        let Moving { slot, from, to, .. } = moving;
        if !self.can_talk(from, to) {
            return self.step_at(self.now + Duration::from_millis(20), Step::Move);
        }
        match moving.phase {
            Phase::Begins => {
                moving.phase = Phase::Imports;
                self.topology.moving = Some(moving);
                self.inform(to);
            }
            Phase::Imports => {
                moving.phase = Phase::Migrates;
                self.topology.moving = Some(moving);
                self.inform(from);
            }
            Phase::Migrates => {
                let most = self.random.usize(1..4);
                let Ok([source, target]) = self.servers.get_disjoint_mut([from, to]) else {
                    return;
                };
                let is_done = !source.give(target, slot, most);
                self.spread(from);
                self.spread(to);
                if is_done {
                    return self.end_moving(moving);
                }
            }
        }
        let time = self.soon(moving.pause);
        self.step_at(time, Step::Move);
    }

    fn end_moving(&mut self, moving: Moving) {
        let topology = &mut self.topology;
        topology.epoch += 1;
        topology.slots.owners[usize::from(moving.slot)] = moving.to as u8;
        topology.slots.epochs[moving.to] = topology.epoch;
        topology.moving = None;
        // The old server goes on sending clients to the new one until it learns of it.
        self.inform(moving.to);
        self.tell_all(moving.to);
    }
}
