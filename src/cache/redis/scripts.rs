//! The scripts of the protocol: each touches keys of one slot, and is safe to run twice.
//!
//! None begins with a shebang, which Redis 6.2 cannot compile. What has to succeed in a full Redis
//! removes first: any earlier write lifts the check for memory, while a script whose first write is
//! a `SET` is refused.
//!
//! A value of another type is nobody's: it counts as absent, and makes way for what is written.

use ::redis::Script;
use std::fmt;

/// A script, and what a server that has it knows it by.
pub(super) struct Source {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Source {
    pub(super) fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hash)
    }
}

/// What [`GRANT`](Scripts::grant) answers.
pub(super) mod grant {
    pub(crate) const HIT: i64 = 0;
    pub(crate) const GRANTED: i64 = 1;
    pub(crate) const WAIT: i64 = 2;
    // And 3: the key is being changed, or the lease of another is too old to be waited for.
}

/// All scripts. Keys are `subject lease fence`, arguments begin with `kind member token`.
#[derive(Debug)]
pub(super) struct Scripts {
    /// `px steal` → one of [`grant`].
    pub(super) grant: Source,
    /// `ttl absent-count absent… field value…` → 1 if it was filled.
    pub(super) fill: Source,
    /// `px with-lease` → 1.
    pub(super) begin: Source,
    /// `fill ttl absent-count absent… field value…` → whether the fence still stood, and whether
    /// it was filled.
    pub(super) end: Source,
    /// `px` → 1 if the fence still stood.
    pub(super) renew: Source,
    /// → 1 if the lease was still there.
    pub(super) release: Source,
    /// → 1 if there was an entry: takes it and its lease away.
    pub(super) deny: Source,
    /// `ttl absent-count absent… field value…` → 1: writes without a lease.
    pub(super) put: Source,
    /// [`grant`](Self::grant) of each of many subjects, as [`EACH`] says.
    pub(super) grant_each: Source,
    /// [`fill`](Self::fill) of each of many, without their fences.
    pub(super) fill_each: Source,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            grant: Source::new(&[ALONE, FENCED, GRANT]),
            fill: Source::new(&[ALONE, WRITE, FILL]),
            begin: Source::new(&[ALONE, REMOVE, FENCED, BEGIN]),
            end: Source::new(&[ALONE, REMOVE, WRITE, FENCED, END]),
            renew: Source::new(&[RENEW]),
            release: Source::new(&[RELEASE]),
            deny: Source::new(&[REMOVE, DENY]),
            put: Source::new(&[ALONE, WRITE, PUT]),
            grant_each: Source::new(&[EACH, GRANT_EACH, FENCED, ONE, GRANT, OF_ALL, ANSWER]),
            fill_each: Source::new(&[EACH, FILL_EACH, WRITE, ONE, FILL, OF_ALL, DROP, ANSWER]),
        }
    }
}

/// What [`EACH`] knows of all subjects at once, of one.
const ALONE: &str = "
local function nowhere() return false end
local function lease() return redis.pcall('GET', KEYS[2]) end
local function drop_lease() redis.call('DEL', KEYS[2]) end
";

/// Says whether there is a fence: what is no set is none of ours, and makes way.
const FENCED: &str = "
local function fenced()
  if nowhere(3) then return false end
  local kind = redis.call('TYPE', KEYS[3]).ok
  if kind == 'set' then return true end
  if kind ~= 'none' then redis.call('DEL', KEYS[3]) end
  return false
end
";

/// Takes the entry away, whatever its type has become.
const REMOVE: &str = "
local function remove()
  if ARGV[1] == 'hash' then redis.call('DEL', KEYS[1]) return end
  if type(redis.pcall('SREM', KEYS[1], ARGV[2])) == 'table' then redis.call('DEL', KEYS[1]) end
end
";

/// Writes the entry, from the arguments after `at`; says whether it could: what needs memory comes
/// first, so a full server refuses it. A value of another type makes way; a set gets its time when it
/// has none.
const WRITE: &str = "
local function put(at, absent)
  if ARGV[1] == 'hash' then return redis.pcall('HSET', KEYS[1], unpack(ARGV, at + 2 + absent)) end
  return redis.pcall('SADD', KEYS[1], ARGV[2])
end
local function write(at)
  local ttl, absent = ARGV[at], tonumber(ARGV[at + 1])
  local done = put(at, absent)
  if type(done) == 'table' and string.find(done.err, 'WRONGTYPE', 1, true) then
    redis.call('DEL', KEYS[1])
    done = put(at, absent)
  end
  if type(done) == 'table' then return false end
  if ARGV[1] == 'hash' then
    if absent > 0 and not nowhere(1) then redis.call('HDEL', KEYS[1], unpack(ARGV, at + 2, at + 1 + absent)) end
    redis.call('PEXPIRE', KEYS[1], ttl)
  elseif redis.call('PTTL', KEYS[1]) == -1 then
    redis.call('PEXPIRE', KEYS[1], ttl)
  end
  return true
end
";

