//! The scripts of the channel.

use crate::cache::redis::net::script::Source;

/// The scripts of the channel. The keys of each are in one slot.
#[derive(Debug)]
pub(crate) struct ChannelScripts {
    /// `nodes private-channel | node keep message epoch` → the epoch of the set of nodes, and the
    /// time.
    pub(crate) heartbeat: Source,
    /// `nodes shared-channel | message…` → the epoch of the set of nodes, the time, and each node
    /// with the time of its last heartbeat.
    pub(crate) announce: Source,
}

/// Notes the node in the set of nodes. A set that no node can have made (a value of another type,
/// an invalid epoch, a time that is far ahead) is replaced by a new set with a new epoch: the nodes
/// in the old one are unknown.
const HEARTBEAT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
local names = redis.pcall('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf', 'LIMIT', 0, 2)
local ahead = redis.pcall('ZCOUNT', KEYS[1], '(' .. now + ARGV[2], '(+inf')
local epoch = names[1]
local is_name = epoch and string.find(epoch, '^%d+$') and (#epoch < 20 or epoch <= '18446744073709551615' and #epoch == 20)
if not (is_name and #names == 1 and ahead == 0) then
  redis.call('DEL', KEYS[1])
  epoch = ARGV[4]
  redis.call('ZADD', KEYS[1], '+inf', epoch)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PUBLISH', KEYS[2], ARGV[3])
return {epoch, now}
";

/// Publishes messages, and then reads the set of nodes. A node that joins the set later has no
/// trust from before the messages. If the set is not one that nodes have made, or has 4096 members
/// or more, the reply says that its members are unknown.
pub(crate) const ANNOUNCE: &str = "
for i = 1, #ARGV do redis.call('PUBLISH', KEYS[2], ARGV[i]) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local names = redis.pcall('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf', 'LIMIT', 0, 2)
local nodes = redis.pcall('ZRANGEBYSCORE', KEYS[1], 0, '(+inf', 'WITHSCORES', 'LIMIT', 0, 4096)
if nodes.err or #names ~= 1 or #nodes == 8192 then return {'', now, {}} end
return {names[1], now, nodes}
";

impl ChannelScripts {
    pub(crate) fn new() -> Self {
        Self {
            heartbeat: Source::new(&[HEARTBEAT]),
            announce: Source::new(&[ANNOUNCE]),
        }
    }
}
