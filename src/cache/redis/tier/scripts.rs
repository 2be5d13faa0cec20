//! What the scripts of the protocol do. Each touches keys of one slot, and is safe to run twice.
//!
//! No script begins with a shebang, because Redis 6.2 cannot compile one. A script that has to
//! succeed in a full Redis removes something first: after any write Redis no longer checks the
//! memory, but it refuses a script whose first write is a `SET`.
//!
//! A value of another type counts as absent, and the next write replaces it.
//!
//! *Keeps* names the rules of [`rules`](crate::coherence::rules) that a script keeps.

use crate::cache::redis::net::script::Source;

/// The replies of [`GRANT`](Scripts::grant).
pub(crate) mod grant {
    pub(crate) const HIT: i64 = 0;
    pub(crate) const GRANTED: i64 = 1;
    pub(crate) const WAIT: i64 = 2;
    // And 3: a change of the key is under way, or another node's lease is too old to wait for.
}

/// All scripts. Their keys are `subject lease fence`. Their arguments begin with
/// `kind member token`.
#[derive(Debug)]
pub(crate) struct Scripts {
    /// `px steal` → one of the replies in [`grant`].
    pub(crate) grant: Source,
    /// `ttl absent-count absent… field value…` → 1 if the entry was filled.
    pub(crate) fill: Source,
    /// `px with-lease` → 1.
    pub(crate) begin: Source,
    /// `fill ttl absent-count absent… field value…` → whether the fence still stood, and whether
    /// the entry was filled.
    pub(crate) end: Source,
    /// `px` → 1 if the fence still stood.
    pub(crate) renew: Source,
    /// → 1 if the lease was still there.
    pub(crate) release: Source,
    /// → 1 if there was an entry. Removes it and its lease.
    pub(crate) deny: Source,
    /// `ttl absent-count absent… field value…` → 1. Writes without a lease.
    pub(crate) put: Source,
    /// [`grant`](Self::grant) for many subjects; [`EACH`] has the keys and arguments.
    pub(crate) grant_each: Source,
    /// [`fill`](Self::fill) for many subjects, without the keys of their fences.
    pub(crate) fill_each: Source,
}

impl Scripts {
    pub(crate) fn new() -> Self {
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

/// Defines for one subject what [`GRANT_EACH`] and [`FILL_EACH`] define for many.
const ALONE: &str = "
local function nowhere() return false end
local function lease() return redis.pcall('GET', KEYS[2]) end
local function drop_lease() redis.call('DEL', KEYS[2]) end
";

/// Defines `fenced`, which returns whether there is a fence. A value that is not a set is not a
/// fence, and is removed.
const FENCED: &str = "
local function fenced()
  if nowhere(3) then return false end
  local kind = redis.call('TYPE', KEYS[3]).ok
  if kind == 'set' then return true end
  if kind ~= 'none' then redis.call('DEL', KEYS[3]) end
  return false
end
";

/// Defines `remove`, which removes the entry, even if it has another type.
const REMOVE: &str = "
local function remove()
  if ARGV[1] == 'hash' then redis.call('DEL', KEYS[1]) return end
  if type(redis.pcall('SREM', KEYS[1], ARGV[2])) == 'table' then redis.call('DEL', KEYS[1]) end
end
";

/// Defines `write`, which writes the entry from the arguments at `at`, and returns whether it
/// could. The command that needs memory comes first, so a full server refuses it. A value of
/// another type is replaced. A set gets a TTL if it has none.
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

/// Grants a lease. A caller that could not use the entry that it found steals: the entry is then no
/// hit. A fence or a lease that never expires is not one of ours: the fence gets a TTL, the lease
/// is replaced.
///
/// Nodes wait for a lease only in the first tenth of its life, which is longer than a load takes.
/// The node of an older lease has died, or has never learned that the lease was granted. After half
/// of its life another node can take it over. If that were possible sooner, and the backend were
/// slow, each load would lose its fill to the next one, for ever.
///
/// Keeps `TheFence`.
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

/// Keeps `FillChecksItsLease`.
const FILL: &str = "
if lease() ~= ARGV[3] then return 0 end
local filled = write(4)
drop_lease()
return filled and 1 or 0
";

/// Begins a change: removes the entry and its lease first. The fence is a set, so that two changes
/// do not remove each other's token. A write of a link takes the lease that its own end will need.
///
/// Keeps `BeginRemovesTheEntry` and `BeginRemovesTheLease`.
const BEGIN: &str = "
remove()
redis.call('DEL', KEYS[2])
fenced()
redis.call('SADD', KEYS[3], ARGV[3])
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
if ARGV[5] == '1' then redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4]) end
return 1
";

/// Ends a change. Fills what the change wrote only under the lease that its begin took, which any
/// other change has removed, and only while no other change is under way.
///
/// Keeps `EndRemovesTheEntry`, `EndRemovesTheLease`, `EndChecksItsToken`, `TheFenceIsASet` and
/// `EndFillsUnderItsOwnLease`.
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

/// Renews a fence. Never creates one, because that would hide that it was gone in between. Never
/// shortens one either, because the token of a signed URL may be in the same set.
///
/// Keeps `RenewalNeverRecreates`.
const RENEW: &str = "
if redis.pcall('SISMEMBER', KEYS[3], ARGV[3]) ~= 1 then return 0 end
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[3], ARGV[4]) end
return 1
";

const RELEASE: &str = "
if redis.pcall('GET', KEYS[2]) ~= ARGV[3] then return 0 end
return redis.call('DEL', KEYS[2])
";

/// Removes an entry that the backend has denied, and the lease of any node: that node may have read
/// the value that the backend denies now.
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

/// Makes a script for many subjects from the script for one, which stands between [`ONE`] and
/// [`OF_ALL`]. There, `KEYS` and `ARGV` are those of the current subject.
///
/// Each start of a script, and each command in it, costs the server more than most commands
/// themselves do. So what can be asked of all subjects is asked at once, before the first one. The
/// answers would be wrong for a subject that comes a second time, so none may come twice.
///
/// The keys are those of each subject, one subject after the other. The arguments are the number of
/// subjects; the number of a subject's arguments, and those of the first subject; how many of these
/// differ between subjects, and their positions; and then the arguments at these positions, for
/// each subject.
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
