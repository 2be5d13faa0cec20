//! Is an item that the audit has seen still there?

use super::{Item, NONE, StoredHash, hash_key, on, unexpected};
use layercache::internals::{AdminClient, Broken, FIELDS, Key};
use layercache::{Error, LinkKind};
use redis::{Cmd, Value};

/// How an item that the audit has seen is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    /// It is as it was.
    Same,
    /// It is gone, or different.
    Changed,
    /// A change of it is under way.
    Fenced,
}

/// Reads what Redis holds about these blobs.
pub(crate) async fn metas(client: &AdminClient, of: &[Key]) -> Result<Vec<StoredHash>, Error> {
    let commands = of.iter().map(|key| fields_command(client, key));
    let replies = client.run("look-up", commands.collect()).await?;
    let held = of.iter().zip(replies);
    Ok(held
        .map(|(key, reply)| held_by(client, key, reply))
        .collect())
}

fn fields_command(client: &AdminClient, key: &Key) -> Cmd {
    on("HMGET", hash_key(client, key), &FIELDS)
}

fn held_by(client: &AdminClient, of: &Key, reply: Option<Value>) -> StoredHash {
    let values = match reply {
        Some(Value::Array(values)) => values,
        Some(_) => return StoredHash::Broken,
        None => return StoredHash::OtherType,
    };
    match client.read_as_stored(of, values) {
        Ok(Some(stored)) => StoredHash::Meta(stored),
        Ok(None) => StoredHash::Nothing,
        Err(Broken) => StoredHash::Broken,
    }
}

/// Returns how these items are now. Costs a round trip for each few hundred.
pub(crate) async fn review(client: &AdminClient, items: &[Item]) -> Result<Vec<Now>, Error> {
    let questions = items.iter().flat_map(|item| questions(client, item));
    let replies = client.run("look-up", questions.collect()).await?;
    let mut replies = replies.into_iter();
    let mut next = || replies.next().ok_or_else(|| unexpected("look-up"));
    let mut nows = Vec::with_capacity(items.len());
    for item in items {
        nows.push(now(client, item, next()?, next()?));
    }
    Ok(nows)
}

/// Returns the two commands that ask how an item is now.
fn questions(client: &AdminClient, item: &Item) -> [Cmd; 2] {
    let key = item.key(client);
    let fence = |fact: &Key| {
        let [_, _, fence] = client.keys_of(fact);
        on("EXISTS", fence, NONE)
    };
    match item {
        Item::Member(link) => [
            on("SISMEMBER", key, &[link.digest.to_string()]),
            fence(&Key::Link(link.clone())),
        ],
        Item::Meta(of, _) => [fields_command(client, of), fence(of)],
        Item::MediaType(repository, digest) => {
            let set = client.set_key(LinkKind::Layer, repository);
            [
                on("EXISTS", key, NONE),
                on("SISMEMBER", set, &[digest.to_string()]),
            ]
        }
        Item::OddMember(_, _, member) => [
            on("SISMEMBER", &key, &[member.as_slice()]),
            on("EXISTS", &key, NONE),
        ],
        Item::OddType(key, _) | Item::Forever(key) | Item::Junk(key) => {
            [on("TYPE", key, NONE), on("PTTL", key, NONE)]
        }
    }
}

fn now(client: &AdminClient, item: &Item, first: Option<Value>, second: Option<Value>) -> Now {
    let is = |reply: &Option<Value>, number| *reply == Some(Value::Int(number));
    let same = |is_same: bool| if is_same { Now::Same } else { Now::Changed };
    let fact = |is_same: bool| match is_same {
        true if is(&second, 1) => Now::Fenced,
        is_same => same(is_same),
    };
    let kind = match &first {
        Some(Value::SimpleString(kind)) => kind.as_str(),
        _ => "none",
    };
    match item {
        Item::Member(_) => fact(is(&first, 1)),
        Item::Meta(of, was) => fact(held_by(client, of, first) == *was),
        Item::MediaType(..) => same(is(&first, 1) && !is(&second, 1)),
        Item::OddMember(..) => same(is(&first, 1)),
        Item::OddType(_, expected) => same(kind != "none" && kind != *expected),
        Item::Forever(_) => same(is(&second, -1)),
        Item::Junk(_) => same(kind != "none"),
    }
}
