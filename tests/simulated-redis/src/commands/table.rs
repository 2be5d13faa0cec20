//! All commands that the server knows.

use super::scripting::Form;
use super::{
    Flags, Keys, Run, Spec, cluster, connection, hashes, info, keys, pubsub, scripting, sentinel,
    sets, sorted, strings,
};
use crate::commands::Call;
use crate::core::Core;
use crate::reply::Outcome;

type Plain = fn(&mut Core, &mut Call<'_>) -> Outcome;

const READ: Flags = Flags::NONE;
const WRITE: Flags = Flags::WRITE;
/// A write that may need memory.
const GROW: Flags = Flags(Flags::WRITE.0 | Flags::DENY_OOM.0);
const ADMIN: Flags = Flags(Flags::LOADING.0 | Flags::NO_SCRIPT.0);
const OPEN: Flags = Flags(ADMIN.0 | Flags::NO_AUTH.0);
const CHANNEL: Flags = Flags(ADMIN.0 | Flags::SUBSCRIBED.0);

const fn plain(name: &'static str, arity: i8, flags: Flags, keys: Keys, run: Plain) -> Spec {
    let run = Run::Plain(run);
    Spec {
        name,
        arity,
        flags,
        keys,
        run,
    }
}

const fn script(name: &'static str, form: Form) -> Spec {
    Spec {
        name,
        arity: -3,
        flags: Flags::NO_SCRIPT,
        keys: Keys::Counted,
        run: Run::Script(form),
    }
}

/// In the order of the names.
static COMMANDS: &[Spec] = &[
    plain("append", 3, GROW, Keys::One, strings::append),
    plain("asking", 1, READ, Keys::None, cluster::asking),
    plain("auth", -2, OPEN, Keys::None, connection::auth),
    plain("client", -2, ADMIN, Keys::None, connection::client),
    plain("cluster", -2, ADMIN, Keys::None, cluster::cluster),
    plain("config", -2, ADMIN, Keys::None, connection::config),
    plain("dbsize", 1, READ, Keys::None, keys::dbsize),
    plain("decr", 2, GROW, Keys::One, strings::count),
    plain("decrby", 3, GROW, Keys::One, strings::count),
    plain("del", -2, WRITE, Keys::All, keys::del),
    plain("echo", 2, Flags::LOADING, Keys::None, connection::echo),
    script("eval", Form::Text),
    script("evalsha", Form::Hash),
    plain("exists", -2, READ, Keys::All, keys::exists),
    plain("expire", -3, WRITE, Keys::One, keys::expire),
    plain("expireat", -3, WRITE, Keys::One, keys::expire),
    plain("flushall", -1, WRITE, Keys::None, keys::flush),
    plain("flushdb", -1, WRITE, Keys::None, keys::flush),
    plain("get", 2, READ, Keys::One, strings::get),
    plain("getdel", 2, WRITE, Keys::One, strings::getdel),
    plain("hdel", -3, WRITE, Keys::One, hashes::hdel),
    plain("hello", -1, OPEN, Keys::None, connection::hello),
    plain("hexists", 3, READ, Keys::One, hashes::hexists),
    plain("hget", 3, READ, Keys::One, hashes::hget),
    plain("hgetall", 2, READ, Keys::One, hashes::hgetall),
    plain("hincrby", 4, GROW, Keys::One, hashes::hincrby),
    plain("hkeys", 2, READ, Keys::One, hashes::hkeys),
    plain("hlen", 2, READ, Keys::One, hashes::hlen),
    plain("hmget", -3, READ, Keys::One, hashes::hmget),
    plain("hmset", -4, GROW, Keys::One, hashes::hset),
    plain("hset", -4, GROW, Keys::One, hashes::hset),
    plain("hsetnx", 4, GROW, Keys::One, hashes::hsetnx),
    plain("hvals", 2, READ, Keys::One, hashes::hvals),
    plain("incr", 2, GROW, Keys::One, strings::count),
    plain("incrby", 3, GROW, Keys::One, strings::count),
    plain("info", -1, Flags::LOADING, Keys::None, info::info),
    plain("keys", 2, READ, Keys::None, keys::keys),
    plain("mget", -2, READ, Keys::All, strings::mget),
    plain("mset", -3, GROW, Keys::Pairs, strings::mset),
    plain("persist", 2, WRITE, Keys::One, keys::persist),
    plain("pexpire", -3, WRITE, Keys::One, keys::expire),
    plain("pexpireat", -3, WRITE, Keys::One, keys::expire),
    plain("ping", -1, Flags::SUBSCRIBED, Keys::None, connection::ping),
    plain("psetex", 4, GROW, Keys::One, strings::setex),
    plain("psubscribe", -2, CHANNEL, Keys::None, pubsub::subscribe),
    plain("pttl", 2, READ, Keys::One, keys::ttl),
    plain("publish", 3, Flags::LOADING, Keys::None, pubsub::publish),
    plain("pubsub", -2, Flags::LOADING, Keys::None, pubsub::pubsub),
    plain("punsubscribe", -1, CHANNEL, Keys::None, pubsub::unsubscribe),
    plain("quit", -1, CLOSE, Keys::None, connection::quit),
    plain("readonly", 1, Flags::LOADING, Keys::None, cluster::readonly),
    plain(
        "readwrite",
        1,
        Flags::LOADING,
        Keys::None,
        cluster::readonly,
    ),
    plain("reset", 1, CLOSE, Keys::None, connection::reset),
    plain("role", 1, ADMIN, Keys::None, info::role),
    plain("sadd", -3, GROW, Keys::One, sets::sadd),
    plain("scan", -2, READ, Keys::None, keys::scan),
    plain("scard", 2, READ, Keys::One, sets::scard),
    plain(
        "script",
        -2,
        Flags::NO_SCRIPT,
        Keys::None,
        scripting::script,
    ),
    plain("select", 2, Flags::LOADING, Keys::None, connection::select),
    plain("sentinel", -2, ADMIN, Keys::None, sentinel::sentinel),
    plain("set", -3, GROW, Keys::One, strings::set),
    plain("setex", 4, GROW, Keys::One, strings::setex),
    plain("setnx", 3, GROW, Keys::One, strings::setnx),
    plain("sismember", 3, READ, Keys::One, sets::sismember),
    plain("smembers", 2, READ, Keys::One, sets::smembers),
    plain("smismember", -3, READ, Keys::One, sets::smismember),
    plain("srem", -3, WRITE, Keys::One, sets::srem),
    plain("strlen", 2, READ, Keys::One, strings::strlen),
    plain("subscribe", -2, CHANNEL, Keys::None, pubsub::subscribe),
    plain("time", 1, Flags::LOADING, Keys::None, connection::time),
    plain("ttl", 2, READ, Keys::One, keys::ttl),
    plain("type", 2, READ, Keys::One, keys::type_of),
    plain("unlink", -2, WRITE, Keys::All, keys::del),
    plain("unsubscribe", -1, CHANNEL, Keys::None, pubsub::unsubscribe),
    plain("zadd", -4, GROW, Keys::One, sorted::zadd),
    plain("zcard", 2, READ, Keys::One, sorted::zcard),
    plain("zcount", 4, READ, Keys::One, sorted::zcount),
    plain("zincrby", 4, GROW, Keys::One, sorted::zincrby),
    plain("zrange", -4, READ, Keys::One, sorted::zrange),
    plain("zrangebyscore", -4, READ, Keys::One, sorted::zrangebyscore),
    plain("zrem", -3, WRITE, Keys::One, sorted::zrem),
    plain(
        "zremrangebyscore",
        4,
        WRITE,
        Keys::One,
        sorted::zremrangebyscore,
    ),
    plain("zscore", 3, READ, Keys::One, sorted::zscore),
];

const CLOSE: Flags = Flags(OPEN.0 | Flags::SUBSCRIBED.0);

/// Returns the command of this name, in any case.
pub(crate) fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let name = super::lower(name);
    let at = COMMANDS.binary_search_by(|spec| spec.name.cmp(name.as_str()));
    at.ok().and_then(|at| COMMANDS.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found() {
        assert!(COMMANDS.is_sorted_by_key(|spec| spec.name));
        assert!(lookup(b"zScOrE").is_some());
        assert!(lookup(b"nothing").is_none());
    }
}