/// An entry that its asker could not use is no hit: it steals. A fence and a lease that never lapse are
/// none of ours: the one gets a time, the other makes way.
///
/// Nobody waits for a lease that is older than a tenth of its life, which is longer than a load takes:
/// whoever holds it has died, or never heard that it was granted. It makes way after half of its life.
/// Before, a backend that is slow would lose the fill of one load to the next for ever.
const GRANT: &str = "
local steal = ARGV[5] == '1'
if not steal and not nowhere(1) then
  local hit
  if ARGV[1] == 'hash' then hit = redis.call('TYPE', KEYS[1]).ok == 'hash'
  else hit = redis.pcall('SISMEMBER', KEYS[1], ARGV[2]) == 1 end
  if hit then return 0 end
end
if fenced() then
  if redis.call('PTTL', KEYS[3]) == -1 then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
  return 3
end
if not steal then
  if redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4]) then return 1 end
  local left = redis.call('PTTL', KEYS[2])
  if left ~= -1 and redis.call('TYPE', KEYS[2]).ok == 'string' then
    local life = tonumber(ARGV[4])
    local age = life - left
    if age * 10 < life then return 2 end
    if age * 2 < life then return 3 end
  end
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 1
";

const FILL: &str = "
if lease() ~= ARGV[3] then return 0 end
local filled = write(4)
drop_lease()
return filled and 1 or 0
";

/// The entry and its lease go first; the fence is a set, so that two changes do not take each
/// other's away. A write of a link takes the lease that its own end will need.
const BEGIN: &str = "
remove()
redis.call('DEL', KEYS[2])
fenced()
redis.call('SADD', KEYS[3], ARGV[3])
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
if ARGV[5] == '1' then redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4]) end
return 1
";

/// What the change wrote is filled only under a lease from before it, which any other change has
/// taken away, and while no other change is under way.
const END: &str = "
fenced()
local stood = redis.call('SREM', KEYS[3], ARGV[3])
local own = redis.pcall('GET', KEYS[2]) == ARGV[3]
redis.call('DEL', KEYS[2])
if ARGV[4] == '1' and stood == 1 and own and not fenced() then
  if write(5) then return {stood, 1} end
end
remove()
return {stood, 0}
";

/// Never makes a fence anew: that would hide that it was gone in between. It never shortens one either: a
/// signed URL's stands in the same set.
const RENEW: &str = "
if redis.pcall('SISMEMBER', KEYS[3], ARGV[3]) ~= 1 then return 0 end
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
return 1
";

const RELEASE: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[3] then return 0 end
return redis.call('DEL', KEYS[2])
";

/// The lease goes, too, whoever has it: what was read under it may be what is denied now.
const DENY: &str = "
local held
if ARGV[1] == 'hash' then held = redis.call('TYPE', KEYS[1]).ok == 'hash'
else held = redis.pcall('SISMEMBER', KEYS[1], ARGV[2]) == 1 end
remove()
redis.call('DEL', KEYS[2])
return held and 1 or 0
";

const PUT: &str = "
if write(4) then return 1 end
return redis.error_reply('OOM it was not written: Redis is full')
";

/// Makes a script of one subject, between [`ONE`] and [`OF_ALL`], one of many: what it calls `KEYS` and
/// `ARGV` are those of the subject whose turn it is. To start a script, and each command in it, costs
/// the server more than most of them do, so what can be asked of all is asked at once, before: a
/// script must not come upon a subject twice.
///
/// Keys are those of each subject, one after the other. Arguments are the number of subjects; that of a
/// subject's arguments, and the first one's; how many of them differ, and which; and these, of each.
const EACH: &str = "
local keys, args, turn = KEYS, ARGV, 0
local count = tonumber(args[1])
local step = #keys / count
local function all(n)
  local of = {}
  for i = n, #keys, step do of[#of + 1] = keys[i] end
  return of
end
local function none(n) return redis.call('EXISTS', unpack(all(n))) == 0 end
local KEYS, ARGV = {}, {}
";

const GRANT_EACH: &str = "
local gone = {none(1), false, none(3)}
local function nowhere(n) return gone[n] end
";

const FILL_EACH: &str = "
local gone, leases, done = none(1), redis.call('MGET', unpack(all(2))), {}
local function nowhere() return gone end
local function lease() return leases[turn] end
local function drop_lease() done[#done + 1] = KEYS[2] end
";

const ONE: &str = "
local function one()
";

const OF_ALL: &str = "
end
local last = 2 + tonumber(args[2])
for i = 3, last do ARGV[i - 2] = args[i] end
local differ, at = {}, last + 2 + tonumber(args[last + 1])
for i = last + 2, at - 1 do differ[#differ + 1] = tonumber(args[i]) end
local answers = {}
for i = 1, count do
  turn = i
  for j = 1, step do KEYS[j] = keys[(i - 1) * step + j] end
  for _, which in ipairs(differ) do
    ARGV[which] = args[at]
    at = at + 1
  end
  answers[i] = one()
end
";

const DROP: &str = "
if #done > 0 then redis.call('DEL', unpack(done)) end
";

const ANSWER: &str = "
return answers
";
