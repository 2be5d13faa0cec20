//! Measures changes and other operations that are not reads.

use crate::guide::Figures;
use crate::lab::{Lab, Measured};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use layercache::{Digest, RepositoryName};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use test_support::nodes::{blob_path, digest, link_path, name};

/// A change of the blob or link with this digest. The content and the link exist and are cached.
type Change = for<'a> fn(&'a Lab, Digest) -> BoxFuture<'a, ()>;

const ROWS: &[(&str, Change)] = &[
    ("`Repository::link`", link),
    ("`Repository::unlink`", unlink),
    ("`Repository::mount`", mount),
    ("`Repository::mount`, refused", refused_mount),
    ("`Blobs::delete`", delete_blob),
    ("put of a blob", put_blob),
    ("put of a link", put_link),
    ("put elsewhere", put_other),
    ("copy to a blob", copy_blob),
    ("copy to a link", copy_link),
    ("copy elsewhere", copy_other),
    ("rename to a blob", rename_blob),
    ("rename of a link", rename_link),
    ("rename elsewhere", rename_other),
    ("delete of a blob", delete_content),
    ("delete of a link", delete_link),
    ("delete elsewhere", delete_other),
    ("delete of all three", delete_all),
    ("multipart upload of a blob", upload_blob),
    ("multipart upload of a link", upload_link),
    ("multipart upload elsewhere", upload_other),
    ("`clear_memory`", clear_memory),
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

/// Measures each change on one node.
async fn costs(lab: &Lab) -> Vec<Measured> {
    let mut costs = Vec::new();
    for (i, (_, change)) in (0..).zip(ROWS) {
        let digest = digest(i);
        lab.put_known(&digest).await;
        let store = lab.bare.inner();
        store.put(&other(), CONTENT.into()).await.unwrap();
        let ((), measured) = lab.measure(change(lab, digest)).await;
        costs.push(measured);
    }
    costs
}

pub(crate) async fn measure() -> Figures {
    let lab = Lab::with_redis().await;
    let (with_redis, alone) = (costs(&lab).await, costs(&Lab::alone()).await);
    let mut figures = Figures::of("Changes");
    for (((row, _), measured), alone) in ROWS.iter().zip(&with_redis).zip(&alone) {
        figures.add(row, "cost", measured);
        alone.assert(measured.cost.alone(), format!("{row}, without Redis"));
    }
    let ((), measured) = lab.measure(lab.node.shutdown()).await;
    figures.add("`shutdown`", "cost", &measured);
    figures
}
