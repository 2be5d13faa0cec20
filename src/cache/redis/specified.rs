//! Compares the scripts on a real server with their specification, `Slot`.

use super::*;
use crate::cache::LayerInfoCache;
use crate::cache::deadline::Patience;
use crate::cache::redis::net::servers::KeyedCommand;
use crate::cache::shared::{Fact, Facts, Leases, SharedTier, Value};
use crate::coherence::lease::{Grant, Token};
use crate::coherence::slot::{Age, Slot};
use crate::types::link::KeyRef;
use crate::types::{Digest, LayerMeta, Link};
use ::redis::{Cmd, cmd};
use fastrand::Rng;
use std::ops::Range;

/// The seed of the histories.
const SEED: u64 = 1;

/// So long that no lease grows older by itself during a test.
const LEASE: Duration = Duration::from_secs(1000);

/// An operation on a key.
#[derive(Debug, Clone, Copy)]
enum Act {
    Grant {
        token: u64,
        steal: bool,
    },
    Fill(u64),
    Release(u64),
    Begin {
        token: u64,
        take_lease: bool,
    },
    Deny,
    /// Makes the lease older.
    Age(Age),
    Renew(u64),
    End {
        token: u64,
        written: bool,
    },
    /// Evicts one of the key's three parts.
    Evict(usize),
    /// Replaces one of the three parts with a value of another type, which counts as absent.
    Spoil(usize),
}

/// Returns an operation with one of three tokens.
fn act(random: &mut Rng) -> Act {
    let token = random.u64(1..4);
    match random.u8(0..18) {
        0..4 => Act::Grant {
            token,
            steal: random.bool(),
        },
        4..7 => Act::Fill(token),
        7 => Act::Release(token),
        8..10 => Act::Begin {
            token,
            take_lease: random.bool(),
        },
        10 => Act::Deny,
        11..13 => Act::Age(match random.bool() {
            true => Age::Old,
            false => Age::Overdue,
        }),
        13 => Act::Renew(token),
        14..16 => Act::End {
            token,
            written: random.bool(),
        },
        16 => Act::Evict(random.usize(0..3)),
        _ => Act::Spoil(random.usize(0..3)),
    }
}

fn acts(random: &mut Rng, length: Range<usize>) -> Vec<Act> {
    (0..random.usize(length)).map(|_| act(random)).collect()
}

/// Returns a deadline that is long enough for a busy machine.
fn later() -> Deadline {
    Deadline::new(Duration::from_secs(5), Patience::Removal)
}

/// Runs a command on the server, and returns its output.
pub type Cli<'a> = &'a (dyn Fn(&[&str]) -> String + Sync);

async fn run(cache: &RedisCache, command: Cmd) {
    let commands = vec![KeyedCommand::on_first(command)];
    let done = cache
        .servers
        .run("test", commands, cache.read_deadline())
        .await;
    assert!(done.unwrap().each.iter().all(Result::is_ok));
}

/// Runs an operation on a server and on the specification. Returns what each has answered, and
/// whether each has the entry then; the two have to be equal.
async fn same(cache: &RedisCache, key: &Key, slot: &mut Slot<()>, act: Act) -> (String, String) {
    const LONG: Duration = Duration::from_secs(60);
    let keys = std::slice::from_ref(key);
    let of = Token::of;
    let (real, specified) = match act {
        Act::Grant { token, steal } => (
            format!(
                "{:?}",
                cache.grant(keys, of(token), steal, later()).await.unwrap()
            ),
            format!("{:?}", [slot.grant(of(token), steal)]),
        ),
        Act::Fill(token) => {
            let (facts, leases) = (Facts::one(fact(key)), Leases::one(of(token)));
            let facts = cache.fill(facts, leases, LONG).await.unwrap();
            let accepted = !facts.is_empty();
            (accepted.to_string(), slot.fill(of(token), ()).to_string())
        }
        Act::Release(token) => {
            cache.release(keys, of(token)).await.unwrap();
            slot.release(of(token));
            Default::default()
        }
        Act::Begin { token, take_lease } => {
            cache
                .begin(keys, of(token), take_lease, later())
                .await
                .unwrap();
            slot.begin(of(token), take_lease);
            Default::default()
        }
        Act::Deny => (
            format!("{:?}", cache.deny(keys, later()).await.unwrap()),
            format!("{:?}", [slot.deny()]),
        ),
        Act::Age(age) => {
            let left = match age {
                Age::Young => LEASE,
                Age::Old => LEASE * 4 / 5,
                Age::Overdue => LEASE / 3,
            };
            let mut grow = cmd("PEXPIRE");
            grow.arg(&cache.keys.of(key)[1])
                .arg(crate::cache::redis::tier::call::millis(left));
            run(cache, grow).await;
            // Without a lease none grows older: the next one is young.
            if slot.lease.is_some() {
                slot.age = age;
            }
            Default::default()
        }
        Act::Renew(token) => {
            cache.renew(keys, of(token), LONG, later()).await.unwrap();
            slot.renew(of(token));
            Default::default()
        }
        Act::End { token, written } => {
            let written = written.then(|| fact(key));
            let (ended, _) = cache
                .end(keys, of(token), written.as_ref(), LONG, later())
                .await
                .unwrap();
            let specified = slot.end(of(token), written.map(|_| ()));
            (format!("{ended:?}"), format!("{specified:?}"))
        }
        Act::Evict(part) | Act::Spoil(part) => {
            let name = &cache.keys.of(key)[part];
            let mut lose = cmd("DEL");
            lose.arg(name);
            run(cache, lose).await;
            if let Act::Spoil(_) = act {
                let mut spoil = cmd(if part == 1 { "RPUSH" } else { "SET" });
                spoil.arg(name).arg("foreign");
                run(cache, spoil).await;
            }
            match part {
                0 => slot.entry = None,
                1 => (slot.lease, slot.age) = (None, Age::Young),
                _ => slot.fence.clear(),
            }
            Default::default()
        }
    };
    let found = cache.ask(&[key.clone().into()], later()).await.unwrap();
    let kind = KeyRef::from(key).kind();
    let has = found.iter().any(|found| found.has(kind));
    (
        format!("{real} and then {has}"),
        format!("{specified} and then {}", slot.entry.is_some()),
    )
}

