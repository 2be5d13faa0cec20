//! Tests reads of the blob and link paths of each layout, through `CachedStore`.

use test_support as support;

use futures::TryStreamExt;
use layercache::layout::{Distribution, Layout, OciImages};
use layercache::{CachePolicy, CacheStatus, CachedStore, Digest, Freshness};
use object_store::limit::LimitStore;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, GetResultPayload, ObjectStore,
    ObjectStoreExt, PutOptions,
};
use support::world::{head, status, with_policy, world, worlds};

/// A future that is made before a change and polled after it begins after the change.
#[tokio::test]
async fn a_read_begins_when_it_is_first_polled() {
    let store = CachedStore::new(InMemory::new());
    let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    let path = Distribution::default().blob_path(&digest).unwrap();
    let registry = store.registry();
    let (repository, blobs) = (registry.repository("a".parse().unwrap()), registry.blobs());
    store.put(&path, "content".into()).await.unwrap();
    repository.link(&digest).await.unwrap();
    for _ in 0..2 {
        let stat = repository.stat(&digest, Freshness::Cached).await.unwrap();
        assert!(stat.value.is_some());
    }
    let digests = [digest];
    let stat = repository.stat(&digest, Freshness::Cached);
    let many = repository.stat_many(&digests, Freshness::Cached);
    let contains = repository.contains(&digest, Freshness::Cached);
    let blob = blobs.stat(&digest, Freshness::Cached);
    let object = store.head(&path);
    repository.unlink(&digest).await.unwrap();
    blobs.delete(&digest).await.unwrap();
    assert_eq!(stat.await.unwrap().value, None);
    assert_eq!(many.await.unwrap()[0].value, None);
    assert!(!contains.await.unwrap().value);
    assert_eq!(blob.await.unwrap().value, None);
    object.await.unwrap_err();
}

#[tokio::test]
async fn a_head_from_memory_equals_the_head_of_the_store() {
    for world in worlds() {
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, "application/octet-stream"),
            (Attribute::Metadata("who".into()), "me"),
        ]);
        let options = PutOptions::from(attributes.clone());
        let put = world.store.put_opts(&world.blob, "content".into(), options);
        put.await.unwrap();
        world.warm(&world.blob).await;

        let reads = world.bare.reads();
        let cached = world.store.get_opts(&world.blob, head()).await.unwrap();
        assert_eq!(world.bare.reads(), reads, "the read reached the store");
        assert_eq!(status(&cached), CacheStatus::Memory);
        let bare = world.bare.get_opts(&world.blob, head()).await.unwrap();
        assert_eq!(cached.meta, bare.meta);
        assert_eq!(cached.range, 0..7, "as the HTTP stores answer");
        assert_eq!(cached.attributes, attributes);
        assert!(matches!(cached.payload, GetResultPayload::Stream(_)));
        let content: Vec<_> = cached.into_stream().try_collect().await.unwrap();
        assert!(content.is_empty(), "a head has no content");
    }
}

#[tokio::test]
async fn head_and_content_of_a_link_are_answered_from_memory() {
    let world = world(Distribution::default());
    let link = world.link.clone().unwrap();
    let text = world.digest.to_string();
    world.bare.put(&link, text.clone().into()).await.unwrap();

    let first = world.store.get(&link).await.unwrap();
    assert_eq!(status(&first), CacheStatus::Miss);
    assert_eq!(first.bytes().await.unwrap(), text);
    world.warm(&link).await;

    let reads = world.bare.reads();
    let again = world.store.get(&link).await.unwrap();
    assert_eq!(status(&again), CacheStatus::Memory);
    assert_eq!(again.range, 0..71);
    assert_eq!(again.meta, world.bare.inner().head(&link).await.unwrap());
    assert_eq!(again.bytes().await.unwrap(), text);
    let (meta, _) = world.head(&link).await;
    assert_eq!(meta, world.bare.inner().head(&link).await.unwrap());
    assert_eq!(world.bare.reads(), reads, "the read reached the store");
}

