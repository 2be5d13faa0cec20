//! Random histories of commands, from a seed.

use crate::cluster::MOVING;
use fastrand::Rng;
use simulated_redis::script_hash;

/// One command on one of the connections.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) connection: usize,
    pub(crate) words: Vec<Vec<u8>>,
}

/// How many connections a history has.
pub(crate) const CONNECTIONS: usize = 3;

/// Scripts that show how values and errors go through Lua.
const SMALL: &[&str] = &[
    "return redis.call(unpack(ARGV))",
    "return redis.pcall(unpack(ARGV))",
    "return {redis.pcall(unpack(ARGV)), 1, 2.9, 'text', true, false, {1, {2}}, 3}",
    "local r = redis.pcall(unpack(ARGV)) if type(r) == 'table' and r.err then return r.err end return type(r)",
    "local r = redis.call('TYPE', KEYS[1]) return r.ok",
    "return {1, nil, 3}",
    "return redis.error_reply('OOM no room')",
    "return redis.error_reply('one')",
    "return redis.status_reply('FINE')",
    "return {ok = 'FINE'}",
    "return {err = 'MY error'}",
    "return redis.sha1hex(ARGV[1])",
    "return #KEYS * 10 + #ARGV",
    "return tonumber(ARGV[1])",
    "\n\nerror('out')",
    "\nreturn nil + 1",
    "return undefined",
    "return {KEYS[1], ARGV[1]}",
    "redis.call('SET', KEYS[1], 12345.5) return redis.call('GET', KEYS[1])",
    "redis.call('SET', KEYS[1], 3) redis.call('INCRBY', KEYS[1], 2) return redis.call('GET', KEYS[1])",
    "redis.call('DEL', KEYS[1]) redis.call('SADD', KEYS[1], 'a') return redis.call('SISMEMBER', KEYS[1], 'a')",
    "redis.call('SET', KEYS[1], 'x', 'NX', 'PX', 100000) return redis.call('PTTL', KEYS[1])",
    "redis.call('PUBLISH', 'c1', 'from a script') return 1",
    "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'WITHSCORES')",
    "return #redis.call('HGETALL', KEYS[1])",
    "return redis.call('SUBSCRIBE', 'c')",
    "local ok, problem = pcall(redis.call, 'INCR', KEYS[1]) if ok then return 1 end return 0",
    "return string.format('%d %s', 3, 'x')",
    "return tostring(1700000000123 + 5)",
    "return math.floor(2.7)",
];

/// Makes the words of commands.
pub(crate) struct Generator<'a> {
    pub(crate) rng: Rng,
    pub(crate) scripts: &'a [(&'static str, String)],
    pub(crate) is_clustered: bool,
}

