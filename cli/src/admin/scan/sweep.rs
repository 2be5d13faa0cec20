//! How are items removed from Redis?

use super::{Item, unexpected};
use layercache::internals::{AdminClient, Key};
use layercache::{Error, LinkKind};
use redis::{Cmd, cmd};
use std::time::Duration;

/// Removes a key, or a member of a set, if it still is as the audit has seen it. As this is a
/// script, no change comes in between.
const SWEEP: &str = "
local what = ARGV[1]
if what == 'member' then return redis.pcall('SREM', KEYS[1], ARGV[2]) end
if what == 'type' and redis.call('TYPE', KEYS[1]).ok == ARGV[2] then return 0 end
if what == 'forever' and redis.call('PTTL', KEYS[1]) ~= -1 then return 0 end
return redis.call('DEL', KEYS[1])
";

/// Removes these items, and tells all nodes to forget them. Returns how long a node that has missed
/// the message may still answer from its memory.
///
/// Facts are removed with the delete protocol, so that no node fills them with what it read before.
/// The media type that a Go registry notes beside a layer's membership is removed with it.
pub(crate) async fn sweep(client: &AdminClient, items: &[Item]) -> Result<Duration, Error> {
    let facts: Vec<Key> = items.iter().filter_map(Item::fact).collect();
    client.invalidate(&facts).await?;
    let sweeps = items.iter().filter_map(|item| command(client, item));
    let replies = client.run("sweep", sweeps.collect()).await?;
    if replies.contains(&None) {
        return Err(unexpected("sweep"));
    }
    client.announce(&facts).await
}

fn command(client: &AdminClient, item: &Item) -> Option<Cmd> {
    let (key, what, with): (Vec<u8>, _, &[u8]) = match item {
        Item::Member(link) if link.kind == LinkKind::Layer => {
            let media_type = client.media_type_key(&link.repository, &link.digest);
            (media_type.into(), "key", b"")
        }
        Item::Member(_) | Item::Meta(..) => return None,
        Item::MediaType(..) => (item.key(client).into(), "key", b""),
        Item::OddMember(_, _, member) => (item.key(client).into(), "member", member),
        Item::OddType(key, expected) => (key.clone(), "type", expected.as_bytes()),
        Item::Forever(key) => (key.clone(), "forever", b""),
        Item::Junk(key) => (key.clone(), "key", b""),
    };
    let mut command = cmd("EVAL");
    command.arg(SWEEP).arg(1).arg(key).arg(what).arg(with);
    Some(command)
}