#[tokio::test]
async fn a_link_with_wrong_content_passes_through_and_is_no_membership() {
    let world = world(Distribution::default());
    let link = world.link.clone().unwrap();
    let other = Digest::Sha256([0xcd; 32]).to_string();
    for content in ["", "x", other.as_str(), &format!("{}\n", world.digest)] {
        world
            .bare
            .put(&link, content.to_owned().into())
            .await
            .unwrap();
        for _ in 0..3 {
            let got = world.store.get(&link).await.unwrap();
            assert_eq!(got.bytes().await.unwrap(), content);
            let (meta, status) = world.head(&link).await;
            assert_eq!(meta.size, content.len() as u64);
            assert_ne!(status, CacheStatus::Memory);
        }
        let repository = world
            .store
            .registry()
            .repository("library/alpine".parse().unwrap());
        let contains = repository.contains(&world.digest, Freshness::Cached).await;
        assert!(!contains.unwrap().value, "{content:?} is no link");
    }
}

#[tokio::test]
async fn a_not_found_of_the_store_removes_the_entry() {
    for world in worlds() {
        world.warm_blob().await;
        world.bare.inner().delete(&world.blob).await.unwrap();
        assert_eq!(
            world.head(&world.blob).await.1,
            CacheStatus::Memory,
            "not known yet"
        );

        let error = world.store.get(&world.blob).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        world
            .assert_right(&world.blob, "a get that found nothing")
            .await;

        world.warm_blob().await;
        world.bare.inner().delete(&world.blob).await.unwrap();
        let ranges = world.store.get_ranges(&world.blob, &[0..1, 2..3]).await;
        assert!(matches!(ranges, Err(Error::NotFound { .. })));
        world
            .assert_right(&world.blob, "get_ranges that found nothing")
            .await;
    }
}

#[tokio::test]
async fn content_comes_from_the_store_and_fills_the_cache() {
    for world in worlds() {
        world.bare.put(&world.blob, "content".into()).await.unwrap();
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(2..4)));
        let part = world.store.get_opts(&world.blob, options).await.unwrap();
        assert_eq!(status(&part), CacheStatus::Bypass);
        assert_eq!(part.bytes().await.unwrap(), "nt");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let (meta, status) = world.head(&world.blob).await;
        assert_eq!((meta.size, status), (7, CacheStatus::Memory));
    }
}

/// The store has to answer each of these requests itself. The result must not show that memory
/// knows the object.
#[tokio::test]
async fn conditional_and_ranged_heads_pass_through() {
    for world in worlds() {
        world.warm_blob().await;
        let meta = world.bare.inner().head(&world.blob).await.unwrap();
        let tag = meta.e_tag.clone();
        let (past, future) = (meta.last_modified - DAY, meta.last_modified + DAY);
        let requests = [
            head().with_if_match(tag.clone()),
            head().with_if_match(Some("\"other\"")),
            head().with_if_none_match(tag),
            head().with_if_none_match(Some("*")),
            head().with_if_modified_since(Some(future)),
            head().with_if_modified_since(Some(past)),
            head().with_if_unmodified_since(Some(past)),
            head().with_version(Some("1")),
            head().with_range(Some(GetRange::Suffix(3))),
            head().with_range(Some(GetRange::Offset(100))),
            with_policy(head(), CachePolicy::Bypass),
        ];
        for request in requests {
            let reads = world.bare.reads();
            let cached = world.store.get_opts(&world.blob, request.clone()).await;
            assert_eq!(
                world.bare.reads(),
                reads + 1,
                "{request:?} did not reach the store"
            );
            let bare = world
                .bare
                .inner()
                .get_opts(&world.blob, request.clone())
                .await;
            match (cached, bare) {
                (Ok(cached), Ok(bare)) => {
                    assert_eq!(status(&cached), CacheStatus::Bypass);
                    assert_eq!((cached.meta, cached.range), (bare.meta, bare.range));
                }
                (Err(cached), Err(bare)) => assert_eq!(cached.to_string(), bare.to_string()),
                (cached, bare) => panic!("{request:?}: {cached:?}, but the store {bare:?}"),
            }
        }
    }
}

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

