//! Tests: how fills and leases are counted.

use super::*;
use crate::cache::shared::SharedTier;
use crate::coherence::lease::Token;
use crate::telemetry::metrics::metered;
use tokio::task::JoinHandle;

fn fills(get: &impl Fn(&str) -> u64) -> [u64; 4] {
    ["stored", "fenced", "late", "unleased"]
        .map(|result| get(&format!("layercache_fills_total{{result=\"{result}\"}}")))
}

/// Makes a world with a load that has read the backend and not yet filled the tiers.
async fn loading(with_shared: bool) -> (World, impl Fn(&str) -> u64, JoinHandle<Option<u64>>) {
    let (world, get) = metered(move || world(with_shared));
    world.backend.put(&world.link, 7);
    world.backend.read.hold();
    let load = world.stat_task();
    world.backend.read.arrival().await;
    (world, get, load)
}

#[tokio::test]
async fn a_fill_of_what_was_changed_meanwhile_is_fenced() {
    for with_shared in [false, true] {
        let (world, get, load) = loading(with_shared).await;
        let keys = [Key::Link(world.link.clone()), Key::Meta(world.link.digest)];
        let call = async { ((), crate::coherence::change::Outcome::Over) };
        let changed = world.core.change(ChangeKind::Removal, keys.into(), call);
        changed.await.unwrap();
        world.backend.read.release();
        assert_eq!(load.await.unwrap(), Some(7));
        world.finished().await;
        assert_eq!(fills(&get), [0, 1, 0, 0]);
        let lost = if with_shared { 2 } else { 0 };
        assert_eq!(get("layercache_leases_lost_total"), lost);
    }
}

#[tokio::test]
async fn a_fill_whose_lease_is_gone_is_late() {
    let (world, get, load) = loading(true).await;
    world.shared.purge().await.unwrap();
    world.backend.read.release();
    assert_eq!(load.await.unwrap(), Some(7));
    world.finished().await;
    assert_eq!(fills(&get), [0, 0, 1, 0]);
    assert_eq!(get("layercache_leases_lost_total"), 2);
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_for_another_node_in_vain_fills_nothing() {
    let (world, get) = metered(|| world(true));
    world.backend.put(&world.link, 7);
    let keys = [Key::Link(world.link.clone()), Key::Meta(world.link.digest)];
    let other = Token::random();
    world
        .shared
        .grant(&keys, other, false, later())
        .await
        .unwrap();
    assert_eq!(world.stat().await, (Some(7), CacheStatus::Miss));
    world.finished().await;
    assert_eq!(fills(&get), [0, 0, 0, 1]);
    let leases = |result| get(&format!("layercache_leases_total{{result=\"{result}\"}}"));
    assert_eq!(leases("wait"), 2 * 7, "it has asked again and again");
    assert_eq!(leases("granted"), 0);
    assert_eq!(get("layercache_coalesced_total{scope=\"cluster\"}"), 0);

    let load = world.stat_task();
    tokio::time::sleep(Duration::from_millis(30)).await;
    let meta = LayerMeta::new("a/data", 7).unwrap();
    world.shared.add(Facts::two(
        Fact::member(world.link.clone()),
        Fact::meta(world.link.digest, meta),
    ));
    assert_eq!(load.await.unwrap(), Some(7));
    assert_eq!(get("layercache_coalesced_total{scope=\"cluster\"}"), 1);
}
