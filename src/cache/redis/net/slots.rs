//! Which slot of a cluster a key is in, and which primary serves the slot.

use crate::cache::redis::net::address::HostPort;
use ::redis::Value;
use crc::{CRC_16_XMODEM, CRC_32_ISCSI, Crc};

/// How many slots every cluster has.
const SLOTS: u16 = 16384;

/// Returns the slot of a key. If the key's first pair of braces has a text in it, only that text
/// counts.
///
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>
pub(crate) fn slot_of(key: &[u8]) -> u16 {
    const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    CRC.checksum(tag.unwrap_or(key)) % SLOTS
}

/// The primary of each slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SlotMap {
    /// The cluster's epoch. It grows with each failover and each slot that moves.
    pub(crate) epoch: u64,
    /// In ascending order, without overlaps.
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    place: HostPort,
}

impl SlotMap {
    /// Reads the answers of the host `asked` to `CLUSTER INFO` and `CLUSTER SLOTS`.
    pub(crate) fn read(asked: &str, info: &str, slots: &Value) -> Option<Self> {
        let epoch = info
            .lines()
            .find_map(|line| line.strip_prefix("cluster_current_epoch:"))?;
        let Value::Array(slots) = slots else {
            return None;
        };
        let mut ranges: Vec<_> = slots
            .iter()
            .map(|range| read_range(asked, range))
            .collect::<Option<_>>()?;
        ranges.sort_by_key(|range| range.first);
        let has_overlap = ranges.windows(2).any(|two| two[1].first <= two[0].last);
        (!ranges.is_empty() && !has_overlap).then_some(Self {
            epoch: epoch.trim().parse().ok()?,
            ranges,
        })
    }

    /// Returns the primary that serves a slot.
    pub(crate) fn primary_of(&self, slot: u16) -> Option<&HostPort> {
        let after = self.ranges.partition_point(|range| range.first <= slot);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= range.last).then_some(&range.place)
    }

    /// Returns all primaries that serve a slot, each once.
    pub(crate) fn primaries(&self) -> Vec<HostPort> {
        let mut places: Vec<_> = self
            .ranges
            .iter()
            .map(|range| range.place.clone())
            .collect();
        places.sort();
        places.dedup();
        places
    }

    /// Returns all primaries in the order of the first slot that each serves, and a checksum of how
    /// the slots are shared out among them. A failover changes neither the order nor the checksum.
    pub(crate) fn shares(&self) -> (Vec<HostPort>, u32) {
        const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
        let (mut places, mut sum) = (Vec::<HostPort>::new(), CRC.digest());
        for range in &self.ranges {
            let known = places.iter().position(|place| *place == range.place);
            let who = known.unwrap_or_else(|| {
                places.push(range.place.clone());
                places.len() - 1
            });
            for part in [usize::from(range.first), usize::from(range.last), who] {
                sum.update(&(part as u64).to_le_bytes());
            }
        }
        (places, sum.finalize())
    }

    /// Counts the slots that have a primary.
    pub(crate) fn served(&self) -> u32 {
        let sizes = self.ranges.iter();
        sizes
            .map(|range| u32::from(range.last - range.first) + 1)
            .sum()
    }

    /// Returns a name whose slot this primary serves.
    pub(crate) fn tag_of(&self, place: &HostPort) -> Option<String> {
        self.tags_of(place, 0)
    }

    /// Returns a name whose slot this primary serves, after the first `after` such names. The names
    /// are in different slots if the primary serves more than a few.
    pub(crate) fn tags_of(&self, place: &HostPort, after: usize) -> Option<String> {
        // For a primary with a single slot, about one name in 16384 fits.
        let names = (0u32..1 << 18).map(|number| number.to_string());
        let is_there = |place: &HostPort| self.ranges.iter().any(|range| range.place == *place);
        is_there(place)
            .then_some(names)?
            .filter(|name| self.primary_of(slot_of(name.as_bytes())) == Some(place))
            .nth(after)
    }
}

fn read_range(asked: &str, range: &Value) -> Option<Range> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [
        Value::Int(first),
        Value::Int(last),
        Value::Array(primary),
        ..,
    ] = parts.as_slice()
    else {
        return None;
    };
    let [host, Value::Int(port), ..] = primary.as_slice() else {
        return None;
    };
    // A server that does not know its own host leaves it out.
    let host = match host {
        Value::BulkString(host) if host.is_empty() => asked.to_owned(),
        Value::BulkString(host) if host != b"?" => std::str::from_utf8(host).ok()?.to_owned(),
        Value::Nil => asked.to_owned(),
        _ => return None,
    };
    let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
    let (first, last) = (slot(*first)?, slot(*last)?);
    (first <= last).then_some(Range {
        first,
        last,
        place: (host, u16::try_from(*port).ok()?),
    })
}

/// Reads the target of a redirection: `host:port`. Without a host it is the host that was asked.
pub(crate) fn read_place(asked: &str, text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let host = if host.is_empty() { asked } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let primary = Value::Array(vec![host, Value::Int(port), text("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), primary])
    }

    const INFO: &str = "cluster_state:ok\r\ncluster_current_epoch:7\r\n";

    fn map(ranges: Vec<Value>) -> Option<SlotMap> {
        SlotMap::read("asked", INFO, &Value::Array(ranges))
    }

    /// The expected values come from `CLUSTER KEYSLOT`.
    #[test]
    fn the_hash_tag_of_a_key_decides_its_slot() {
        for (key, slot) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("a{foo}b{bar}", 12182),
            ("a{}b{foo}", 976),
            ("{foo", 13308),
            ("", 0),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn each_served_slot_has_a_primary() {
        let map = map(vec![
            range(5000, 16383, text("b"), 2),
            range(0, 99, Value::Nil, 1),
            range(200, 4999, text(""), 3),
        ]);
        let map = map.unwrap();
        assert_eq!(map.epoch, 7);
        let place = |host: &str, port| Some((host.to_owned(), port));
        for (slot, primary) in [
            (0, place("asked", 1)),
            (99, place("asked", 1)),
            (100, None),
            (200, place("asked", 3)),
            (5000, place("b", 2)),
            (16383, place("b", 2)),
        ] {
            assert_eq!(map.primary_of(slot).cloned(), primary, "{slot}");
        }
        assert_eq!(map.primaries().len(), 3);
        for primary in map.primaries() {
            let tag = map.tag_of(&primary).unwrap();
            assert_eq!(map.primary_of(slot_of(tag.as_bytes())), Some(&primary));
        }
        assert_eq!(map.tag_of(&("c".to_owned(), 1)), None);
    }

    #[test]
    fn an_impossible_answer_is_no_map() {
        for ranges in [
            vec![],
            vec![text("?")],
            vec![range(0, 16384, text("a"), 1)],
            vec![range(-1, 5, text("a"), 1)],
            vec![range(6, 5, text("a"), 1)],
            vec![range(0, 5, text("a"), 70000)],
            vec![range(0, 5, text("?"), 1)],
            vec![range(0, 5, text("a"), 1), range(5, 9, text("b"), 1)],
        ] {
            assert_eq!(map(ranges.clone()), None, "{ranges:?}");
        }
        let whole = Value::Array(vec![range(0, 5, text("a"), 1)]);
        assert_eq!(SlotMap::read("asked", "cluster_state:ok", &whole), None);
        assert_eq!(SlotMap::read("asked", INFO, &Value::Nil), None);
    }
}
