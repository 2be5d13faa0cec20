//! Checks whether a [`LayerInfoCache`] keeps its contract. All implementations run this suite,
//! those of this crate and those of other crates.
//!
//! The suite makes the checks of docker/distribution's first cache. It adds the checks that were
//! missing there: isolation, overwriting, idempotence, independence of the two facts, removal, many
//! tasks at once, and stored values that cannot be read.
//!
//! ```
//! use layercache::cache::check;
//! use layercache::{MemoryCache, MemoryConfig};
//! use std::sync::Arc;
//!
//! # async fn example() {
//! check::all(Arc::new(MemoryCache::new(MemoryConfig::default()))).await;
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example());
//! ```

use super::LayerInfoCache;
use crate::types::{Digest, LayerMeta, Link, RepositoryName};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Runs every check that needs only the cache. The cache must be empty, and large enough for a few
/// hundred facts.
///
/// # Panics
/// Panics if the cache breaks its contract. The message says how the cache should have answered.
pub async fn all(cache: Arc<dyn LayerInfoCache>) {
    membership(cache.as_ref()).await;
    meta(cache.as_ref()).await;
    independence(cache.as_ref()).await;
    isolation(cache.as_ref()).await;
    removal(cache.as_ref()).await;
    many_tasks(cache).await;
}

/// Checks that the cache treats stored values that it cannot read as misses, and overwrites them.
///
/// The check stores a membership and a meta, and then calls `spoil` once. `spoil` must overwrite
/// both with nonsense in the place where the cache stores them.
///
/// # Panics
/// Panics if the cache answers with an error or with a spoiled value, or if it does not store new
/// values afterwards.
///
/// ```
/// use layercache::cache::check;
/// use layercache::{LayerInfoCache, MemoryCache, MemoryConfig};
///
/// # async fn example() {
/// let cache = MemoryCache::new(MemoryConfig::default());
/// // Values in memory cannot be spoiled. A cache that stores bytes writes nonsense here.
/// check::corruption(&cache, async |link| {
///     cache.remove(&link).await.unwrap();
///     cache.remove_meta(&link.digest).await.unwrap();
/// })
/// .await;
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example());
/// ```
pub async fn corruption<F>(cache: &dyn LayerInfoCache, spoil: impl FnOnce(Link) -> F)
where
    F: Future<Output = ()>,
{
    let link = Link::layer(name("check/corruption"), digest(60));
    let meta = layer("check/corruption", 60);
    let written = async || {
        cache.add(&link).await.expect("add does not fail");
        cache
            .set_meta(&link.digest, &meta)
            .await
            .expect("set_meta does not fail");
    };
    written().await;
    spoil(link.clone()).await;
    assert!(
        !contains(cache, &link).await,
        "a spoiled membership is no membership"
    );
    assert_eq!(
        meta_of(cache, &link.digest).await,
        None,
        "a spoiled meta is none"
    );
    written().await;
    assert!(
        contains(cache, &link).await,
        "add overwrites what was spoiled"
    );
    assert_eq!(
        meta_of(cache, &link.digest).await,
        Some(meta),
        "set_meta overwrites what was spoiled"
    );
}

async fn membership(cache: &dyn LayerInfoCache) {
    let link = Link::layer(name("check/membership"), digest(1));
    assert!(!contains(cache, &link).await, "nothing is known at first");
    add(cache, &link).await;
    assert!(contains(cache, &link).await, "what was added is known");
    add(cache, &link).await;
    assert!(contains(cache, &link).await, "to add again changes nothing");
}

async fn meta(cache: &dyn LayerInfoCache) {
    let key = digest(2);
    assert_eq!(
        meta_of(cache, &key).await,
        None,
        "nothing is known at first"
    );
    let plain = layer("check/meta", 20);
    set_meta(cache, &key, &plain).await;
    assert_eq!(
        meta_of(cache, &key).await,
        Some(plain.clone()),
        "what was set is known"
    );

    let full = layer("check/meta/moved", 21)
        .with_e_tag("\"tag, with: odd \\ characters\"")
        .with_version("7")
        .with_attributes("12:content-type")
        .with_last_modified(UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789));
    set_meta(cache, &key, &full).await;
    assert_eq!(
        meta_of(cache, &key).await,
        Some(full),
        "every field is given back"
    );

    set_meta(cache, &key, &plain).await;
    let left_over = "a field that the new meta lacks is not left over from the old one";
    assert_eq!(meta_of(cache, &key).await, Some(plain), "{left_over}");
}

