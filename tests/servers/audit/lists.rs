//! Tests that the audit lists the links of a repository with many cached blobs instead of reading
//! them, if the list proves anything.

use super::{World, as_go, link_path, store_blob, store_link};
use layercache::Link;
use layercache::layout::{Layout, OciImages};
use layercache_cli::admin::Audit;
use object_store::ObjectStoreExt;
use test_support::minio::Minio;
use test_support::nodes::{LENGTH, SET, blob_path, config, digest, hash, name};
use test_support::recording::Recording;
use test_support::redis::Redis;

const MANY: u32 = 60;

fn cache(redis: &Redis) {
    let commands = (0..MANY).flat_map(|i| as_go(&name(), &digest(i), LENGTH));
    let commands: Vec<_> = commands.collect();
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    redis.cli_lines(&commands);
}

/// On S3 the entity tag of a link proves its content. The audit still finds a link that is gone, a
/// link with another digest, and a blob that is gone.
#[tokio::test]
async fn links_on_s3_are_listed() {
    let (redis, minio) = (Redis::start().await, Minio::shared().await);
    let store = Recording::new(minio.new_store().await);
    cache(&redis);
    for i in 0..MANY {
        store_blob(&store, &digest(i)).await;
        store_link(&store, &name(), &digest(i)).await;
    }
    let [unlinked, bent, gone] = [1, 2, 3].map(digest);
    let path = |digest| link_path(&Link::layer(name(), digest));
    store.delete(&path(unlinked)).await.unwrap();
    store
        .put(&path(bent), digest(4).to_string().into())
        .await
        .unwrap();
    store.delete(&blob_path(&gone)).await.unwrap();

    let audit = Audit::new(store.clone(), config(&redis)).unwrap();
    let output = World::run(audit).await.unwrap();
    let expected = [
        format!("broken-link {SET} {bent}"),
        format!("no-content {SET} {gone}"),
        format!("stale-membership {SET} {unlinked}"),
        format!("stale-meta {}", hash(&gone)),
    ];
    assert_eq!(output.names(), expected);
    assert_eq!((output.report.lists, store.lists()), (1, 1));
    // The audit asks for each blob, and for the wrong entries. It asks for none of the listed
    // links.
    let questions = output.report.questions;
    assert!((60..90).contains(&questions), "{questions} questions");
}

/// If entity tags prove nothing, the audit notices that once, and reads the links.
#[tokio::test]
async fn links_are_read_if_a_list_proves_nothing() {
    let world = World::new().await;
    for i in 0..MANY {
        world.cached(i).await;
    }
    let output = world.look().await;
    assert_eq!(output.names(), [""; 0]);
    assert_eq!(
        (output.report.ok, world.store.lists()),
        (u64::from(3 * MANY), 1)
    );
    assert!(output.report.questions >= u64::from(2 * MANY));
}

/// In this layout the object itself is the membership.
#[tokio::test]
async fn an_oci_image_layout_is_listed() {
    let world = World::new().await;
    let layout = OciImages::default();
    for i in 0..MANY {
        let path = layout.link_path(&Link::layer(name(), digest(i))).unwrap();
        if i != 7 {
            world.store.put(&path, "content".into()).await.unwrap();
        }
        world.redis.cli(&["SADD", SET, &digest(i).to_string()]);
    }
    let audit = world.audit().layout(OciImages::default());
    let output = World::run(audit).await.unwrap();
    assert_eq!(
        output.names(),
        [format!("stale-membership {SET} {}", digest(7))]
    );
    assert_eq!((output.report.lists, output.report.questions), (1, 2));
}
