//! Tests warming with memory alone.

use super::{
    BLOBS, CONTENT, blob, is_member, knows_blobs, knows_members, length, link, put_blobs, put_links,
};
use layercache::{CacheStatus, CachedStore, Error, Freshness, WarmProgress};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};
use std::sync::{Arc, Mutex};
use test_support::nodes::{digest, name};
use test_support::recording::Recording;

fn store() -> CachedStore<Recording<InMemory>> {
    CachedStore::new(Recording::new(InMemory::new()))
}

fn counts(progress: &WarmProgress) -> [u64; 5] {
    let WarmProgress {
        seen,
        filled,
        known,
        skipped,
        refused,
        ..
    } = *progress;
    [seen, filled, known, skipped, refused]
}

#[tokio::test]
async fn after_warming_no_stat_reaches_the_store() {
    let store = store();
    let bare = store.get_ref().clone();
    put_blobs(&bare, 2500).await;
    let reports = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&reports);
    let warm = store.warm(Some(&Path::from(BLOBS)));
    let warm = warm.progress(move |progress| listener.lock().unwrap().push(progress.clone()));
    let warmed = warm.await.unwrap();
    assert_eq!(counts(&warmed), [2500, 2500, 0, 0, 0]);
    assert_eq!(warmed.position, Some(blob(&digest(2499))));
    assert_eq!((bare.lists(), bare.reads()), (1, 0));
    let reports = reports.lock().unwrap().clone();
    let seen: Vec<_> = reports.iter().map(|progress| progress.seen).collect();
    assert_eq!(seen, [1000, 2000, 2500]);
    assert_eq!(reports[0].position, Some(blob(&digest(999))));
    assert_eq!(reports.last(), Some(&warmed));
    knows_blobs(&store, 2500, CacheStatus::Memory).await;

    let again = store.warm(None).await.unwrap();
    assert_eq!(counts(&again), [2500, 0, 2500, 0, 0]);
}

#[tokio::test]
async fn links_are_read_and_invalid_links_are_skipped() {
    let store = store();
    let bare = store.get_ref().clone();
    put_blobs(&bare, 4).await;
    put_links(&bare, &name(), 4).await;
    // One link of the right size with another digest, and one of the wrong size.
    let other = digest(99).to_string();
    bare.put(&link(&name(), &digest(3)), other.into())
        .await
        .unwrap();
    bare.put(&link(&name(), &digest(2)), "short".into())
        .await
        .unwrap();
    let tag = "docker/registry/v2/repositories/library/alpine/_manifests/tags/1/current/link";
    bare.put(&tag.into(), digest(1).to_string().into())
        .await
        .unwrap();
    bare.put(&blob(&digest(5)), "".into()).await.unwrap();
    let warmed = store.warm(None).await.unwrap();
    assert_eq!(counts(&warmed), [10, 6, 0, 4, 0]);
    assert_eq!(bare.reads(), 3, "links of the right size");
    knows_members(&store, 2, CacheStatus::Memory).await;
    let repository = store.registry().repository(name());
    for broken in [2, 3] {
        let answer = repository.stat(&digest(broken), Freshness::Cached).await;
        let answer = answer.unwrap();
        assert_eq!((answer.value, answer.status), (None, CacheStatus::Miss));
    }
}

#[tokio::test]
async fn a_head_after_warming_is_exact_and_complete_entries_stay() {
    let store = store();
    let bare = store.get_ref().clone();
    let attributes: Attributes = [(Attribute::ContentType, "text/plain")]
        .into_iter()
        .collect();
    let options = PutOptions::from(attributes.clone());
    for i in 0..3 {
        let at = blob(&digest(i));
        bare.put_opts(&at, CONTENT.into(), options.clone())
            .await
            .unwrap();
    }
    let head = |i| {
        let options = object_store::GetOptions::new().with_head(true);
        let (store, at) = (store.clone(), blob(&digest(i)));
        async move { store.get_opts(&at, options).await.unwrap() }
    };
    assert_eq!(head(0).await.attributes, attributes);
    let warmed = store.warm(None).await.unwrap();
    assert_eq!(counts(&warmed), [3, 2, 1, 0, 0]);
    let reads = bare.reads();
    assert_eq!(head(0).await.attributes, attributes);
    assert_eq!(bare.reads(), reads, "the entry was complete");
    for _ in 0..2 {
        let answer = head(1).await;
        assert_eq!(answer.attributes, attributes);
        assert_eq!(
            answer.meta,
            bare.inner().head(&blob(&digest(1))).await.unwrap()
        );
        assert_eq!(bare.reads(), reads + 1, "once");
    }
    // The attributes that arrive with the content complete the entry.
    let content = store.get(&blob(&digest(2))).await.unwrap();
    assert_eq!(content.bytes().await.unwrap(), CONTENT);
    let reads = bare.reads();
    assert_eq!(head(2).await.attributes, attributes);
    assert_eq!(bare.reads(), reads);
}