fn fact(key: &Key) -> Fact {
    let meta = LayerMeta::new("a/data", 5).unwrap();
    Fact {
        key: key.clone(),
        value: match KeyRef::from(key).kind() {
            KeyKind::Membership => Value::MEMBER,
            KeyKind::Meta => Value::Meta(meta),
        },
    }
}

/// Runs random histories of one key on the server at this address, which must be empty and serve
/// nobody else.
///
/// # Panics
/// Panics if a script and the specification give different results.
pub async fn scripts_do_as_specified(url: &str) {
    let config = RedisConfig::new(url).with_timeout(Duration::from_secs(5));
    let cache = RedisCache::new(config.with_lease_ttl(LEASE).with_fence_ttl(LEASE)).unwrap();
    let mut random = Rng::with_seed(SEED);
    for round in 0..300u64 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&round.to_be_bytes());
        let digest = Digest::Sha256(hash);
        let link = Link::layer("a/b".parse().unwrap(), digest);
        let history = acts(&mut random, 1..16);
        for key in [Key::Link(link.clone()), Key::Meta(digest), Key::Own(link)] {
            // An eviction removes a set with all its members, which the specification cannot
            // express. So each history begins with an empty server.
            run(&cache, cmd("FLUSHDB")).await;
            let mut slot = Slot::default();
            for (step, act) in history.iter().enumerate() {
                let (real, specified) = same(&cache, &key, &mut slot, *act).await;
                assert_eq!(real, specified, "step {step} of {history:?} on {key:?}");
            }
        }
    }
}

