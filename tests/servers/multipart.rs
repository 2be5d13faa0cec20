//! Tests multipart uploads of blobs: if a completion cannot run, the upload stays as it was.

use test_support as support;

use layercache::{CachedStore, ChangePolicy, Error, Limits};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, WriteMultipart};
use std::error::Error as StdError;
use std::time::{Duration, Instant};
use support::nodes::{
    Bare, Node, PATIENCE, bare, blob_path, config, digest, eventually, eventually_changes,
};
use support::recording::Moment;
use support::redis::Redis;
use support::server::Signal;
use tokio::time::{sleep, timeout};

/// How long a caller waits before it gives up.
const SOON: Duration = Duration::from_millis(100);

/// Returns a node that refuses every change while Redis cannot be reached, and an upload of one
/// part.
async fn upload(redis: &Redis) -> (Bare, Node, Box<dyn MultipartUpload>) {
    let bare = bare(Duration::ZERO);
    let config = config(redis).with_change_policy(ChangePolicy::Strict);
    let builder = CachedStore::builder(bare.clone()).limits(Limits::default().with_changes(1));
    let node = builder.redis(config).build().unwrap();
    eventually_changes(&node).await;
    let upload = of_one_part(&node).await;
    (bare, node, upload)
}

async fn of_one_part(node: &Node) -> Box<dyn MultipartUpload> {
    let mut upload = node.put_multipart(&path()).await.unwrap();
    upload.put_part("content".into()).await.unwrap();
    upload
}

fn path() -> Path {
    blob_path(&digest(1))
}

async fn is_there(bare: &Bare) -> bool {
    bare.inner().head(&path()).await.is_ok()
}

#[track_caller]
fn is_refused<T: std::fmt::Debug>(result: object_store::Result<T>) {
    let error = result.expect_err("Redis is away");
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(Error::ChangeRefused { .. }) = error.downcast_ref() {
            return;
        }
        cause = error.source();
    }
    panic!("{error:?}");
}

/// Completes an upload as soon as the node does not refuse that any more.
async fn completes(mut upload: Box<dyn MultipartUpload>) {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = upload.complete().await {
        assert!(Instant::now() < end, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn aborts(bare: &Bare, mut upload: Box<dyn MultipartUpload>) {
    upload.abort().await.unwrap();
    // A completion that was still running would end within this time.
    sleep(SOON * 3).await;
    assert!(!is_there(bare).await);
    upload.complete().await.unwrap_err();
}

#[tokio::test]
async fn a_refused_completion_keeps_the_upload() {
    let mut redis = Redis::start().await;
    let (bare, node, mut completed) = upload(&redis).await;
    let mut aborted = of_one_part(&node).await;
    let written = WriteMultipart::new(of_one_part(&node).await);
    redis.kill();
    for _ in 0..2 {
        is_refused(completed.complete().await);
        is_refused(aborted.complete().await);
    }
    is_refused(written.finish().await);
    aborts(&bare, aborted).await;
    redis.restart_on_same_port().await;
    completes(completed).await;
    assert!(is_there(&bare).await);
}

#[tokio::test]
async fn a_completion_can_be_dropped_while_it_waits_for_a_permit() {
    let redis = Redis::start().await;
    for is_aborted in [true, false] {
        let (bare, node, mut upload) = upload(&redis).await;
        bare.hold_changes(Some(Moment::Before));
        let other = blob_path(&digest(2));
        let puts = bare.changes();
        let put = {
            let node = node.clone();
            tokio::spawn(async move { node.put(&other, "content".into()).await })
        };
        eventually("the only permit is taken", || bare.changes() > puts).await;
        timeout(SOON, upload.complete()).await.unwrap_err();
        bare.hold_changes(None);
        put.await.unwrap().unwrap();
        match is_aborted {
            true => aborts(&bare, upload).await,
            false => upload.complete().await.map(drop).unwrap(),
        }
        assert_eq!(is_there(&bare).await, !is_aborted);
    }
}

#[tokio::test]
async fn a_completion_can_be_dropped_while_it_waits_for_redis() {
    for is_aborted in [true, false] {
        let redis = Redis::start().await;
        let (bare, _node, mut upload) = upload(&redis).await;
        redis.signal(Signal::Stop);
        timeout(SOON, upload.complete()).await.unwrap_err();
        assert!(!is_there(&bare).await);
        if is_aborted {
            upload.abort().await.unwrap();
        }
        redis.signal(Signal::Cont);
        match is_aborted {
            true => aborts(&bare, upload).await,
            false => completes(upload).await,
        }
        assert_eq!(is_there(&bare).await, !is_aborted);
    }
}

#[tokio::test]
async fn a_failed_completion_can_be_retried() {
    let redis = Redis::start().await;
    let (bare, node, mut completed) = upload(&redis).await;
    let mut aborted = of_one_part(&node).await;
    bare.fail(true);
    for upload in [&mut completed, &mut aborted] {
        let error = upload.complete().await.unwrap_err();
        assert!(error.to_string().contains("injected failure"), "{error}");
    }
    bare.fail(false);
    aborts(&bare, aborted).await;
    let first = completed.complete().await.unwrap();
    let calls = bare.calls();
    let second = completed.complete().await.unwrap();
    assert_eq!((first.e_tag, calls), (second.e_tag, bare.calls()), "once");
    completed.abort().await.unwrap();
    assert!(is_there(&bare).await);
}
