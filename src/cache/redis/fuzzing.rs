//! Entry points for `fuzz/`: what reads foreign bytes and is not public.
#![allow(missing_docs, clippy::missing_panics_doc, clippy::unwrap_used)]

use crate::cache::redis::node::announce::read_peer_set;
use crate::cache::redis::tier::fields::{self, StoredPath};
use crate::coherence::Coherence;
use crate::coherence::action::Action;
use crate::coherence::message::Message;
use crate::coherence::peers::PeerTracker;
use crate::coherence::peers::term::{MOST_TRUST, Term};
use crate::types::netstring::{is_line, is_pairs};
use crate::types::{Digest, LayerMeta};
use ::redis::Value;
use object_store::ObjectMeta;
use object_store::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::Instant;

const PATH: &str = "a/data";

/// Takes a value from the front: none, a number, or as many bytes as the first byte says.
fn value(bytes: &mut &[u8]) -> Value {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Value::Nil;
    };
    *bytes = rest;
    let length = match kind {
        0 => return Value::Nil,
        255 => return Value::Int(rest.len() as i64),
        // Longer than any text that is accepted.
        254 => return Value::BulkString(vec![b'7'; 5000]),
        length => usize::from(length - 1).min(rest.len()),
    };
    let (taken, rest) = rest.split_at(length);
    *bytes = rest;
    Value::BulkString(taken.to_vec())
}

/// Checks that a hash that is accepted could have been written, and is read as equal again.
pub fn fields(mut bytes: &[u8]) {
    let Some((&mode, rest)) = bytes.split_first() else {
        return;
    };
    bytes = rest;
    let digest = match mode & 4 {
        0 => Digest::Sha256([7; 32]),
        _ => "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            .parse()
            .unwrap(),
    };
    let path = || match mode & 3 {
        0 => StoredPath::Any,
        1 | 2 => StoredPath::Only(PATH.into()),
        _ => StoredPath::None,
    };
    let values: Vec<_> = fields::READ.iter().map(|_| value(&mut bytes)).collect();
    let Ok(Some(meta)) = fields::read(&digest, path(), &values) else {
        return;
    };
    assert_ne!(path(), StoredPath::None);
    assert!(path() == StoredPath::Any || meta.path() == PATH);
    assert!(path() == StoredPath::Any || meta.attributes().is_none_or(is_pairs));
    assert_eq!(meta.length() == 0, mode & 4 != 0);
    assert!(
        [meta.e_tag(), meta.version()]
            .into_iter()
            .flatten()
            .all(is_line)
    );
    if let Some(time) = meta.last_modified() {
        assert!(time < UNIX_EPOCH + Duration::from_secs(253_402_300_800));
        let _ = ObjectMeta {
            location: Path::default(),
            last_modified: time.into(),
            size: meta.length(),
            e_tag: None,
            version: None,
        };
    }
    assert_eq!(
        fields::read(&digest, path(), &written(&meta)),
        Ok(Some(meta))
    );
}

fn written(meta: &LayerMeta) -> Vec<Value> {
    let (present, _) = fields::write(meta, true);
    let value = |name: &&str| {
        let field = present.iter().find(|(present, _)| present == name);
        field.map_or(Value::Nil, |(_, text)| {
            Value::BulkString(text.clone().into())
        })
    };
    fields::READ.iter().map(value).collect()
}

const TERM: Term = Term {
    trust: Duration::from_secs(2),
    margin: Duration::from_millis(100),
};

/// A node that has sent one heartbeat, in session 7, at the beginning of its life.
static NODE: LazyLock<(Instant, Mutex<PeerTracker>, Coherence)> = LazyLock::new(|| {
    let epoch = Instant::now();
    let mut peers = PeerTracker::new(1, TERM, epoch);
    peers.connect(7, epoch);
    peers.heartbeat(7, epoch);
    peers.noted(7, (5, 0), epoch);
    (epoch, Mutex::new(peers), Coherence::among_others())
});

/// Checks that a message that can be read is written as the same bytes again, and that no message
/// gives more trust than a heartbeat has earned.
pub fn message(bytes: &[u8]) {
    let (epoch, peers, coherence) = &*NODE;
    let read = Message::read(bytes);
    if let Some(message) = &read {
        assert_eq!(message.write(), bytes);
    }
    let is_read = read.is_some();
    let peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
    let action = peers.on_message(7, read);
    assert!(is_read || matches!(action, Action::Flush { ack: None, .. }));
    let ack = coherence.apply(&action, TERM.trust);
    assert!(
        ack.is_none_or(|ack| ack.to != 1),
        "a node acknowledges nothing to itself"
    );
    assert!(!coherence.trust.holds(*epoch + TERM.trust));
}

/// Checks that a change never waits longer than the longest trust allows, however the set of nodes
/// reads. A change may wait for no node only if the whole set was understood.
pub fn peer_set(bytes: &[u8]) {
    let (epoch, peers, _) = &*NODE;
    let mut parts = bytes
        .split(|byte| *byte == b'\n')
        .map(|part| Value::BulkString(part.to_vec()));
    let (name, time) = (parts.next().unwrap_or(Value::Nil), parts.next());
    let time = match time {
        Some(Value::BulkString(text)) => std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.parse().ok()),
        _ => None,
    };
    let nodes = parts.collect();
    let reply = Value::Array(vec![
        name,
        time.map_or(Value::Nil, Value::Int),
        Value::Array(nodes),
    ]);
    let Some(set) = read_peer_set(&reply) else {
        return;
    };
    let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let published = *epoch + Duration::from_secs(3600);
    let awaited = peers.awaited(&set, published, published);
    assert!(awaited.end() >= published);
    assert!(awaited.end() <= published + MOST_TRUST + MOST_TRUST / 20);
    if awaited.is_over(published) {
        assert!(set.epoch == 5 && set.nodes.iter().any(|peer| peer.node == 1));
        assert!(set.nodes.iter().all(|peer| peer.trust <= MOST_TRUST));
    }
}