#[tokio::test]
async fn an_object_replaced_without_the_cache_is_detected() {
    let store = store();
    let bare = store.get_ref().clone();
    put_blobs(&bare, 1).await;
    store.warm(None).await.unwrap();
    bare.put(&blob(&digest(0)), "another".into()).await.unwrap();
    store.get(&blob(&digest(0))).await.unwrap();
    let blobs = store.registry().blobs();
    let answer = blobs.stat(&digest(0), Freshness::Cached).await.unwrap();
    assert_eq!(answer.status, CacheStatus::Miss);
}

#[tokio::test]
async fn a_stopped_warming_resumes_without_loss() {
    let store = store();
    let bare = store.get_ref().clone();
    put_blobs(&bare, 3500).await;
    let fails = bare.clone();
    let warm = store
        .warm(None)
        .progress(move |progress| fails.fail(progress.seen == 2000));
    let error = warm.await.unwrap_err();
    assert!(matches!(error.source, Error::Backend { .. }), "{error:?}");
    let position = error.progress.position.clone().unwrap();
    assert_eq!(counts(&error.progress), [2000, 2000, 0, 0, 0]);
    assert_eq!(
        error.to_string(),
        format!(
            "warming stopped after `{position}`: backend: Generic Recording error: injected failure"
        )
    );
    bare.fail(false);

    // The warming is dropped after its first page.
    let (done, stop) = tokio::sync::watch::channel(None);
    let warm = store
        .warm(None)
        .resume_after(&position)
        .progress(move |progress| {
            done.send_if_modified(|last| {
                let is_first = last.is_none();
                *last = last.take().or(progress.position.clone());
                is_first
            });
        });
    let mut seen = stop.clone();
    tokio::select! {
        biased;
        _ = seen.changed() => {}
        _ = warm.into_future() => {}
    }
    let position = stop.borrow().clone().unwrap();
    let rest = store.warm(None).resume_after(&position).await.unwrap();
    assert_eq!(rest.seen, 3500 - 3000);
    knows_blobs(&store, 3500, CacheStatus::Memory).await;
}

#[tokio::test]
async fn a_list_from_before_a_change_fills_nothing_of_it() {
    let store = store();
    let bare = store.get_ref().clone();
    put_blobs(&bare, 1500).await;
    put_links(&bare, &name(), 2).await;
    bare.hold_lists(Some(0));
    let warm = tokio::spawn(store.warm(None).into_future());
    while bare.lists() == 0 {
        tokio::task::yield_now().await;
    }
    store.delete(&blob(&digest(3))).await.unwrap();
    store.delete(&link(&name(), &digest(1))).await.unwrap();
    bare.hold_lists(None);
    let warmed = warm.await.unwrap().unwrap();
    assert!(warmed.refused >= 1, "{warmed:?}");
    assert_eq!(bare.lists(), 2, "the second list has current stamps");
    assert_eq!(length(&store, 3).await, None);
    assert!(!is_member(&store, 1).await);
}

#[tokio::test]
async fn a_running_change_keeps_its_key_out() {
    let store = store();
    let bare = store.get_ref().clone();
    put_blobs(&bare, 3).await;
    bare.hold_changes(Some(test_support::recording::Moment::Before));
    let deleter = store.clone();
    let delete = tokio::spawn(async move { deleter.delete(&blob(&digest(1))).await });
    while bare.changes() < 4 {
        tokio::task::yield_now().await;
    }
    let warmed = store.warm(None).await.unwrap();
    assert_eq!(counts(&warmed), [3, 2, 0, 0, 1]);
    bare.hold_changes(None);
    delete.await.unwrap().unwrap();
    assert_eq!(length(&store, 1).await, None);
}