async fn independence(cache: &dyn LayerInfoCache) {
    let member = Link::layer(name("check/independence"), digest(3));
    add(cache, &member).await;
    assert_eq!(
        meta_of(cache, &member.digest).await,
        None,
        "membership implies no meta"
    );

    let described = Link::layer(name("check/independence"), digest(4));
    set_meta(cache, &described.digest, &layer("check/independence", 4)).await;
    assert!(
        !contains(cache, &described).await,
        "meta implies no membership"
    );

    set_meta(cache, &member.digest, &layer("check/independence", 3)).await;
    remove(cache, &member).await;
    let meta = meta_of(cache, &member.digest).await;
    assert!(meta.is_some(), "to remove a membership removes no meta");

    add(cache, &described).await;
    remove_meta(cache, &described.digest).await;
    assert!(
        contains(cache, &described).await,
        "to remove a meta removes no membership"
    );
}

async fn isolation(cache: &dyn LayerInfoCache) {
    let added = Link::layer(name("check/isolation"), digest(5));
    add(cache, &added).await;
    set_meta(cache, &added.digest, &layer("check/isolation", 5)).await;

    let others = [
        Link::layer(name("check/isolatio"), digest(5)),
        Link::layer(name("check/isolation/n"), digest(5)),
        Link::layer(name("check"), digest(5)),
        Link::manifest(name("check/isolation"), digest(5)),
        Link::layer(name("check/isolation"), digest(6)),
        Link::layer(name("check/isolation"), wide_digest(5)),
    ];
    for other in others {
        assert!(!contains(cache, &other).await, "{other:?} was never added");
        remove(cache, &other).await;
    }
    for other in [digest(6), wide_digest(5)] {
        assert_eq!(meta_of(cache, &other).await, None, "{other} was never set");
        remove_meta(cache, &other).await;
    }
    assert!(
        contains(cache, &added).await,
        "to remove others removes no more"
    );
    assert!(
        meta_of(cache, &added.digest).await.is_some(),
        "to remove others removes no more"
    );
}

async fn removal(cache: &dyn LayerInfoCache) {
    let link = Link::layer(name("check/removal"), digest(7));
    remove(cache, &link).await;
    remove_meta(cache, &link.digest).await;
    for _ in 0..2 {
        add(cache, &link).await;
        set_meta(cache, &link.digest, &layer("check/removal", 7)).await;
        remove(cache, &link).await;
        remove_meta(cache, &link.digest).await;
        assert!(
            !contains(cache, &link).await,
            "what was removed is not known"
        );
        assert_eq!(
            meta_of(cache, &link.digest).await,
            None,
            "what was removed is not known"
        );
    }
}

async fn many_tasks(cache: Arc<dyn LayerInfoCache>) {
    const TASKS: u8 = 16;
    let task = |i: u8| {
        let cache = Arc::clone(&cache);
        async move {
            let link = Link::layer(name(&format!("check/task{i}")), digest(40));
            let own = digest(100 + i);
            for length in 1..20 {
                let meta = layer("check/task", length);
                add(cache.as_ref(), &link).await;
                set_meta(cache.as_ref(), &own, &meta).await;
                assert!(contains(cache.as_ref(), &link).await, "{link:?} was added");
                let found = meta_of(cache.as_ref(), &own).await;
                assert_eq!(found, Some(meta), "the newest of this task");
            }
            remove_meta(cache.as_ref(), &own).await;
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|i| tokio::spawn(task(i))).collect();
    for task in tasks {
        if let Err(failed) = task.await {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
    for i in 0..TASKS {
        let link = Link::layer(name(&format!("check/task{i}")), digest(40));
        assert!(contains(cache.as_ref(), &link).await, "{link:?} was added");
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("the suite's own names are valid")
}

const fn digest(seed: u8) -> Digest {
    Digest::Sha256([seed; 32])
}

const fn wide_digest(seed: u8) -> Digest {
    Digest::Sha512([seed; 64])
}

fn layer(path: &str, length: u64) -> LayerMeta {
    LayerMeta::new(path, length).expect("the suite's own paths are not empty")
}

async fn contains(cache: &dyn LayerInfoCache, link: &Link) -> bool {
    cache.contains(link).await.expect("contains does not fail")
}

async fn add(cache: &dyn LayerInfoCache, link: &Link) {
    cache.add(link).await.expect("add does not fail");
}

async fn remove(cache: &dyn LayerInfoCache, link: &Link) {
    cache.remove(link).await.expect("remove does not fail");
}

async fn meta_of(cache: &dyn LayerInfoCache, digest: &Digest) -> Option<LayerMeta> {
    cache.meta(digest).await.expect("meta does not fail")
}

async fn set_meta(cache: &dyn LayerInfoCache, digest: &Digest, meta: &LayerMeta) {
    let set = cache.set_meta(digest, meta).await;
    set.expect("set_meta does not fail");
}

async fn remove_meta(cache: &dyn LayerInfoCache, digest: &Digest) {
    let removed = cache.remove_meta(digest).await;
    removed.expect("remove_meta does not fail");
}
