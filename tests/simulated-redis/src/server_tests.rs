//! Tests of a server by itself. `tests/differential/` compares it with real servers.

use super::*;
use crate::setup::Flavor;

const NOW: Duration = Duration::from_secs(1_700_000_000);

fn server() -> Server {
    Server::new(Setup::new(Flavor::Redis7, 1), NOW)
}

/// Sends a line on a new connection, and returns the answer.
fn ask_at(server: &mut Server, line: &str, now: Duration) -> String {
    let id = server.connect();
    server.receive(id, format!("{line}\r\n").as_bytes(), now);
    let output = server.take_output(id);
    server.disconnect(id);
    String::from_utf8(output).unwrap()
}

fn ask(server: &mut Server, line: &str) -> String {
    ask_at(server, line, NOW)
}

fn eval(server: &mut Server, script: &str) -> String {
    let id = server.connect();
    let request = format!(
        "*4\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n$1\r\n1\r\n$1\r\nk\r\n",
        script.len()
    );
    server.receive(id, request.as_bytes(), NOW);
    String::from_utf8(server.take_output(id)).unwrap()
}

#[test]
fn a_key_lives_until_its_time_is_over() {
    let mut server = server();
    assert_eq!(ask(&mut server, "SET k v PX 10"), "+OK\r\n");
    let then = NOW + Duration::from_millis(10);
    assert_eq!(ask_at(&mut server, "GET k", then), "$1\r\nv\r\n");
    let then = NOW + Duration::from_millis(11);
    assert_eq!(ask_at(&mut server, "GET k", then), "$-1\r\n");
}

#[test]
fn a_script_leaves_nothing_for_the_next_one() {
    let mut server = server();
    let set = "redis.call('SET', KEYS[1], 'v') return redis.call('GET', KEYS[1])";
    assert_eq!(eval(&mut server, set), "$1\r\nv\r\n");
    assert!(eval(&mut server, "x = 1").starts_with("-ERR user_script:1: "));
    let other = "return rawget(redis, 'x') == nil and 1 or 0";
    assert_eq!(eval(&mut server, other), ":1\r\n");
}

#[test]
fn a_message_reaches_the_subscribers() {
    let mut server = server();
    let id = server.connect();
    server.receive(id, b"HELLO 3\r\nSUBSCRIBE c\r\n", NOW);
    server.take_output(id);
    assert_eq!(ask(&mut server, "PUBLISH c hello"), ":1\r\n");
    assert_eq!(server.with_output(), [id]);
    let expected = ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n";
    assert_eq!(server.take_output(id), expected.as_bytes());
    server.disconnect(id);
    assert_eq!(ask(&mut server, "PUBLISH c hello"), ":0\r\n");
}

#[test]
fn a_full_server_refuses_or_evicts() {
    let mut server = server();
    for key in 0..10 {
        ask(&mut server, &format!("SET {key} v"));
    }
    let full = server.used_memory() as u64 - 1;
    server.limit_memory(full, Policy::NoEviction);
    assert!(ask(&mut server, "SET k v").starts_with("-OOM "));
    assert_eq!(ask(&mut server, "DBSIZE"), ":10\r\n");
    server.limit_memory(full, Policy::AllKeys);
    assert_eq!(ask(&mut server, "SET k v"), "+OK\r\n");
    assert_eq!(server.keys(0).len(), 10);
}

#[test]
fn a_replica_repeats_the_effects_and_refuses_writes_until_it_is_promoted() {
    let (mut primary, mut replica) = (server(), server());
    ask(&mut primary, "SET before v");
    replica.replicate_from(&mut primary, NOW);
    ask(&mut primary, "SADD set a b");
    eval(
        &mut primary,
        "redis.call('SET', KEYS[1], 'v', 'PX', 10) redis.call('DEL', 'before')",
    );
    assert_eq!(ask(&mut replica, "SCARD set"), ":0\r\n");
    let later = NOW + Duration::from_millis(5);
    replica.apply_effects(&primary.take_effects(), later);
    assert_eq!(ask_at(&mut replica, "SCARD set", later), ":2\r\n");
    assert_eq!(ask_at(&mut replica, "EXISTS before", later), ":0\r\n");
    // The key has the time that it has on the primary.
    assert_eq!(ask_at(&mut replica, "PTTL k", later), ":5\r\n");
    assert!(ask_at(&mut replica, "SET k v", later).starts_with("-READONLY "));
    let (_, old) = replica.identity();
    assert_eq!(old, primary.identity().1);
    replica.promote(later);
    assert_ne!(replica.identity().1, old);
    assert_eq!(ask_at(&mut replica, "SET k v", later), "+OK\r\n");
}

#[test]
fn a_restart_brings_the_data_of_the_dump_back() {
    let mut server = server();
    ask(&mut server, "SET k old");
    let dump = server.snapshot();
    ask(&mut server, "SET k new");
    let before = server.identity();
    let id = server.connect();
    server.restart(Some(&dump), NOW);
    assert!(server.is_closing(id));
    assert_ne!(server.identity().0, before.0);
    assert_ne!(server.identity().1, before.1);
    assert_eq!(ask(&mut server, "GET k"), "$3\r\nold\r\n");
    server.restart(None, NOW);
    assert_eq!(ask(&mut server, "DBSIZE"), ":0\r\n");
}

#[test]
fn a_server_can_move_to_another_thread() {
    fn assert_send<T: Send>(_: &T) {}
    assert_send(&server());
}

#[test]
fn a_server_with_a_password_and_one_that_loads_refuse_commands() {
    let setup = Setup {
        password: Some("secret".to_owned()),
        ..Setup::new(Flavor::Redis7, 1)
    };
    let mut server = Server::new(setup, NOW);
    assert_eq!(
        ask(&mut server, "GET k"),
        "-NOAUTH Authentication required.\r\n"
    );
    assert!(ask(&mut server, "HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(ask(&mut server, "AUTH wrong").starts_with("-WRONGPASS "));
    assert_eq!(ask(&mut server, "AUTH default secret"), "+OK\r\n");
    assert!(ask(&mut server, "HELLO 3 AUTH default secret").starts_with("%7\r\n"));
    let mut server = self::server();
    server.set_loading(true);
    let loading = "-LOADING Redis is loading the dataset in memory\r\n";
    assert_eq!(ask(&mut server, "GET k"), loading);
    assert!(ask(&mut server, "INFO server").contains("run_id:"));
}

#[test]
fn the_same_calls_give_the_same_output() {
    let run = || {
        let mut server = server();
        let id = server.connect();
        let full = server.used_memory() as u64 + 1000;
        server.limit_memory(full, Policy::AllKeys);
        for key in 0..100 {
            server.receive(id, format!("SET {key} v\r\nSCAN 0\r\n").as_bytes(), NOW);
        }
        server.receive(id, b"KEYS *\r\nINFO\r\n", NOW);
        server.take_output(id)
    };
    assert_eq!(run(), run());
}