impl Generator<'_> {
    pub(crate) fn history(&mut self, length: usize) -> Vec<Step> {
        let mut steps = Vec::with_capacity(length);
        while steps.len() < length {
            let connection = self.rng.usize(..CONNECTIONS);
            let words = match self.is_clustered {
                false => self.command(),
                true => self.clustered(),
            };
            steps.push(Step { connection, words });
        }
        steps
    }

    /// Returns a command with keys in one slot, or in several.
    fn clustered(&mut self) -> Vec<Vec<u8>> {
        if self.rng.u8(..10) == 0 {
            return split(self.one(&["ASKING", "ASKING", "CLUSTER\u{1}SLOTS", "CLUSTER\u{1}MYID"]));
        }
        let command = loop {
            let command = self.command();
            // Between the servers of a cluster messages take time.
            let name = String::from_utf8_lossy(&command[0]).to_lowercase();
            if !name.contains("sub") && !name.contains("publish") {
                break command;
            }
        };
        let tag = self.one(&["{n}", "{m}", MOVING, MOVING]);
        let other = match self.rng.u8(..10) {
            0 => self.one(&["{n}", "{m}", MOVING]),
            _ => tag,
        };
        let words = command.into_iter().enumerate().map(|(at, word)| {
            let word = String::from_utf8_lossy(&word).into_owned();
            // Texts of scripts have no keys.
            let tag = if at < 4 { tag } else { other };
            word.replace("{n}", tag).into_bytes()
        });
        words.collect()
    }

    pub(crate) fn one<'b>(&mut self, of: &[&'b str]) -> &'b str {
        of[self.rng.usize(..of.len())]
    }

    fn key(&mut self) -> String {
        self.one(&["{n}a", "{n}b", "{n}c", "{n}d", "{n}e"])
            .to_owned()
    }

    fn member(&mut self) -> String {
        self.one(&["x", "y", "z", "", "long member \r\n"])
            .to_owned()
    }

    fn score(&mut self) -> String {
        self.one(&[
            "1", "2", "0", "-5", "1.5", "+inf", "-inf", "3", "1e3", "inf",
        ])
        .to_owned()
    }

    fn bound(&mut self) -> String {
        self.one(&["-inf", "+inf", "0", "(1", "2", "(+inf", "(2", "1000", "-5"])
            .to_owned()
    }

    pub(crate) fn life(&mut self) -> String {
        self.one(&["100000", "200000", "150000", "300000"])
            .to_owned()
    }

    fn keys(&mut self) -> String {
        let count = self.rng.usize(1..4);
        let keys: Vec<_> = (0..count).map(|_| self.key()).collect();
        keys.join("\u{1}")
    }

    fn members(&mut self) -> String {
        let count = self.rng.usize(1..4);
        let all: Vec<_> = (0..count).map(|_| self.member()).collect();
        all.join("\u{1}")
    }

    /// Returns one command. Its parts are joined with `\u{1}`, because members have spaces.
    fn command(&mut self) -> Vec<Vec<u8>> {
        if self.rng.u8(..100) < 30 {
            return self.script();
        }
        let line = match self.rng.u8(..100) {
            0..5 => self.bad(),
            5..10 => self.admin(),
            10..20 => self.any_key(),
            20..38 => self.string(),
            38..55 => self.set(),
            55..72 => self.hash(),
            72..92 => self.sorted(),
            _ => self.channel(),
        };
        split(&line)
    }

    fn join(words: &[&str]) -> String {
        words.join("\u{1}")
    }

    fn bad(&mut self) -> String {
        let key = self.key();
        self.one(&[
            "NOTHING",
            "NOTHING\u{1}a\u{1}b",
            "GET",
            "get\u{1}a\u{1}b",
            "SADD\u{1}a",
            "SET\u{1}a",
            "SET\u{1}{n}a\u{1}v\u{1}NX\u{1}XX",
            "SET\u{1}{n}a\u{1}v\u{1}PX",
            "SET\u{1}{n}a\u{1}v\u{1}PX\u{1}0",
            "SET\u{1}{n}a\u{1}v\u{1}PX\u{1}-5",
            "SET\u{1}{n}a\u{1}v\u{1}EX\u{1}x",
            "SET\u{1}{n}a\u{1}v\u{1}EX\u{1}9223372036854775807",
            "SET\u{1}{n}a\u{1}v\u{1}WHAT",
            "HSET\u{1}{n}a\u{1}f",
            "HSET\u{1}{n}a\u{1}f\u{1}v\u{1}g",
            "PEXPIRE\u{1}{n}a\u{1}x",
            "PEXPIRE\u{1}{n}a\u{1}9223372036854775807",
            "ZADD\u{1}{n}a\u{1}x\u{1}m",
            "ZADD\u{1}{n}a\u{1}nan\u{1}m",
            "ZADD\u{1}{n}a\u{1}1",
            "ZADD\u{1}{n}a\u{1}NX\u{1}XX\u{1}1\u{1}m",
            "ZADD\u{1}{n}a\u{1}NX\u{1}GT\u{1}1\u{1}m",
            "ZCOUNT\u{1}{n}a\u{1}x\u{1}1",
            "ZRANGEBYSCORE\u{1}{n}a\u{1}0\u{1}1\u{1}LIMIT\u{1}0",
            "ZRANGEBYSCORE\u{1}{n}a\u{1}0\u{1}1\u{1}WHAT",
            "SCAN\u{1}x",
            "SCAN\u{1}0\u{1}COUNT\u{1}0",
            "SCAN\u{1}0\u{1}COUNT",
            "SELECT\u{1}x",
            "SELECT\u{1}99",
            "EVAL\u{1}return 1",
            "EVAL\u{1}return 1\u{1}x",
            "EVAL\u{1}return 1\u{1}1",
            "EVAL\u{1}return 1\u{1}-1",
            "EVALSHA\u{1}0000000000000000000000000000000000000000\u{1}0",
            "EVALSHA\u{1}short\u{1}0",
            "SCRIPT\u{1}WHAT",
            "SCRIPT\u{1}LOAD",
            "CLIENT\u{1}WHAT",
            "CLUSTER\u{1}INFO",
            "ASKING",
            "AUTH\u{1}x",
            "AUTH\u{1}default\u{1}x\u{1}y",
            "HELLO\u{1}4",
            "HELLO\u{1}x",
            "HELLO\u{1}3\u{1}WHAT",
            "PING\u{1}a\u{1}b",
            "SUBSCRIBE",
            "FLUSHALL\u{1}x",
            "INCRBY\u{1}{n}a\u{1}x",
        ])
        .replace("{n}a", &key)
    }

    fn admin(&mut self) -> String {
        self.one(&[
            "PING",
            "PING\u{1}x",
            "ECHO\u{1}x",
            "TIME",
            "DBSIZE",
            "HELLO",
            "HELLO\u{1}2",
            "HELLO\u{1}3",
            "HELLO\u{1}3\u{1}SETNAME\u{1}me",
            "CLIENT\u{1}GETNAME",
            "CLIENT\u{1}SETNAME\u{1}you",
            "CLIENT\u{1}SETINFO\u{1}LIB-NAME\u{1}x",
            "SELECT\u{1}0",
            "INFO\u{1}server",
            "INFO\u{1}replication",
            "ROLE",
            "KEYS\u{1}*",
            "KEYS\u{1}{n}[ab]",
            "SCRIPT\u{1}EXISTS\u{1}0000000000000000000000000000000000000000",
            "SCRIPT\u{1}FLUSH",
            "SCRIPT\u{1}LOAD\u{1}return 7",
            "CONFIG\u{1}SET\u{1}maxmemory\u{1}1",
            "CONFIG\u{1}SET\u{1}maxmemory\u{1}0",
            "CONFIG\u{1}SET\u{1}maxmemory\u{1}0",
            "CONFIG\u{1}SET\u{1}min-replicas-to-write\u{1}1",
            "CONFIG\u{1}SET\u{1}min-replicas-to-write\u{1}0",
            "CONFIG\u{1}SET\u{1}min-replicas-to-write\u{1}0",
            "CONFIG\u{1}GET\u{1}maxmemory",
            "FLUSHDB",
        ])
        .to_owned()
    }

    fn any_key(&mut self) -> String {
        let (key, keys, life) = (self.key(), self.keys(), self.life());
        let condition = self.one(&["", "NX", "XX", "GT", "LT"]);
        match self.rng.u8(..13) {
            0 => Self::join(&["DEL", &keys]),
            1 => Self::join(&["UNLINK", &keys]),
            2 => Self::join(&["EXISTS", &keys]),
            3 => Self::join(&["TYPE", &key]),
            4 => Self::join(&["PEXPIRE", &key, &life]),
            5 => Self::join(&["EXPIRE", &key, "100"]),
            6 => Self::join(&["PEXPIRE", &key, "-1"]),
            7 | 8 => Self::join(&["PTTL", &key]),
            9 => Self::join(&["TTL", &key]),
            10 => Self::join(&["PERSIST", &key]),
            11 if !condition.is_empty() => Self::join(&["PEXPIRE", &key, &life, condition]),
            _ => Self::join(&["PERSIST", &key]),
        }
    }

    fn string(&mut self) -> String {
        let (key, keys, life, value) = (self.key(), self.keys(), self.life(), self.member());
        match self.rng.u8(..16) {
            0 | 1 => Self::join(&["SET", &key, &value]),
            2 => Self::join(&["SET", &key, &value, "NX", "PX", &life]),
            3 => Self::join(&["SET", &key, &value, "XX"]),
            4 => Self::join(&["SET", &key, &value, "EX", "100"]),
            5 => Self::join(&["SET", &key, &value, "KEEPTTL"]),
            6 => Self::join(&["SET", &key, &value, "GET"]),
            7 | 8 => Self::join(&["GET", &key]),
            9 => Self::join(&["MGET", &keys]),
            10 => Self::join(&["INCR", &key]),
            11 => Self::join(&["SET", &key, "41"]),
            12 => Self::join(&["STRLEN", &key]),
            13 => Self::join(&["APPEND", &key, &value]),
            14 => Self::join(&["SETNX", &key, &value]),
            _ => Self::join(&["PSETEX", &key, &life, &value]),
        }
    }

    fn set(&mut self) -> String {
        let (key, members, member) = (self.key(), self.members(), self.member());
        match self.rng.u8(..8) {
            0..3 => Self::join(&["SADD", &key, &members]),
            3 => Self::join(&["SREM", &key, &members]),
            4 => Self::join(&["SISMEMBER", &key, &member]),
            5 => Self::join(&["SMISMEMBER", &key, &members]),
            6 => Self::join(&["SCARD", &key]),
            _ => Self::join(&["SMEMBERS", &key]),
        }
    }

    fn hash(&mut self) -> String {
        let (key, fields, field) = (self.key(), self.members(), self.member());
        let value = self.member();
        match self.rng.u8(..11) {
            0..3 => Self::join(&["HSET", &key, &field, &value, "path", "p"]),
            3 => Self::join(&["HMSET", &key, &field, &value]),
            4 => Self::join(&["HGET", &key, &field]),
            5 => Self::join(&["HMGET", &key, &fields]),
            6 => Self::join(&["HDEL", &key, &fields]),
            7 => Self::join(&["HLEN", &key]),
            8 => Self::join(&["HEXISTS", &key, &field]),
            9 => Self::join(&["HSETNX", &key, &field, &value]),
            _ => Self::join(&["HGETALL", &key]),
        }
    }

    fn sorted(&mut self) -> String {
        let (key, member, members) = (self.key(), self.member(), self.members());
        let (score, other) = (self.score(), self.score());
        let (least, most) = (self.bound(), self.bound());
        let option = self.one(&["NX", "XX", "GT", "LT", "CH", "INCR"]);
        match self.rng.u8(..15) {
            0..3 => Self::join(&["ZADD", &key, &score, &member]),
            3 => Self::join(&["ZADD", &key, &score, "x", &other, "y"]),
            4 => Self::join(&["ZADD", &key, option, &score, &member]),
            5 => Self::join(&["ZREM", &key, &members]),
            6 => Self::join(&["ZSCORE", &key, &member]),
            7 => Self::join(&["ZCARD", &key]),
            8 => Self::join(&["ZCOUNT", &key, &least, &most]),
            9 => Self::join(&["ZRANGEBYSCORE", &key, &least, &most]),
            10 => Self::join(&[
                "ZRANGEBYSCORE",
                &key,
                &least,
                &most,
                "WITHSCORES",
                "LIMIT",
                "0",
                "2",
            ]),
            11 => Self::join(&["ZREMRANGEBYSCORE", &key, &least, &most]),
            12 => Self::join(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]),
            13 => Self::join(&["ZINCRBY", &key, "2", &member]),
            _ => Self::join(&["ZRANGE", &key, "-2", "5"]),
        }
    }

    fn channel(&mut self) -> String {
        self.one(&[
            "PUBLISH\u{1}c1\u{1}one",
            "PUBLISH\u{1}c1\u{1}two",
            "PUBLISH\u{1}c2\u{1}three",
            "SUBSCRIBE\u{1}c1",
            "SUBSCRIBE\u{1}c1\u{1}c2",
            "PSUBSCRIBE\u{1}c*",
            "UNSUBSCRIBE",
            "UNSUBSCRIBE",
            "UNSUBSCRIBE\u{1}c1",
            "PUNSUBSCRIBE",
            "PUNSUBSCRIBE",
            "PUBSUB\u{1}NUMSUB\u{1}c1\u{1}c2",
            "PUBSUB\u{1}NUMPAT",
        ])
        .to_owned()
    }

    fn script(&mut self) -> Vec<Vec<u8>> {
        if self.rng.u8(..10) < 4 {
            let text = self.one(SMALL);
            let command = loop {
                let command = match self.rng.u8(..5) {
                    0 => self.string(),
                    1 => self.set(),
                    2 => self.hash(),
                    3 => self.sorted(),
                    _ => self.any_key(),
                };
                // Only these have an order that the servers agree on.
                if !["SMEMBERS", "HGETALL"]
                    .iter()
                    .any(|name| command.starts_with(name))
                {
                    break command;
                }
            };
            let mut words = split(&Self::join(&["EVAL", text, "1", &self.key()]));
            words.extend(split(&command));
            return words;
        }
        let scripts = self.scripts;
        let (name, text) = &scripts[self.rng.usize(..scripts.len())];
        let form = self.rng.bool();
        let mut line = match form {
            true => vec!["EVAL".to_owned(), text.clone()],
            false => vec!["EVALSHA".to_owned(), script_hash(text.as_bytes())],
        };
        line.extend(self.call_of(name));
        line.into_iter().map(String::into_bytes).collect()
    }
}

fn split(line: &str) -> Vec<Vec<u8>> {
    line.split('\u{1}')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}
