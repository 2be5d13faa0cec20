//! [`ClusterView`]: what one server of a cluster knows about the cluster, and which servers it
//! redirects clients to.

use crate::keyspace::Keyspace;
use crate::reply::Refusal;
use crate::setup::Flavor;
use crc::{CRC_16_XMODEM, Crc};
use std::collections::BTreeMap;

/// How many slots every cluster has.
const SLOTS: u16 = 16384;

/// A server of a cluster, as another server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// 40 hexadecimal digits.
    pub id: String,
    pub host: String,
    pub port: u16,
    /// The ranges of slots that it serves, with their ends, in ascending order.
    pub slots: Vec<(u16, u16)>,
    /// Its epoch. It grows when the server takes slots over.
    pub epoch: u64,
    /// The id of the primary that it follows.
    pub primary: Option<String>,
    pub has_failed: bool,
}

/// What a server knows about its cluster. The caller decides when each server learns of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// The id of the server itself.
    pub me: String,
    pub epoch: u64,
    /// Whether the server takes the cluster for whole. It refuses commands otherwise.
    pub is_ok: bool,
    pub nodes: Vec<ClusterNode>,
    /// The slots that move away from this server, and where they move.
    pub migrating: BTreeMap<u16, String>,
    /// The slots that move to this server, and where they come from.
    pub importing: BTreeMap<u16, String>,
}

/// Returns the slot of a key. If the key's first pair of braces has a text in it, only that text
/// counts.
pub fn slot_of(key: &[u8]) -> u16 {
    const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    CRC.checksum(tag.unwrap_or(key)) % SLOTS
}

/// A command that is to run in a cluster.
#[derive(Debug)]
pub(crate) struct Routed<'a> {
    pub(crate) keys: &'a [&'a [u8]],
    pub(crate) is_asking: bool,
    /// The client reads replicas, and the command only reads.
    pub(crate) reads_replica: bool,
    pub(crate) flavor: Flavor,
}

impl ClusterView {
    pub(crate) fn node(&self, id: &str) -> Option<&ClusterNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    pub(crate) fn myself(&self) -> Option<&ClusterNode> {
        self.node(&self.me)
    }

    fn owner(&self, slot: u16) -> Option<&ClusterNode> {
        let serves = |node: &&ClusterNode| {
            let mut ranges = node.slots.iter();
            ranges.any(|(first, last)| (*first..=*last).contains(&slot))
        };
        self.nodes.iter().find(serves)
    }

    /// Checks whether this server may run a command.
    ///
    /// # Errors
    /// Returns a redirection to another server, or says why no server runs the command now.
    pub(crate) fn route(&self, routed: &Routed<'_>, keys: &Keyspace) -> Result<(), Refusal> {
        let Some(first) = routed.keys.first() else {
            return Ok(());
        };
        let slot = slot_of(first);
        let Some(owner) = self.owner(slot) else {
            return Err(Refusal::new("CLUSTERDOWN Hash slot not served"));
        };
        if routed.keys.iter().any(|key| slot_of(key) != slot) {
            let text = "CROSSSLOT Keys in request don't hash to the same slot";
            return Err(Refusal::new(text));
        }
        if !self.is_ok {
            return Err(Refusal::new("CLUSTERDOWN The cluster is down"));
        }
        let try_again = || Refusal::new("TRYAGAIN Multiple keys request during rehashing of slot");
        let missing = routed
            .keys
            .iter()
            .filter(|key| keys.get(key).is_none())
            .count();
        let is_some = missing > 0 && missing < routed.keys.len();
        let is_many = routed.keys.iter().any(|key| key != first);
        let is_mine = owner.id == self.me;
        if is_mine && let Some(to) = self.migrating.get(&slot).and_then(|to| self.node(to)) {
            return match missing {
                0 => Ok(()),
                _ if is_some && routed.flavor != Flavor::Redis6_2 => Err(try_again()),
                _ => Err(redirection("ASK", slot, to)),
            };
        }
        if self.importing.contains_key(&slot) && routed.is_asking {
            return match is_many && missing > 0 {
                true => Err(try_again()),
                false => Ok(()),
            };
        }
        let follows_owner = || {
            let primary = self.myself().and_then(|node| node.primary.as_ref());
            primary == Some(&owner.id)
        };
        match is_mine || routed.reads_replica && follows_owner() {
            true => Ok(()),
            false => Err(redirection("MOVED", slot, owner)),
        }
    }

    /// Checks whether a script may run a command.
    pub(crate) fn check_script(&self, routed: &Routed<'_>, keys: &Keyspace) -> Result<(), Refusal> {
        let who = match routed.flavor {
            Flavor::Redis6_2 => "ERR Lua script attempted",
            Flavor::Redis7 => "ERR Script attempted",
            Flavor::Valkey => "ERR Attempted",
        };
        self.route(routed, keys).map_err(|refusal| {
            let what = match &*refusal.0 {
                b"CLUSTERDOWN The cluster is down" => {
                    "to execute a command while the cluster is down"
                }
                _ => "to access a non local key in a cluster node",
            };
            Refusal::new(format!("{who} {what}"))
        })
    }

    /// Returns all ranges of slots with the servers that serve them, in the order of the slots.
    pub(crate) fn ranges(&self) -> Vec<(u16, u16, &ClusterNode)> {
        let ranges = self.nodes.iter().flat_map(|node| {
            let ranges = node.slots.iter();
            ranges.map(move |(first, last)| (*first, *last, node))
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_by_key(|(first, ..)| *first);
        ranges
    }

    pub(crate) fn replicas_of(&self, primary: &str) -> impl Iterator<Item = &ClusterNode> {
        let follows = move |node: &&ClusterNode| node.primary.as_deref() == Some(primary);
        self.nodes.iter().filter(follows)
    }

    /// Returns how many slots have a server.
    pub(crate) fn served(&self) -> usize {
        let ranges = self.ranges();
        let sizes = ranges.iter();
        sizes
            .map(|(first, last, _)| usize::from(last - first) + 1)
            .sum()
    }
}

fn redirection(kind: &str, slot: u16, to: &ClusterNode) -> Refusal {
    Refusal::new(format!("{kind} {slot} {}:{}", to.host, to.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_slots_that_redis_says() {
        for (key, slot) in [
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("{}foo", 9500),
            ("123456789", 12739),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }
}
