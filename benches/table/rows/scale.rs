//! Measures whether a hit among millions of blobs costs as much as one among thousands.

use crate::clock::median;
use crate::table::{Row, Table, Target};
use crate::warm::{digest, path};
use async_trait::async_trait;
use futures::FutureExt;
use layercache::{
    Backend, BoxError, CacheStatus, Digest, Freshness, LayerInfoCache, LayerMeta, Link, LinkState,
    MemoryConfig, Registry, Repository, RepositoryName,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

const FEW: u32 = 10_000;
const MANY: u32 = 5_000_000;
const QUESTIONS: u32 = 500_000;
const ROUNDS: usize = 5;

pub(crate) fn measure(table: &mut Table) {
    let (few, many) = (registry(FEW), registry(MANY));
    let (raw_few, raw_many) = (moka(FEW), moka(MANY));
    let time = |pick: fn(&mut Random, u32) -> u32| {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let ask = |i: &Repository<Nothing>, at: u32| {
                    let answer = i.stat(&digest(at), Freshness::Cached).now_or_never();
                    let answer = answer.expect("memory knows").expect("an answer");
                    assert_eq!(answer.status, CacheStatus::Memory);
                };
                (
                    nanos(FEW, pick, |at| ask(&few, at)),
                    nanos(MANY, pick, |at| ask(&many, at)),
                    nanos(FEW, pick, |at| {
                        drop(black_box(raw_few.get(digest(at).as_bytes())))
                    }),
                    nanos(MANY, pick, |at| {
                        drop(black_box(raw_many.get(digest(at).as_bytes())))
                    }),
                )
            })
            .collect();
        let few = median(rounds.iter().map(|round| round.0));
        let many = median(rounds.iter().map(|round| round.1));
        let ratio = median(rounds.iter().map(|round| round.1 / round.0));
        let of_moka = median(rounds.iter().map(|round| round.3 / round.2));
        (few, many, ratio, of_moka)
    };
    for (what, pick) in [
        (
            "10 thousand → 5 million blobs, memory hit, requested as people pull (Zipf)",
            Random::zipf as fn(&mut Random, u32) -> u32,
        ),
        ("the same, each blob as often as any other", Random::even),
    ] {
        let (few, many, ratio, of_moka) = time(pick);
        table.add(Row {
            what,
            yardstick: "itself at 10 thousand",
            target: Target::AtMost(3.0),
            ratio,
            detail: format!("{many:.0} ns against {few:.0} ns; raw moka {of_moka:.2} ×"),
            holds: true,
        });
    }
}

/// Random numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn even(&mut self, below: u32) -> u32 {
        (self.next() % u64::from(below)) as u32
    }

    /// Picks the nth blob 1/n as often as the first.
    fn zipf(&mut self, below: u32) -> u32 {
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (f64::from(below).powf(uniform) as u32 - 1).min(below - 1)
    }
}

fn nanos(blobs: u32, pick: fn(&mut Random, u32) -> u32, mut ask: impl FnMut(u32)) -> f64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let picked: Vec<_> = (0..QUESTIONS).map(|_| pick(&mut random, blobs)).collect();
    let began = Instant::now();
    for at in picked {
        ask(at);
    }
    began.elapsed().as_nanos() as f64 / f64::from(QUESTIONS)
}

type Moka = moka::sync::Cache<[u8; 32], LayerMeta, foldhash::fast::RandomState>;

fn moka(blobs: u32) -> Moka {
    let cache = moka::sync::Cache::builder()
        .max_capacity(u64::from(blobs) * 2)
        .build_with_hasher(foldhash::fast::RandomState::default());
    let meta = LayerMeta::new("docker/registry/v2/blobs", 7).expect("a meta");
    for digest in (0..blobs).map(digest) {
        let Digest::Sha256(hash) = digest else {
            continue;
        };
        cache.insert(hash, meta.clone());
    }
    cache.run_pending_tasks();
    cache
}

fn registry(blobs: u32) -> Repository<Nothing> {
    let config = MemoryConfig::default()
        .with_capacity(8 << 30)
        .with_ttl(Duration::from_secs(24 * 3600));
    let builder = Registry::builder(Nothing).memory(config);
    let registry = builder.build().expect("a registry");
    let cache = registry.cache();
    let name: RepositoryName = "library/alpine".parse().expect("a name");
    for digest in (0..blobs).map(digest) {
        let meta = LayerMeta::new(path(&digest).as_ref(), 7).expect("a meta");
        let done = |done: Option<Result<(), _>>| done.expect("at once").expect("room");
        done(cache.set_meta(&digest, &meta).now_or_never());
        let link = Link::layer(name.clone(), digest);
        done(cache.add(&link).now_or_never());
    }
    registry.repository(name)
}

/// A backend that must get no call.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Backend for Nothing {
    async fn link_state(&self, _link: &Link) -> Result<LinkState, BoxError> {
        Ok(LinkState::Absent)
    }

    async fn describe(&self, _digest: &Digest) -> Result<Option<LayerMeta>, BoxError> {
        Ok(None)
    }
}
