//! Tests writes and deletes of the blob and link paths of each layout, through `CachedStore`.

use test_support as support;

use futures::StreamExt;
use layercache::Digest;
use layercache::layout::{Distribution, Layout};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, Result};
use support::world::{world, worlds};

#[tokio::test]
async fn every_kind_of_write_invalidates_the_entry() {
    for world in worlds() {
        for path in [Some(&world.blob), world.link.as_ref()]
            .into_iter()
            .flatten()
        {
            let (store, text) = (&world.store, world.digest.to_string());
            let put = |path: &Path, text: &str| {
                let (path, text) = (path.clone(), text.to_owned());
                async move { store.put(&path, text.into()).await.unwrap() }
            };
            put(path, &text).await;
            world.warm(path).await;

            put(path, "another").await;
            world.assert_right(path, "put").await;
            put(path, &text).await;
            world.warm(path).await;

            let mut upload = store.put_multipart(path).await.unwrap();
            upload.put_part("parts".into()).await.unwrap();
            world.assert_right(path, "a part").await;
            upload.complete().await.unwrap();
            world.assert_right(path, "complete").await;
            put(path, &text).await;
            world.warm(path).await;

            let id = store.create_multipart(path).await.unwrap();
            let part = MultipartStore::put_part(store, path, &id, 0, "by id".into())
                .await
                .unwrap();
            store
                .complete_multipart(path, &id, vec![part])
                .await
                .unwrap();
            world.assert_right(path, "complete_multipart").await;
            put(path, &text).await;
            world.warm(path).await;

            put(&world.other, "moved here").await;
            store.copy(&world.other, path).await.unwrap();
            world.assert_right(path, "copy").await;
            put(path, &text).await;
            world.warm(path).await;

            store.rename(&world.other, path).await.unwrap();
            world.assert_right(path, "rename to").await;
            put(path, &text).await;
            world.warm(path).await;

            store.rename(path, &world.other).await.unwrap();
            world.assert_right(path, "rename from").await;
            put(path, &text).await;
            world.warm(path).await;

            store.delete(path).await.unwrap();
            world.assert_right(path, "delete").await;
            assert!(store.head(path).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_failed_write_invalidates_the_entry() {
    let world = world(Distribution::default());
    world.warm_blob().await;
    world.change_behind_the_cache().await;
    let create = world
        .store
        .put_opts(&world.blob, "x".into(), PutMode::Create.into());
    let error = create.await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    world.assert_right(&world.blob, "a failed put").await;
}

#[tokio::test]
async fn a_dropped_write_runs_to_its_end() {
    let world = world(Distribution::default());
    world.warm_blob().await;
    let mut put = Box::pin(world.store.put(&world.blob, "changed".into()));
    // One poll starts the put.
    assert!(futures::poll!(&mut put).is_pending());
    drop(put);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.bare.inner().head(&world.blob).await.unwrap().size, 7);
    world.assert_right(&world.blob, "a dropped put").await;
}

#[tokio::test]
async fn delete_stream_yields_one_result_per_input_in_order() {
    let world = world(Distribution::default());
    let layout = Distribution::default();
    let mut expected = Vec::new();
    let mut inputs = Vec::new();
    for i in 0..2500u32 {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&i.to_be_bytes());
        let path = match i % 5 {
            0 => Path::from(format!("elsewhere/{i}")),
            _ => layout.blob_path(&Digest::Sha256(hash)).unwrap(),
        };
        world.store.put(&path, "x".into()).await.unwrap();
        if i % 100 == 0 {
            world.warm_if_cached(&path).await;
        }
        expected.push(Some(path.clone()));
        inputs.push(Ok(path));
        if i % 1000 == 7 {
            expected.push(None);
            inputs.push(Err(Error::NotImplemented {
                operation: format!("input {i}"),
                implementer: "test".into(),
            }));
        }
    }
    let outputs = world
        .store
        .delete_stream(futures::stream::iter(inputs).boxed());
    let outputs: Vec<Result<Path>> = outputs.collect().await;
    let outputs: Vec<_> = outputs.into_iter().map(Result::ok).collect();
    assert_eq!(outputs, expected);
    assert!(
        world.bare.batches() <= 6,
        "{} batches",
        world.bare.batches()
    );
    for path in expected.iter().flatten() {
        assert!(world.store.head(path).await.is_err(), "{path} is deleted");
    }
}

#[tokio::test]
async fn delete_stream_reads_ahead_at_most_one_batch() {
    let world = world(Distribution::default());
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&taken);
    let inputs = futures::stream::iter(0..10_000).map(move |i| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Path::from(format!("elsewhere/{i}")))
    });
    let mut outputs = world.store.delete_stream(inputs.boxed());
    outputs.next().await.unwrap().unwrap();
    assert!(taken.load(std::sync::atomic::Ordering::SeqCst) <= 2000);
}
