//! [`Server`]: a simulated Redis on a machine of its own, with a clock of its own.

use super::machine::Time;
use simulated_redis::{ConnectionId, Flavor, Policy, Setup, Snapshot};
use std::time::Duration;

/// The time since 1970 at which each run begins.
const BEGIN: Duration = Duration::from_secs(1_800_000_000);

/// What a server has when it starts again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dump {
    Empty,
    /// What it had some seconds before it stopped.
    Old,
    Latest,
}

#[derive(Debug)]
pub(crate) struct Server {
    redis: simulated_redis::Server,
    /// How far its clock is ahead of the run's, in milliseconds.
    ahead: i64,
    frozen_until: Time,
    pub(crate) is_down: bool,
    dump: Option<Snapshot>,
    /// A dump from a while ago, and when it was made.
    old: (Time, Snapshot),
}

/// How often a server makes a dump.
const DUMPS: Time = Duration::from_secs(2);

impl Server {
    pub(crate) fn new(seed: u64) -> Self {
        let flavor = match seed % 3 {
            0 => Flavor::Redis6_2,
            1 => Flavor::Redis7,
            _ => Flavor::Valkey,
        };
        let redis = simulated_redis::Server::new(Setup::new(flavor, seed), BEGIN);
        let old = (Time::ZERO, redis.snapshot());
        Self {
            redis,
            ahead: 0,
            frozen_until: Time::ZERO,
            is_down: false,
            dump: None,
            old,
        }
    }

    /// Returns the server's own time.
    fn time(&self, now: Time) -> Duration {
        let millis = (BEGIN + now).as_millis() as i64 + self.ahead;
        Duration::from_millis(u64::try_from(millis).expect("it is long after 1970"))
    }

    pub(crate) fn connect(&mut self) -> ConnectionId {
        self.redis.connect()
    }

    pub(crate) fn disconnect(&mut self, connection: ConnectionId) {
        self.redis.disconnect(connection);
    }

    pub(crate) fn receive(&mut self, connection: ConnectionId, bytes: &[u8], now: Time) {
        if now > self.old.0 + DUMPS {
            self.old = (now, self.redis.snapshot());
        }
        let time = self.time(now);
        self.redis.receive(connection, bytes, time);
    }

    /// Takes what the server sends, for each connection. Says whether it closes the connection.
    pub(crate) fn take_outputs(&mut self) -> Vec<(ConnectionId, Vec<u8>, bool)> {
        let with_output = self.redis.with_output().into_iter();
        let take = |connection| {
            let output = self.redis.take_output(connection);
            (connection, output, self.redis.is_closing(connection))
        };
        with_output.map(take).collect()
    }

    pub(crate) fn freeze(&mut self, until: Time) {
        self.frozen_until = until.max(self.frozen_until);
    }

    /// Returns until when the server stands still, if it does so now.
    pub(crate) fn frozen_until(&self, now: Time) -> Option<Time> {
        (self.frozen_until > now).then_some(self.frozen_until)
    }

    /// Stops the server. The caller ends its connections.
    pub(crate) fn stop(&mut self, dump: Dump) {
        self.is_down = true;
        self.dump = match dump {
            Dump::Empty => None,
            Dump::Old => Some(self.old.1.clone()),
            Dump::Latest => Some(self.redis.snapshot()),
        };
    }

    pub(crate) fn start(&mut self, now: Time) {
        let time = self.time(now);
        self.redis.restart(self.dump.take().as_ref(), time);
        self.is_down = false;
    }

    /// Removes one in this many keys.
    pub(crate) fn evict(&mut self, one_in: u32, random: &mut fastrand::Rng) {
        for key in self.redis.keys(0) {
            if random.u32(..one_in) == 0 {
                self.redis.evict(0, &key);
            }
        }
    }

    pub(crate) fn step_clock(&mut self, millis: i64) {
        self.ahead += millis;
    }

    /// Says whether the server has memory for more.
    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.redis
            .limit_memory(u64::from(is_full), Policy::NoEviction);
    }

    /// Returns the names of all keys that have not expired.
    pub(crate) fn keys(&mut self, now: Time) -> Vec<String> {
        let time = self.time(now);
        self.redis.go_to(time);
        let keys = self.redis.keys(0).into_iter();
        keys.map(|key| String::from_utf8_lossy(&key).into_owned())
            .collect()
    }
}
