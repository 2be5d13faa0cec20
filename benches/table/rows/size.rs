//! Measures the memory that a cached pair takes, beside two raw moka caches with the same facts.

use crate::table::{Row, Table, Target};
use crate::warm::{digest, path};
use futures::FutureExt;
use layercache::{
    Digest, LayerInfoCache, LayerMeta, Link, MemoryConfig, RepositoryName, TieredCache,
};
use object_store::ObjectMeta;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const PAIRS: u32 = 60_000;
const TTL: Duration = Duration::from_secs(3600);

pub(crate) fn measure(table: &mut Table) {
    for (repositories, what, limit) in [
        (1, "memory per cached pair, 1 repository a digest", 0.7),
        (3, "the same, 3 repositories a digest", 0.4),
        (10, "the same, 10 repositories a digest", 0.2),
    ] {
        let names: Vec<RepositoryName> = (0..repositories)
            .map(|i| format!("library/image-{i:02}").parse().expect("a name"))
            .collect();
        let raw = bytes(two_moka_caches(), |caches| fill_moka(caches, &names));
        let config = MemoryConfig::default().with_ttl(TTL).with_capacity(1 << 30);
        let ours = bytes(TieredCache::in_memory(config), |cache| fill(cache, &names));
        table.add(Row {
            what,
            yardstick: "two raw moka caches with a time to live (membership, meta)",
            target: Target::AtMost(limit),
            ratio: ours / raw,
            detail: format!("{ours:.0} bytes against {raw:.0}"),
            holds: true,
        });
    }
}

/// Returns the allocated bytes of a pair, in a cache that exists already.
fn bytes<C>(cache: C, fill: impl FnOnce(&C)) -> f64 {
    let info = allocation_counter::measure(|| fill(&cache));
    drop(cache);
    info.bytes_current as f64 / f64::from(PAIRS)
}

fn digests(names: &[RepositoryName]) -> impl Iterator<Item = Digest> {
    (0..PAIRS / names.len() as u32).map(digest)
}

/// Returns a blob's metadata as S3 describes it.
fn object(digest: &Digest) -> ObjectMeta {
    ObjectMeta {
        location: path(digest),
        last_modified: (UNIX_EPOCH + Duration::from_secs(1_800_000_000)).into(),
        size: 3_401_613,
        e_tag: Some(format!("\"{}\"", &digest.hex()[..32])),
        version: None,
    }
}

type Hasher = foldhash::fast::RandomState;
type Moka = (
    moka::sync::Cache<(String, [u8; 32]), (), Hasher>,
    moka::sync::Cache<[u8; 32], Arc<ObjectMeta>, Hasher>,
);

fn two_moka_caches() -> Moka {
    let members = moka::sync::Cache::builder()
        .max_capacity(u64::from(PAIRS) * 2)
        .time_to_live(TTL)
        .build_with_hasher(Hasher::default());
    let metas = moka::sync::Cache::builder()
        .max_capacity(u64::from(PAIRS) * 2)
        .time_to_live(TTL)
        .build_with_hasher(Hasher::default());
    (members, metas)
}

fn fill_moka((members, metas): &Moka, names: &[RepositoryName]) {
    for digest in digests(names) {
        let Digest::Sha256(hash) = digest else {
            continue;
        };
        metas.insert(hash, Arc::new(object(&digest)));
        for name in names {
            members.insert((name.to_string(), hash), ());
        }
    }
    members.run_pending_tasks();
    metas.run_pending_tasks();
}

fn fill(cache: &TieredCache, names: &[RepositoryName]) {
    for digest in digests(names) {
        let done = |done: Option<Result<(), _>>| done.expect("at once").expect("room");
        let ObjectMeta {
            location,
            last_modified,
            size,
            e_tag,
            ..
        } = object(&digest);
        let meta = LayerMeta::new(location.as_ref(), size)
            .expect("a meta")
            .with_e_tag(e_tag.expect("a tag"))
            .with_last_modified(last_modified.into());
        done(cache.set_meta(&digest, &meta).now_or_never());
        for name in names {
            // A registry also parses the name anew for each request.
            let name = name.as_str().parse().expect("a name");
            done(cache.add(&Link::layer(name, digest)).now_or_never());
        }
    }
    // Each read also does a part of moka's pending maintenance.
    for digest in digests(names) {
        for name in names {
            let link = Link::layer(name.clone(), digest);
            assert!(matches!(
                cache.contains(&link).now_or_never(),
                Some(Ok(true))
            ));
        }
    }
}
