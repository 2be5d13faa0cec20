//! Measures changes and other operations that are not reads.

use crate::lab::{Cost, Lab, cost, link_path};
use crate::support::nodes::{blob_path, digest, name};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use layercache::{Digest, RepositoryName};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// A change of the blob or link with this digest. The content and the link exist and are cached.
type Change = for<'a> fn(&'a Lab, Digest) -> BoxFuture<'a, ()>;

/// `cost(round trips waited for, round trips after the answer, calls of the backend)`.
#[rustfmt::skip]
const ROWS: &[(&str, Change, Cost)] = &[
    ("Repository::link", link, cost(3, 0, 1)),
    ("Repository::unlink", unlink, cost(3, 0, 1)),
    ("Repository::mount", mount, cost(4, 0, 3)),
    ("Repository::mount, refused", refused_mount, cost(1, 2, 2)),
    ("Blobs::delete", delete_blob, cost(3, 0, 1)),
    ("put of a blob", put_blob, cost(3, 0, 1)),
    ("put of a link", put_link, cost(3, 0, 1)),
    ("put elsewhere", put_other, cost(0, 0, 1)),
    ("copy to a blob", copy_blob, cost(3, 0, 1)),
    ("copy to a link", copy_link, cost(3, 0, 1)),
    ("copy elsewhere", copy_other, cost(0, 0, 1)),
    ("rename to a blob", rename_blob, cost(3, 0, 1)),
    ("rename of a link", rename_link, cost(3, 0, 1)),
    ("rename elsewhere", rename_other, cost(0, 0, 1)),
    ("delete of a blob", delete_content, cost(3, 0, 1)),
    ("delete of a link", delete_link, cost(3, 0, 1)),
    ("delete elsewhere", delete_other, cost(0, 0, 1)),
    ("delete of all three", delete_all, cost(3, 0, 2)),
    ("multipart upload of a blob", upload_blob, cost(3, 0, 3)),
    ("multipart upload of a link", upload_link, cost(3, 0, 3)),
    ("multipart upload elsewhere", upload_other, cost(0, 0, 3)),
    ("clear_memory", clear_memory, cost(0, 0, 0)),
];

const CONTENT: &str = "content";

fn other() -> Path {
    Path::from("elsewhere/object")
}

fn link(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    async move { lab.layers().link(&digest).await.unwrap() }.boxed()
}

fn unlink(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    async move { lab.layers().unlink(&digest).await.unwrap() }.boxed()
}

fn mount(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    let another: RepositoryName = "library/debian".parse().unwrap();
    let another = lab.node.registry().repository(another);
    async move { assert!(another.mount(&name(), &digest).await.unwrap().is_some()) }.boxed()
}

fn refused_mount(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    let another: RepositoryName = "library/debian".parse().unwrap();
    async move {
        let mounted = lab.layers().mount(&another, &digest).await;
        assert_eq!(mounted.unwrap(), None);
    }
    .boxed()
}

fn delete_blob(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    let blobs = lab.node.registry().blobs();
    async move { blobs.delete(&digest).await.unwrap() }.boxed()
}

fn put<'a>(lab: &'a Lab, at: Path, content: String) -> BoxFuture<'a, ()> {
    async move {
        lab.node.put(&at, content.into()).await.unwrap();
    }
    .boxed()
}

fn put_blob(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    put(lab, blob_path(&digest), CONTENT.to_owned())
}

fn put_link(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    put(lab, link_path(&digest), digest.to_string())
}

fn put_other(lab: &Lab, _: Digest) -> BoxFuture<'_, ()> {
    put(lab, other(), CONTENT.to_owned())
}

fn copy(lab: &Lab, from: Path, to: Path) -> BoxFuture<'_, ()> {
    async move { lab.node.copy(&from, &to).await.unwrap() }.boxed()
}

fn copy_blob(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    copy(lab, other(), blob_path(&digest))
}

fn copy_link(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    copy(lab, other(), link_path(&digest))
}

fn copy_other(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    copy(lab, blob_path(&digest), other())
}

fn rename(lab: &Lab, from: Path, to: Path) -> BoxFuture<'_, ()> {
    async move { lab.node.rename(&from, &to).await.unwrap() }.boxed()
}

fn rename_blob(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    rename(lab, other(), blob_path(&digest))
}

fn rename_link(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    rename(lab, link_path(&digest), other())
}

fn rename_other(lab: &Lab, _: Digest) -> BoxFuture<'_, ()> {
    rename(lab, other(), Path::from("elsewhere/again"))
}

fn delete(lab: &Lab, paths: Vec<Path>) -> BoxFuture<'_, ()> {
    let paths = stream::iter(paths).map(Ok).boxed();
    let deleted = lab.node.delete_stream(paths);
    deleted
        .for_each(async |result| drop(result.unwrap()))
        .boxed()
}

fn delete_content(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    delete(lab, vec![blob_path(&digest)])
}

fn delete_link(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    delete(lab, vec![link_path(&digest)])
}

fn delete_other(lab: &Lab, _: Digest) -> BoxFuture<'_, ()> {
    delete(lab, vec![other()])
}

fn delete_all(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    delete(lab, vec![blob_path(&digest), link_path(&digest), other()])
}

fn upload(lab: &Lab, to: Path) -> BoxFuture<'_, ()> {
    async move {
        let mut upload = lab.node.put_multipart(&to).await.unwrap();
        upload.put_part(CONTENT.into()).await.unwrap();
        upload.complete().await.unwrap();
    }
    .boxed()
}

fn upload_blob(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    upload(lab, blob_path(&digest))
}

fn upload_link(lab: &Lab, digest: Digest) -> BoxFuture<'_, ()> {
    upload(lab, link_path(&digest))
}

fn upload_other(lab: &Lab, _: Digest) -> BoxFuture<'_, ()> {
    upload(lab, other())
}

fn clear_memory(lab: &Lab, _: Digest) -> BoxFuture<'_, ()> {
    async move { lab.node.clear_memory() }.boxed()
}

#[tokio::test]
async fn a_change_costs_what_is_said() {
    for lab in [Lab::alone(), Lab::with_redis().await] {
        for (i, (what, change, expected)) in (0..).zip(ROWS) {
            let digest = digest(i);
            lab.put_known(&digest).await;
            lab.bare
                .inner()
                .put(&other(), CONTENT.into())
                .await
                .unwrap();
            let expected = match lab.has_redis() {
                true => *expected,
                false => expected.alone(),
            };
            let ((), measured) = lab.measure(change(&lab, digest)).await;
            measured.assert(expected, what);
        }
    }
}

/// Each step handles up to a thousand keys: memberships, metadata, and leases, of which there are
/// none.
#[tokio::test]
async fn a_purge_and_a_leave_cost_what_is_said() {
    let lab = Lab::with_redis().await;
    lab.put_known(&digest(1)).await;
    let (purged, measured) = lab.measure(lab.node.purge()).await;
    purged.unwrap();
    measured.assert(cost(4, 0, 0), "purge");
    let (purged, measured) = lab.measure(lab.node.purge()).await;
    purged.unwrap();
    measured.assert(cost(3, 0, 0), "purge of nothing");
    let ((), measured) = lab.measure(lab.node.shutdown()).await;
    measured.assert(cost(1, 0, 0), "leave");
}
