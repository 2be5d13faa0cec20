//! Tests warming during changes, on nodes that share a Redis.

use super::redis::{Shared, lists, warm_slowly};
use super::{blob, is_member, length, link};
use object_store::ObjectStoreExt;
use test_support::nodes::{digest, eventually, name};

/// Deletes a blob and a link while the list of this number has read and not returned: first on the
/// node that warms, then on another node.
async fn nothing_old_is_left(held: usize) {
    for by in 0..2 {
        let world = Shared::with(20, 20).await;
        let [warming, other] = &world.nodes;
        let warm = warm_slowly(warming, held).await;
        let deleter = if by == 0 { warming } else { other };
        deleter.delete(&blob(&digest(3))).await.unwrap();
        deleter.delete(&link(&name(), &digest(4))).await.unwrap();
        warming.get_ref().hold_lists(None);
        let warmed = warm.await.unwrap().unwrap();
        assert_eq!((warmed.seen, warmed.filled), (40, 38), "{warmed:?}");
        for node in &world.nodes {
            assert_eq!(length(node, 3).await, None, "list {held}, deleted by {by}");
            assert!(!is_member(node, 4).await, "list {held}, deleted by {by}");
        }
        let hash = format!("blobs::{}", digest(3));
        assert_eq!(world.redis.cli(&["EXISTS", &hash]).trim(), "0");
    }
}

#[tokio::test]
async fn an_object_deleted_between_the_lists_is_not_filled() {
    nothing_old_is_left(0).await;
}

#[tokio::test]
async fn an_object_deleted_after_the_second_list_is_not_filled() {
    nothing_old_is_left(1).await;
}

#[tokio::test]
async fn an_object_deleted_without_the_cache_between_the_lists_is_not_filled() {
    let world = Shared::with(20, 0).await;
    let [warming, _] = &world.nodes;
    let warm = warm_slowly(warming, 0).await;
    let bare = warming.get_ref().inner();
    bare.delete(&blob(&digest(3))).await.unwrap();
    warming.get_ref().hold_lists(None);
    let warmed = warm.await.unwrap().unwrap();
    assert_eq!((warmed.filled, warmed.refused), (19, 1), "{warmed:?}");
    let hash = format!("blobs::{}", digest(3));
    assert_eq!(world.redis.cli(&["EXISTS", &hash]).trim(), "0");
}

#[tokio::test]
async fn warming_skips_keys_leased_by_another_node() {
    let world = Shared::with(3, 0).await;
    let [warming, _] = &world.nodes;
    let lease = format!("lease::{{blobs::{}}}", digest(1));
    world.redis.cli(&["SET", &lease, "1", "PX", "60000"]);
    let warmed = warming.warm(None).await.unwrap();
    assert_eq!((warmed.filled, warmed.refused), (2, 1));
}

#[tokio::test]
async fn a_cancelled_warming_releases_its_leases() {
    let world = Shared::with(200, 10).await;
    let [warming, other] = &world.nodes;
    let warm = warm_slowly(warming, 1).await;
    let leases = || lists(&world.redis, "lease::*");
    assert_eq!(leases(), 210);
    warm.abort();
    eventually("no lease is left", || leases() == 0).await;
    assert_eq!(length(other, 7).await, Some(7));
}
