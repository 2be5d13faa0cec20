//! Commands of a cluster.

use super::{Call, lower};
use crate::cluster::{ClusterNode, ClusterView, slot_of};
use crate::core::Core;
use crate::reply::{Outcome, Refusal, Reply};
use crate::setup::Flavor;
use std::fmt::Write;

/// How far the port of the servers among themselves is from the port of clients.
const BUS: u16 = 10_000;

pub(super) fn asking(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    if core.cluster.is_none() {
        return Err(disabled());
    }
    core.client(call.client).is_asking = true;
    Ok(Reply::ok())
}

/// `READONLY` and `READWRITE`.
pub(super) fn readonly(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    if core.cluster.is_none() {
        return Err(disabled());
    }
    core.client(call.client).reads_replica = call.is(0, "readonly");
    Ok(Reply::ok())
}

fn disabled() -> Refusal {
    Refusal::new("ERR This instance has cluster support disabled")
}

pub(super) fn cluster(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let view = core.cluster.as_ref().ok_or_else(disabled)?;
    let flavor = core.setup.flavor;
    match (lower(call.word(1)).as_str(), call.words.len()) {
        ("info", 2) => Ok(Reply::Verbatim(info(view))),
        ("slots", 2) => Ok(slots(view, flavor)),
        ("shards", 2) if flavor != Flavor::Redis6_2 => Ok(shards(view)),
        ("nodes", 2) => Ok(Reply::Verbatim(nodes(view))),
        ("myid", 2) => Ok(Reply::bulk(view.me.as_str())),
        ("keyslot", 3) => Ok(Reply::Int(slot_of(call.word(2)).into())),
        ("countkeysinslot", 3) => {
            let slot = slot(call)?;
            let all = core.databases.iter().flat_map(|keys| keys.iter());
            let there = all.filter(|(key, _)| slot_of(key) == slot);
            Ok(Reply::count(there.count()))
        }
        ("getkeysinslot", 4) => {
            let slot = slot(call)?;
            let most = usize::try_from(call.integer(3)?);
            let most = most.map_err(|_| Refusal::new("ERR Invalid number of keys"))?;
            let all = core.databases.iter().flat_map(|keys| keys.iter());
            let there = all.map(|(key, _)| key).filter(|key| slot_of(key) == slot);
            Ok(Reply::bulks(there.take(most)))
        }
        _ => Err(core.unknown_subcommand(call)),
    }
}

fn slot(call: &Call<'_>) -> Result<u16, Refusal> {
    let slot = u16::try_from(call.integer(2)?).ok();
    let slot = slot.filter(|slot| *slot < 16384);
    slot.ok_or_else(|| Refusal::new("ERR Invalid or out of range slot"))
}

fn info(view: &ClusterView) -> String {
    let state = if view.is_ok { "ok" } else { "fail" };
    let primaries = view.nodes.iter().filter(|node| !node.slots.is_empty());
    let mine = view.myself().map_or(0, |node| node.epoch);
    let served = view.served();
    [
        ("cluster_state", state.to_owned()),
        ("cluster_slots_assigned", served.to_string()),
        ("cluster_slots_ok", served.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", "0".to_owned()),
        ("cluster_known_nodes", view.nodes.len().to_string()),
        ("cluster_size", primaries.count().to_string()),
        ("cluster_current_epoch", view.epoch.to_string()),
        ("cluster_my_epoch", mine.to_string()),
    ]
    .iter()
    .map(|(name, value)| format!("{name}:{value}\r\n"))
    .collect()
}

fn slots(view: &ClusterView, flavor: Flavor) -> Reply {
    let place = |node: &ClusterNode| {
        let mut words = vec![
            Reply::bulk(node.host.as_str()),
            Reply::Int(node.port.into()),
            Reply::bulk(node.id.as_str()),
        ];
        if flavor != Flavor::Redis6_2 {
            words.push(Reply::Map(Vec::new()));
        }
        Reply::Array(words)
    };
    let ranges = view.ranges().into_iter().map(|(first, last, node)| {
        let mut words = vec![Reply::Int(first.into()), Reply::Int(last.into())];
        words.push(place(node));
        let replicas = view.replicas_of(&node.id).filter(|node| !node.has_failed);
        words.extend(replicas.map(place));
        Reply::Array(words)
    });
    Reply::Array(ranges.collect())
}

fn shards(view: &ClusterView) -> Reply {
    let text = |text: &str| Reply::bulk(text);
    let describe = |node: &ClusterNode| {
        let role = match node.primary {
            None => "master",
            Some(_) => "replica",
        };
        let health = if node.has_failed { "failed" } else { "online" };
        Reply::Map(vec![
            (text("id"), text(&node.id)),
            (text("port"), Reply::Int(node.port.into())),
            (text("ip"), text(&node.host)),
            (text("endpoint"), text(&node.host)),
            (text("role"), text(role)),
            (text("replication-offset"), Reply::Int(0)),
            (text("health"), text(health)),
        ])
    };
    let primaries = view.nodes.iter().filter(|node| node.primary.is_none());
    let shards = primaries.map(|primary| {
        let ends = primary.slots.iter().flat_map(|(first, last)| [first, last]);
        let ends = ends.map(|end| Reply::Int((*end).into())).collect();
        let mut nodes = vec![describe(primary)];
        nodes.extend(view.replicas_of(&primary.id).map(describe));
        Reply::Map(vec![
            (text("slots"), Reply::Array(ends)),
            (text("nodes"), Reply::Array(nodes)),
        ])
    });
    Reply::Array(shards.collect())
}

fn nodes(view: &ClusterView) -> String {
    let mut text = String::new();
    for node in &view.nodes {
        let me = if node.id == view.me { "myself," } else { "" };
        let role = if node.primary.is_some() {
            "slave"
        } else {
            "master"
        };
        let fail = if node.has_failed { ",fail" } else { "" };
        let primary = node.primary.as_deref().unwrap_or("-");
        let (host, port, bus) = (&node.host, node.port, node.port.saturating_add(BUS));
        let link = if node.has_failed {
            "disconnected"
        } else {
            "connected"
        };
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            "{} {host}:{port}@{bus} {me}{role}{fail} {primary} 0 0 {} {link}",
            node.id, node.epoch
        );
        for (first, last) in &node.slots {
            let _ = match first == last {
                true => write!(text, " {first}"),
                false => write!(text, " {first}-{last}"),
            };
        }
        if node.id == view.me {
            for (slot, to) in &view.migrating {
                let _ = write!(text, " [{slot}->-{to}]");
            }
            for (slot, from) in &view.importing {
                let _ = write!(text, " [{slot}-<-{from}]");
            }
        }
        text.push('\n');
    }
    text
}
