//! [`Server`]: a simulated Redis on a machine of its own, with a clock of its own.

use super::machine::Time;
use super::shape::host;
use simulated_redis::{
    ClusterView, ConnectionId, Effect, Flavor, Policy, SentinelView, Setup, Snapshot,
};
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
    /// By how many thousandths its clock is faster than the run's, and since when.
    drift: (i64, Time),
    frozen_until: Time,
    pub(crate) is_down: bool,
    dump: Option<Snapshot>,
    /// A dump from a while ago, and when it was made.
    old: (Time, Snapshot),
}

/// How far a server's clock may be from the run's, in milliseconds. A fence that is put up just
/// before the clock steps back still expires while the run rests.
const MOST_AHEAD: i64 = 4_000;

/// How often a server makes a dump.
const DUMPS: Time = Duration::from_millis(700);

impl Server {
    pub(crate) fn new(number: usize, flavor: Flavor, seed: u64) -> Self {
        let mut setup = Setup::new(flavor, seed);
        setup.host = host(number);
        let redis = simulated_redis::Server::new(setup, BEGIN);
        let old = (Time::ZERO, redis.snapshot());
        Self {
            redis,
            ahead: 0,
            drift: (0, Time::ZERO),
            frozen_until: Time::ZERO,
            is_down: false,
            dump: None,
            old,
        }
    }

    /// Returns the server's own time.
    fn time(&self, now: Time) -> Duration {
        let millis = (BEGIN + now).as_millis() as i64 + self.ahead + self.drifted(now);
        Duration::from_millis(u64::try_from(millis).expect("it is long after 1970"))
    }

    /// Returns how far the clock has run ahead since its speed changed, in milliseconds.
    fn drifted(&self, now: Time) -> i64 {
        let (rate, since) = self.drift;
        (now - since).as_millis() as i64 * rate / 1_000
    }

    /// Makes the clock faster by this many thousandths.
    pub(crate) fn drift(&mut self, rate: i64, now: Time) {
        self.ahead += self.drifted(now);
        self.drift = (rate, now);
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

    /// Removes one in this many keys whose names begin with this.
    pub(crate) fn evict(&mut self, of: &str, one_in: u32, random: &mut fastrand::Rng) {
        let all = self.redis.keys(0).into_iter();
        for key in all.filter(|key| key.starts_with(of.as_bytes())) {
            if random.u32(..one_in) == 0 {
                self.redis.evict(0, &key);
            }
        }
    }

    pub(crate) fn step_clock(&mut self, millis: i64) {
        self.ahead = (self.ahead + millis).clamp(-MOST_AHEAD, MOST_AHEAD);
    }

    /// Becomes a replica with a copy of this primary's data.
    pub(crate) fn follow(&mut self, primary: &mut Self, now: Time) {
        let time = self.time(now);
        self.redis.replicate_from(&mut primary.redis, time);
    }

    pub(crate) fn promote(&mut self, now: Time) {
        let time = self.time(now);
        self.redis.promote(time);
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        self.redis.take_effects()
    }

    /// Repeats what the primary has done.
    pub(crate) fn apply(&mut self, effects: &[Effect], now: Time) {
        let time = self.time(now);
        self.redis.apply_effects(effects, time);
    }

    /// Takes the channels and messages for the rest of the cluster.
    pub(crate) fn take_published(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.redis.take_published()
    }

    pub(crate) fn publish(&mut self, channel: &[u8], message: &[u8]) {
        self.redis.publish(channel, message);
    }

    pub(crate) fn set_cluster(&mut self, view: ClusterView) {
        self.redis.set_cluster(view);
    }

    pub(crate) fn set_sentinel(&mut self, view: SentinelView) {
        self.redis.set_sentinel(view);
    }

    pub(crate) fn run_id(&self) -> String {
        self.redis.identity().0
    }

    /// Gives up to `most` keys of a slot to another server. Returns whether there were any.
    pub(crate) fn give(&mut self, other: &mut Self, slot: u16, most: usize) -> bool {
        let keys = self.redis.take_keys_of(slot, most);
        let is_some = !keys.is_empty();
        other.redis.accept(keys);
        is_some
    }

    /// Returns the names of all keys.
    pub(crate) fn all_keys(&self) -> Vec<Vec<u8>> {
        self.redis.keys(0)
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

    /// Returns the members of a set.
    pub(crate) fn members(&mut self, key: &str, now: Time) -> Vec<String> {
        let time = self.time(now);
        let client = self.redis.connect();
        let command = format!("SMEMBERS {key}\r\n");
        self.redis.receive(client, command.as_bytes(), time);
        let output = self.redis.take_output(client);
        self.redis.disconnect(client);
        let output = String::from_utf8_lossy(&output).into_owned();
        let lines = output.lines().filter(|line| !line.starts_with(['*', '$']));
        lines.map(str::to_owned).collect()
    }
}
