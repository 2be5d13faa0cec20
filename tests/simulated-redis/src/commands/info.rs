//! What the server says about itself.

use super::{Call, lower, sentinel};
use crate::core::Core;
use crate::reply::{Outcome, Reply};
use crate::setup::Flavor;
use std::fmt::Write;

/// The sections, in the order in which Redis prints them.
const SECTIONS: [&str; 7] = [
    "Server",
    "Clients",
    "Memory",
    "Replication",
    "Cluster",
    "Keyspace",
    "Sentinel",
];

pub(super) fn info(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let asked: Vec<_> = call.rest(1).iter().map(|word| lower(word)).collect();
    let is_all = |name: &String| ["all", "default", "everything"].contains(&name.as_str());
    let is_asked = |section: &str| {
        asked.is_empty() || asked.iter().any(is_all) || asked.contains(&section.to_lowercase())
    };
    let is_there = |section: &str| match section {
        "Sentinel" => core.sentinel.is_some(),
        "Memory" | "Replication" | "Cluster" | "Keyspace" => core.sentinel.is_none(),
        _ => true,
    };
    let texts = SECTIONS
        .iter()
        .filter(|section| is_asked(section) && is_there(section));
    let texts = texts.map(|section| {
        let fields = fields(core, section);
        let fields = fields
            .iter()
            .fold(String::new(), |mut text, (name, value)| {
                // Writing to a `String` cannot fail.
                let _ = write!(text, "{name}:{value}\r\n");
                text
            });
        format!("# {section}\r\n{fields}")
    });
    Ok(Reply::Verbatim(texts.collect::<Vec<_>>().join("\r\n")))
}

fn fields(core: &Core, section: &str) -> Vec<(String, String)> {
    let some = match section {
        "Server" => server(core),
        "Clients" => vec![("connected_clients", core.clients.len().to_string())],
        "Memory" => vec![
            ("used_memory", core.used_memory().to_string()),
            ("maxmemory", core.memory.most.to_string()),
            ("maxmemory_policy", core.memory.policy.name().to_owned()),
        ],
        "Replication" => core.replication.fields(),
        "Cluster" => vec![(
            "cluster_enabled",
            u8::from(core.cluster.is_some()).to_string(),
        )],
        "Sentinel" => return core.sentinel.as_ref().map_or_else(Vec::new, sentinel::info),
        _ => return keyspace(core),
    };
    let some = some.into_iter();
    some.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn server(core: &Core) -> Vec<(&'static str, String)> {
    let mode = core.mode().to_owned();
    let up = core.now.saturating_sub(core.started).as_secs();
    let mut fields = vec![("redis_version", core.setup.flavor.version().to_owned())];
    match core.setup.flavor {
        Flavor::Valkey => fields.extend([
            ("server_name", "valkey".to_owned()),
            ("valkey_version", "9.1.2".to_owned()),
            ("server_mode", mode),
        ]),
        _ => fields.push(("redis_mode", mode)),
    }
    fields.extend([
        ("run_id", core.replication.run_id.clone()),
        ("tcp_port", core.setup.port.to_string()),
        ("server_time_usec", core.now.as_micros().to_string()),
        ("uptime_in_seconds", up.to_string()),
        ("uptime_in_days", (up / 86_400).to_string()),
    ]);
    fields
}

fn keyspace(core: &Core) -> Vec<(String, String)> {
    let used = core.databases.iter().enumerate();
    let used = used.filter(|(_, keys)| keys.len() > 0);
    used.map(|(number, keys)| {
        let volatile = keys.volatile_count();
        let text = format!("keys={},expires={volatile},avg_ttl=0", keys.len());
        (format!("db{number}"), text)
    })
    .collect()
}

pub(super) fn role(core: &mut Core, _: &mut Call<'_>) -> Outcome {
    Ok(match &core.sentinel {
        None => core.replication.role(),
        Some(view) => {
            let names = Reply::bulks(view.services.keys().map(String::as_str));
            Reply::Array(vec![Reply::bulk("sentinel"), names])
        }
    })
}