#[tokio::test]
async fn refresh_asks_the_store_and_fills_the_cache() {
    for world in worlds() {
        world.warm_blob().await;
        world.change_behind_the_cache().await;
        let refresh = with_policy(head(), CachePolicy::Refresh);
        let fresh = world.store.get_opts(&world.blob, refresh).await.unwrap();
        assert_eq!((fresh.meta.size, status(&fresh)), (24, CacheStatus::Miss));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let (meta, status) = world.head(&world.blob).await;
        assert_eq!((meta.size, status), (24, CacheStatus::Memory));
    }
}

#[tokio::test]
async fn bypass_fills_nothing() {
    let world = world(Distribution::default());
    world.bare.put(&world.blob, "content".into()).await.unwrap();
    for _ in 0..3 {
        let bypass = with_policy(head(), CachePolicy::Bypass);
        world.store.get_opts(&world.blob, bypass).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(world.head(&world.blob).await.1, CacheStatus::Miss);
}

#[tokio::test]
async fn other_paths_pass_through_untouched() {
    let world = world(Distribution::default());
    world
        .store
        .put(&world.other, "content".into())
        .await
        .unwrap();
    for read in 1..4 {
        assert_eq!(world.head(&world.other).await.1, CacheStatus::Bypass);
        assert_eq!(world.bare.reads(), read);
    }
}

#[tokio::test]
async fn display_shows_the_wrapped_store() {
    let store = CachedStore::new(PrefixStore::new(InMemory::new(), "a"));
    let store = LimitStore::new(store, 3);
    assert_eq!(
        store.to_string(),
        "LimitStore(3, CachedStore(PrefixObjectStore(a)))"
    );
}

#[tokio::test]
async fn two_repositories_with_the_same_digest_are_distinct() {
    let world = world(OciImages::default());
    let registry = world.store.registry();
    let (ours, theirs) = (
        registry.repository("library/alpine".parse().unwrap()),
        registry.repository("library/debian".parse().unwrap()),
    );
    world
        .store
        .put(&world.blob, "content".into())
        .await
        .unwrap();
    for _ in 0..3 {
        let stat = ours.stat(&world.digest, Freshness::Cached).await.unwrap();
        assert_eq!(stat.value.unwrap().path(), world.blob.as_ref());
        let stat = theirs.stat(&world.digest, Freshness::Cached).await.unwrap();
        assert_eq!(stat.value, None);
    }
    let error = ours.link(&world.digest).await.unwrap_err();
    assert!(error.to_string().contains("no path for a link"), "{error}");
    ours.unlink(&world.digest).await.unwrap();
    assert!(world.bare.inner().head(&world.blob).await.is_err());
    let stat = ours.stat(&world.digest, Freshness::Cached).await.unwrap();
    assert_eq!(stat.value, None);
}

#[tokio::test]
async fn an_impossible_length_is_never_answered_from_memory() {
    for world in worlds() {
        world.bare.put(&world.blob, "".into()).await.unwrap();
        let layers = world
            .store
            .registry()
            .repository("library/alpine".parse().unwrap());
        for round in 0..6 {
            let (meta, who) = world.head(&world.blob).await;
            assert_eq!((meta.size, who), (0, CacheStatus::Miss), "round {round}");
            let freshness = [Freshness::Cached, Freshness::Verified][round % 2];
            // A template layout has no path for a membership.
            let _ = layers.contains(&world.digest, freshness).await;
            if let Ok(stat) = layers.stat(&world.digest, Freshness::Cached).await {
                assert_ne!(stat.status, CacheStatus::Memory);
            }
            let content = world.store.get(&world.blob).await.unwrap();
            assert!(content.bytes().await.unwrap().is_empty());
            assert_eq!(world.store.warm(None).await.unwrap().filled, 0);
            tokio::task::yield_now().await;
        }
    }
}
