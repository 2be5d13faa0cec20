//! Channels.

use super::{Call, lower};
use crate::core::Core;
use crate::glob;
use crate::reply::{Outcome, Reply, Resp};
use crate::setup::Flavor;

/// `SUBSCRIBE` and `PSUBSCRIBE`.
pub(super) fn subscribe(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let is_pattern = call.is(0, "psubscribe");
    for name in call.rest(1) {
        let client = core.client(call.client);
        let names = match is_pattern {
            true => &mut client.patterns,
            false => &mut client.channels,
        };
        names.insert(name.clone());
        core.subscribe(call.client, name, is_pattern);
        let client = core.client(call.client);
        let count = Reply::count(client.subscriptions());
        let words = [Reply::bulk(call.name()), Reply::bulk(name.clone()), count];
        client.send(&Reply::Push(words.into()));
    }
    Ok(Reply::Written)
}

/// `UNSUBSCRIBE` and `PUNSUBSCRIBE`.
pub(super) fn unsubscribe(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let is_pattern = call.is(0, "punsubscribe");
    let client = core.client(call.client);
    let names = match is_pattern {
        true => &client.patterns,
        false => &client.channels,
    };
    let names: Vec<Option<Vec<u8>>> = match call.rest(1) {
        [] if names.is_empty() => vec![None],
        [] => names.iter().cloned().map(Some).collect(),
        some => some.iter().cloned().map(Some).collect(),
    };
    for name in names {
        if let Some(name) = &name {
            core.unsubscribe(call.client, name, is_pattern);
        }
        let client = core.client(call.client);
        let count = Reply::count(client.subscriptions());
        let words = [Reply::bulk(call.name()), Reply::maybe(name), count];
        client.send(&Reply::Push(words.into()));
    }
    Ok(Reply::Written)
}

pub(super) fn publish(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let receivers = core.publish(call.word(1), call.word(2));
    // Replicas publish it as well, and so do the other servers of a cluster.
    call.changed = true;
    if core.cluster.is_some() && core.current.is_some() {
        let message = (call.word(1).to_vec(), call.word(2).to_vec());
        core.published.push(message);
    }
    Ok(Reply::count(receivers))
}

pub(super) fn pubsub(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    match (lower(call.word(1)).as_str(), call.words.len()) {
        ("channels", 2 | 3) => {
            let pattern = call.words.get(2);
            let all = core.channels.keys();
            let found = all.filter(|name| pattern.is_none_or(|text| glob::matches(text, name)));
            Ok(Reply::bulks(found.cloned()))
        }
        ("numsub", _) => {
            let names = call.rest(2).iter();
            let each = names.flat_map(|name| {
                let count = core.channels.get(name).map_or(0, |clients| clients.len());
                [Reply::bulk(name.clone()), Reply::count(count)]
            });
            Ok(Reply::Array(each.collect()))
        }
        ("numpat", 2) => Ok(Reply::count(core.patterns.len())),
        _ => Err(core.unknown_subcommand(call)),
    }
}

impl Core {
    fn subscribe(&mut self, client: u64, name: &[u8], is_pattern: bool) {
        let names = match is_pattern {
            true => &mut self.patterns,
            false => &mut self.channels,
        };
        names.entry(name.to_vec()).or_default().insert(client);
    }

    fn unsubscribe(&mut self, client: u64, name: &[u8], is_pattern: bool) {
        let there = self.client(client);
        match is_pattern {
            true => there.patterns.remove(name),
            false => there.channels.remove(name),
        };
        let names = match is_pattern {
            true => &mut self.patterns,
            false => &mut self.channels,
        };
        if let Some(clients) = names.get_mut(name) {
            clients.remove(&client);
            if clients.is_empty() {
                names.remove(name);
            }
        }
    }

    pub(crate) fn unsubscribe_all(&mut self, client: u64) {
        let there = self.client(client);
        let channels = std::mem::take(&mut there.channels);
        let patterns = std::mem::take(&mut there.patterns);
        for name in channels {
            self.unsubscribe(client, &name, false);
        }
        for name in patterns {
            self.unsubscribe(client, &name, true);
        }
    }

    /// Sends a message to all subscribers. Returns how many there are.
    pub(crate) fn publish(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let text = |text: &[u8]| Reply::bulk(text);
        let mut pushes = Vec::new();
        let push = Reply::Push(vec![text(b"message"), text(channel), text(message)]);
        let direct = self.channels.get(channel).into_iter().flatten();
        pushes.extend(direct.map(|client| (*client, push.clone())));
        for (pattern, clients) in &self.patterns {
            if glob::matches(pattern, channel) {
                let words = [
                    text(b"pmessage"),
                    text(pattern),
                    text(channel),
                    text(message),
                ];
                let push = Reply::Push(words.into());
                pushes.extend(clients.iter().map(|client| (*client, push.clone())));
            }
        }
        let (current, is_late) = (self.current, self.pushes_late());
        for (id, push) in &pushes {
            let client = self.client(*id);
            match is_late && current == Some(*id) && client.resp == Resp::Three {
                true => push.write(Resp::Three, &mut client.later),
                false => client.send(push),
            }
        }
        pushes.len()
    }

    /// Checks whether a client that publishes to itself gets the reply before the push.
    fn pushes_late(&self) -> bool {
        self.setup.flavor == Flavor::Valkey
    }
}
