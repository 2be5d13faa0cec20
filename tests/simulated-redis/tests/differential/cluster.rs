//! Two real servers of a cluster. One slot moves from the first to the second.

use crate::wire::{Connection, Item, Real};
use crate::world::{World, words};
use simulated_redis::{ClusterNode, ClusterView, Flavor, slot_of};
use std::collections::BTreeMap;
use std::time::Duration;
use test_support::redis::{Redis, Setup, Version};

/// The slots of the first server end here. The second one has the others.
const MIDDLE: u16 = 8191;
/// Keys with this tag are in the slot that moves.
pub(crate) const MOVING: &str = "{3}";

pub(crate) async fn start(version: Version, flavor: Flavor) -> (Vec<Redis>, World) {
    let setup = Setup {
        is_clustered: true,
        ..Setup::new(version, &[])
    };
    let servers = vec![
        Redis::start_as(setup.clone()).await,
        Redis::start_as(setup).await,
    ];
    let ranges = [(0, MIDDLE), (MIDDLE + 1, 16383)];
    let mut nodes = Vec::new();
    for (server, (first, last)) in servers.iter().zip(ranges) {
        let mut connection = Real::open(&server.address());
        let slots: Vec<_> = (first..=last).map(|slot: u16| slot.to_string()).collect();
        connection.ask(&words(&format!("CLUSTER ADDSLOTS {}", slots.join(" "))));
        nodes.push(ClusterNode {
            id: text(&connection.ask(&words("CLUSTER MYID"))),
            host: "127.0.0.1".to_owned(),
            port: server.port(),
            slots: vec![(first, last)],
            epoch: 0,
            primary: None,
            has_failed: false,
        });
    }
    let mut connections: Vec<_> = servers
        .iter()
        .map(|one| Real::open(&one.address()))
        .collect();
    let meet = format!("CLUSTER MEET 127.0.0.1 {}", servers[1].port());
    connections[0].ask(&words(&meet));
    for connection in &mut connections {
        while !text(&connection.ask(&words("CLUSTER INFO"))).contains("cluster_state:ok") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (slot, [from, to]) = (slot_of(MOVING.as_bytes()), [0, 1].map(|at| &nodes[at].id));
    let setslot = |what: &str, id: &str| words(&format!("CLUSTER SETSLOT {slot} {what} {id}"));
    connections[1].ask(&setslot("IMPORTING", from));
    connections[0].ask(&setslot("MIGRATING", to));
    let view = |me: &ClusterNode| ClusterView {
        me: me.id.clone(),
        epoch: 0,
        is_ok: true,
        nodes: nodes.clone(),
        migrating: BTreeMap::new(),
        importing: BTreeMap::new(),
    };
    let mut views: Vec<_> = nodes.iter().map(view).collect();
    views[0].migrating.insert(slot, to.clone());
    views[1].importing.insert(slot, from.clone());
    let addresses = servers.iter().map(Redis::address).collect();
    let world = World {
        flavor,
        addresses,
        views,
    };
    (servers, world)
}

fn text(items: &[Item]) -> String {
    match items {
        [Item::Text(_, text)] => String::from_utf8_lossy(text).into_owned(),
        other => panic!("not a text: {other:?}"),
    }
}
