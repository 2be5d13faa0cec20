//! Measures memory hits, beside one `get` of a bare moka cache with the same hasher.

use crate::clock::{Pair, median, side_by_side};
use crate::table::{Row, Table, Target};
use crate::warm::{self, digest, path};
use criterion::Bencher;
use futures::FutureExt;
use layercache::{Digest, Freshness, LayerMeta, Repository, StoreBackend};
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ObjectStore};
use std::hint::black_box;
use std::sync::Arc;

const BLOBS: u32 = 10_000;

pub(super) type Moka = moka::sync::Cache<[u8; 32], LayerMeta, foldhash::fast::RandomState>;

pub(crate) fn measure(table: &mut Table) {
    let moka = bare(BLOBS);
    let (runtime, store) = warm::store_beside(BLOBS, |digest| fill(&moka, digest));
    let _guard = runtime.enter();
    let digests: Vec<_> = (0..BLOBS).map(digest).collect();
    let paths: Vec<_> = digests.iter().map(path).collect();
    let repository = warm::repository(&store);

    let times = side_by_side(
        "stat",
        |bencher| each(bencher, &digests, |digest| moka.get(digest.as_bytes())),
        |bencher| each(bencher, &digests, |digest| stat(&repository, digest)),
    );
    let allocations = count(|| stat(&repository, &digests[0]));
    table.add(row(
        "typed `stat`, memory hit (membership and meta)",
        Target::AtMost(2.0),
        times,
        allocations,
        0,
    ));

    let store: Arc<dyn ObjectStore> = store;
    let times = side_by_side(
        "head",
        |bencher| each(bencher, &digests, |digest| moka.get(digest.as_bytes())),
        |bencher| each(bencher, &paths, |path| head(store.as_ref(), path)),
    );
    let allocations = count(|| head(store.as_ref(), &paths[0]));
    table.add(row(
        "`head` through `dyn ObjectStore`, memory hit",
        Target::AtMost(4.0),
        times,
        allocations,
        OF_THE_ANSWER,
    ));
}

/// The parts of an answer to a `head` that are on the heap: `object_store`'s boxed future, the
/// location, the entity tag, the empty stream, and the extensions with the status in them.
const OF_THE_ANSWER: u64 = 6;

fn row(what: &'static str, target: Target, times: Pair, allocations: u64, allowed: u64) -> Row {
    let Pair {
        yardstick,
        ours,
        ratio,
    } = times;
    Row {
        what,
        yardstick: "one raw moka `get`",
        target,
        ratio,
        detail: format!("{ours:.0} ns against {yardstick:.0} ns, {allocations} allocations"),
        holds: allocations <= allowed,
    }
}

/// Asks for the blobs in an order that does not follow cache lines.
fn each<T, R>(bencher: &mut Bencher<'_>, things: &[T], mut ask: impl FnMut(&T) -> R) {
    let mut i = 0;
    bencher.iter(|| {
        i = (i + 7919) % things.len();
        ask(&things[i])
    });
}

/// Returns the yardstick, still empty.
pub(super) fn bare(blobs: u32) -> Moka {
    moka::sync::Cache::builder()
        .max_capacity(u64::from(blobs) * 2)
        .build_with_hasher(foldhash::fast::RandomState::default())
}

pub(super) fn fill(moka: &Moka, digest: &Digest) {
    if let Digest::Sha256(hash) = digest {
        let meta = LayerMeta::new(path(digest).as_ref(), 7).expect("a meta");
        moka.insert(*hash, meta);
    }
}

pub(super) fn stat(repository: &Repository<StoreBackend>, digest: &Digest) -> Option<LayerMeta> {
    let answer = repository.stat(digest, Freshness::Cached).now_or_never();
    let answer = answer.expect("memory knows").expect("an answer");
    assert!(answer.value.is_some());
    answer.value
}

pub(super) fn head(store: &dyn ObjectStore, path: &Path) -> GetResult {
    let options = GetOptions::new().with_head(true);
    let result = store.get_opts(path, options).now_or_never();
    result.expect("memory knows").expect("an answer")
}

/// Returns the median of many counts, because moka sometimes does maintenance in a list that may
/// grow.
fn count<T>(ask: impl Fn() -> T) -> u64 {
    let counts = (0..101).map(|_| {
        let info = allocation_counter::measure(|| {
            black_box(ask());
        });
        info.count_total as f64
    });
    median(counts) as u64
}
