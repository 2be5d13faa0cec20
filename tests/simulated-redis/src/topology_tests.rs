//! Tests of servers of a cluster, and of Sentinels.

use super::*;
use crate::cluster::ClusterNode;
use crate::sentinel::Service;
use crate::setup::Flavor;
use std::collections::BTreeMap;

const NOW: Duration = Duration::from_secs(1_700_000_000);
/// The slots of `a` and of `b`.
const A: u16 = 15495;
const B: u16 = 3300;

fn node(id: &str, port: u16, slots: (u16, u16)) -> ClusterNode {
    ClusterNode {
        id: id.repeat(40),
        host: "10.0.0.1".to_owned(),
        port,
        slots: vec![slots],
        epoch: 1,
        primary: None,
        has_failed: false,
    }
}

fn view(me: &str) -> ClusterView {
    ClusterView {
        me: me.repeat(40),
        epoch: 7,
        is_ok: true,
        nodes: vec![node("1", 7001, (0, 8191)), node("2", 7002, (8192, 16383))],
        migrating: BTreeMap::new(),
        importing: BTreeMap::new(),
    }
}

fn server(view: ClusterView) -> Server {
    let mut server = Server::new(Setup::new(Flavor::Redis7, 1), NOW);
    server.set_cluster(view);
    server
}

fn ask(server: &mut Server, lines: &[&str]) -> String {
    let id = server.connect();
    for line in lines {
        server.receive(id, format!("{line}\r\n").as_bytes(), NOW);
    }
    let output = server.take_output(id);
    server.disconnect(id);
    String::from_utf8(output).unwrap()
}

#[test]
fn a_server_redirects_to_the_one_that_serves_the_slot() {
    let mut first = server(view("1"));
    assert_eq!(ask(&mut first, &["SET b v"]), "+OK\r\n");
    let moved = format!("-MOVED {A} 10.0.0.1:7002\r\n");
    assert_eq!(ask(&mut first, &["GET a"]), moved);
    let cross = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
    assert_eq!(ask(&mut first, &["DEL a b"]), cross);
    let mut down = view("1");
    down.is_ok = false;
    first.set_cluster(down);
    assert_eq!(
        ask(&mut first, &["GET b"]),
        "-CLUSTERDOWN The cluster is down\r\n"
    );
    let mut partial = view("1");
    partial.nodes.pop();
    first.set_cluster(partial);
    assert_eq!(
        ask(&mut first, &["GET a"]),
        "-CLUSTERDOWN Hash slot not served\r\n"
    );
}

#[test]
fn a_slot_moves_key_by_key() {
    let (mut from, mut to) = (view("1"), view("2"));
    from.migrating.insert(B, "2".repeat(40));
    to.importing.insert(B, "1".repeat(40));
    let (mut from, mut to) = (server(from), server(to));
    let nodes = ask(&mut from, &["CLUSTER NODES"]);
    assert!(
        nodes.contains(&format!("[{B}->-{}]", "2".repeat(40))),
        "{nodes}"
    );
    let ask_there = format!("-ASK {B} 10.0.0.1:7002\r\n");
    assert_eq!(ask(&mut from, &["GET b"]), ask_there);
    // The key is put there before the slot begins to move.
    from.set_cluster(view("1"));
    assert_eq!(ask(&mut from, &["SET b v"]), "+OK\r\n");
    let mut moving = view("1");
    moving.migrating.insert(B, "2".repeat(40));
    from.set_cluster(moving);
    assert_eq!(ask(&mut from, &["GET b"]), "$1\r\nv\r\n");
    assert!(ask(&mut from, &["EXISTS b {b}x"]).starts_with("-TRYAGAIN "));
    let moved = from.take_keys_of(B, 10);
    assert_eq!(moved.len(), 1);
    to.accept(moved);
    assert_eq!(ask(&mut from, &["GET b"]), ask_there);
    assert_eq!(
        ask(&mut to, &["GET b"]),
        format!("-MOVED {B} 10.0.0.1:7001\r\n")
    );
    assert_eq!(ask(&mut to, &["ASKING", "GET b"]), "+OK\r\n$1\r\nv\r\n");
    let many = ask(&mut to, &["ASKING", "EXISTS b {b}x"]);
    assert!(many.starts_with("+OK\r\n-TRYAGAIN "), "{many}");
}

#[test]
fn a_server_names_the_slots_of_all_servers() {
    let mut first = server(view("1"));
    let slots = ask(&mut first, &["CLUSTER SLOTS"]);
    assert!(
        slots.starts_with("*2\r\n*3\r\n:0\r\n:8191\r\n*4\r\n$8\r\n10.0.0.1\r\n:7001\r\n"),
        "{slots}"
    );
    let info = ask(&mut first, &["CLUSTER INFO"]);
    assert!(info.contains("cluster_current_epoch:7\r\n"), "{info}");
    assert!(info.contains("cluster_state:ok\r\n"), "{info}");
}

#[test]
fn the_other_servers_of_a_cluster_publish_a_message_too() {
    let (mut first, mut second) = (server(view("1")), server(view("2")));
    let id = second.connect();
    second.receive(id, b"SUBSCRIBE c\r\n", NOW);
    second.take_output(id);
    ask(&mut first, &["PUBLISH c hello"]);
    for (channel, message) in first.take_published() {
        second.publish(&channel, &message);
    }
    let message = second.take_output(id);
    assert_eq!(
        message,
        b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"
    );
}

#[test]
fn a_sentinel_names_the_primary() {
    let service = Service {
        host: "10.0.0.9".to_owned(),
        port: 6379,
        run_id: "a".repeat(40),
        epoch: 3,
        is_down: false,
        replicas: Vec::new(),
        sentinels: Vec::new(),
        quorum: 2,
    };
    let mut sentinel = Server::new(Setup::new(Flavor::Redis7, 1), NOW);
    let services = BTreeMap::from([("registry".to_owned(), service)]);
    sentinel.set_sentinel(SentinelView { services });
    let place = ask(
        &mut sentinel,
        &["SENTINEL GET-MASTER-ADDR-BY-NAME registry"],
    );
    assert_eq!(place, "*2\r\n$8\r\n10.0.0.9\r\n$4\r\n6379\r\n");
    let none = ask(&mut sentinel, &["SENTINEL GET-MASTER-ADDR-BY-NAME other"]);
    assert_eq!(none, "*-1\r\n");
    let unknown = ask(&mut sentinel, &["SENTINEL MASTER other"]);
    assert_eq!(unknown, "-ERR No such master with that name\r\n");
    let fields = ask(&mut sentinel, &["HELLO 3", "SENTINEL MASTER registry"]);
    assert!(
        fields.contains("$12\r\nconfig-epoch\r\n$1\r\n3\r\n"),
        "{fields}"
    );
    assert!(ask(&mut sentinel, &["GET a"]).starts_with("-ERR unknown command"));
    let info = ask(&mut sentinel, &["INFO server"]);
    assert!(info.contains("redis_mode:sentinel\r\n"), "{info}");
}