/// Checks that a script treats many subjects in one call as it treats each by itself. `cli` runs a
/// command on the server at this address.
///
/// # Panics
/// Panics if a script treats them otherwise.
pub async fn many_are_treated_as_each(url: &str, cli: Cli<'_>) {
    const LONG: Duration = Duration::from_secs(60);
    let config = RedisConfig::new(url).with_timeout(Duration::from_secs(5));
    let cache = RedisCache::new(config.with_lease_ttl(LEASE).with_fence_ttl(LEASE)).unwrap();
    let mut random = Rng::with_seed(SEED);
    for _ in 0..100 {
        run(&cache, cmd("FLUSHDB")).await;
        let histories: Vec<_> = (0..random.usize(1..12))
            .map(|_| acts(&mut random, 0..8))
            .collect();
        let (mut keys, mut slots) = (Vec::new(), Vec::new());
        for (i, history) in histories.iter().enumerate() {
            let digest = Digest::Sha256([i as u8 + 1; 32]);
            // Each link has a set of its own, because an eviction removes all members of a set.
            let name = format!("r{i}").parse().unwrap();
            for key in [Key::Link(Link::layer(name, digest)), Key::Meta(digest)] {
                let mut slot = Slot::default();
                for act in history {
                    let (real, specified) = same(&cache, &key, &mut slot, *act).await;
                    assert_eq!(real, specified);
                }
                keys.push(key);
                slots.push(slot);
            }
        }
        let token = Token::of(2);
        for steal in [false, true] {
            let (mut granted, mut specified) = (Vec::new(), Vec::new());
            let calls = keys.iter().map(|key| {
                let call = cache.call(key, token);
                call.arg(crate::cache::redis::tier::call::millis(LEASE))
                    .arg(u8::from(steal))
            });
            let script = &cache.scripts.grant_each;
            let replies = cache.run_together("grant", script, calls.collect()).await;
            for reply in replies.unwrap() {
                granted.push(format!("{reply:?}"));
            }
            for slot in &mut slots {
                let code = match slot.grant(token, steal) {
                    Grant::Hit => 0,
                    Grant::Granted => 1,
                    Grant::Wait => 2,
                    Grant::Blocked => 3,
                    Grant::Unknown => unreachable!("the specification always answers"),
                };
                specified.push(format!("Ok(int({code}))"));
            }
            assert_eq!(granted, specified, "{histories:?}");
        }
        let facts = keys.iter().map(fact).map(Facts::one).collect();
        let filled = cache.fill_all(facts, token, LONG).await.unwrap();
        for ((key, slot), filled) in keys.iter().zip(&mut slots).zip(filled) {
            assert_eq!(
                !filled.is_empty(),
                slot.fill(token, ()),
                "{key:?} of {histories:?}"
            );
            let same = same(&cache, key, slot, Act::Release(9)).await;
            assert_eq!(same.0, same.1, "{key:?} of {histories:?}");
        }
        // The leases are gone, and each entry that is left has a TTL.
        for (key, slot) in keys.iter().zip(&slots) {
            let [subject, lease, _] = cache.keys.of(key);
            let time = cli(&["PTTL", &subject]);
            assert!(slot.entry.is_none() || time.trim() != "-1");
            assert_ne!(cli(&["MGET", &lease]).trim(), "2");
        }
    }
}

/// A layout may name one subject twice, but a script must not get it twice.
///
/// # Panics
/// Panics if the scripts do otherwise.
pub async fn a_subject_that_is_named_twice_is_filled_once(url: &str, cli: Cli<'_>) {
    const LONG: Duration = Duration::from_secs(60);
    let config = RedisConfig::new(url).with_timeout(Duration::from_secs(5));
    let cache = RedisCache::new(config).unwrap();
    let digest = |seed| Digest::Sha256([seed; 32]);
    let keys: Vec<_> = (1..=4).map(|seed| Key::Meta(digest(seed))).collect();
    let token = Token::of(1);
    let named: Vec<_> = keys.iter().chain(&keys).cloned().collect();
    let granted = cache.grant(&named, token, false, later()).await.unwrap();
    assert_eq!(granted, [Grant::Granted; 8]);
    let facts: Vec<_> = named.iter().map(fact).map(Facts::one).collect();
    let filled = cache.fill_all(facts.clone(), token, LONG).await.unwrap();
    assert_eq!(filled, facts);
    cli(&["CONFIG", "RESETSTAT"]);
    let again = cache.fill_all(facts, token, LONG).await.unwrap();
    assert!(again.iter().all(Facts::is_empty), "the leases are gone");
    // One `MGET` of four leases.
    let stats = cli(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_mget:calls=1,"), "{stats}");
}

/// A refused `SADD` does not mean a set of another type: its other members stay.
///
/// # Panics
/// Panics if the scripts do otherwise.
pub async fn a_full_server_refuses_a_fill_and_loses_nothing(url: &str, cli: Cli<'_>) {
    const LONG: Duration = Duration::from_secs(60);
    let config = RedisConfig::new(url).with_timeout(Duration::from_secs(5));
    let cache = RedisCache::new(config).unwrap();
    let digest = |seed| Digest::Sha256([seed; 32]);
    let link = |seed| Link::layer("a/b".parse().unwrap(), digest(seed));
    cache.add(&link(1)).await.unwrap();
    let keys = [Key::Link(link(2)), Key::Meta(digest(2))];
    let token = Token::of(1);
    let granted = cache.grant(&keys, token, false, later()).await.unwrap();
    assert_eq!(granted, [Grant::Granted; 2]);
    cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let facts = Facts::two(fact(&keys[0]), fact(&keys[1]));
    let leases = Leases::two(token, token);
    let filled = cache.fill(facts, leases, LONG).await.unwrap();
    assert_eq!(filled, Facts::default());
    assert!(cache.contains(&link(1)).await.unwrap());
    assert!(!cache.contains(&link(2)).await.unwrap());
    assert_eq!(cache.meta(&digest(2)).await.unwrap(), None);
}
