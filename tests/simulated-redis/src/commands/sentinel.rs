//! Commands of a Sentinel.

use super::{Call, lower};
use crate::core::Core;
use crate::reply::{Outcome, Refusal, Reply};
use crate::sentinel::{SentinelView, Service};

/// The commands that a Sentinel knows, beside `SENTINEL`.
pub(crate) const COMMANDS: &[&str] = &[
    "auth",
    "client",
    "hello",
    "info",
    "ping",
    "psubscribe",
    "publish",
    "punsubscribe",
    "quit",
    "reset",
    "role",
    "sentinel",
    "subscribe",
    "unsubscribe",
];

pub(super) fn sentinel(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let none = SentinelView::default();
    let view = core.sentinel.as_ref().unwrap_or(&none);
    let name = String::from_utf8_lossy(call.word(2)).into_owned();
    let service = view.services.get(&name);
    let known = || service.ok_or_else(|| Refusal::new("ERR No such master with that name"));
    match (lower(call.word(1)).as_str(), call.words.len()) {
        ("get-master-addr-by-name", 3) => Ok(service.map_or(Reply::NullArray, |service| {
            Reply::bulks([service.host.clone(), service.port.to_string()])
        })),
        ("master", 3) => Ok(describe(&name, known()?)),
        ("masters", 2) => {
            let all = view.services.iter();
            let all = all.map(|(name, service)| describe(name, service));
            Ok(Reply::Array(all.collect()))
        }
        ("sentinels", 3) => Ok(places("sentinel", &known()?.sentinels)),
        ("replicas" | "slaves", 3) => Ok(places("slave", &known()?.replicas)),
        _ => Err(core.unknown_subcommand(call)),
    }
}

fn describe(name: &str, service: &Service) -> Reply {
    map(&[
        ("name", name.to_owned()),
        ("ip", service.host.clone()),
        ("port", service.port.to_string()),
        ("runid", service.run_id.clone()),
        ("flags", service.flags().to_owned()),
        ("role-reported", "master".to_owned()),
        ("config-epoch", service.epoch.to_string()),
        ("num-slaves", service.replicas.len().to_string()),
        ("num-other-sentinels", service.sentinels.len().to_string()),
        ("quorum", service.quorum.to_string()),
    ])
}

fn places(flags: &str, places: &[(String, u16)]) -> Reply {
    let each = places.iter().map(|(host, port)| {
        map(&[
            ("name", format!("{host}:{port}")),
            ("ip", host.clone()),
            ("port", port.to_string()),
            ("flags", flags.to_owned()),
        ])
    });
    Reply::Array(each.collect())
}

fn map(fields: &[(&str, String)]) -> Reply {
    let fields = fields.iter();
    let pairs = fields.map(|(name, value)| (Reply::bulk(*name), Reply::bulk(value.as_str())));
    Reply::Map(pairs.collect())
}

/// Returns the fields of the section `sentinel` of `INFO`.
pub(super) fn info(view: &SentinelView) -> Vec<(String, String)> {
    let count = view.services.len().to_string();
    let mut fields = vec![("sentinel_masters".to_owned(), count)];
    fields.extend(
        view.services
            .iter()
            .enumerate()
            .map(|(at, (name, service))| {
                let status = if service.is_down { "sdown" } else { "ok" };
                let (host, port) = (&service.host, service.port);
                let (replicas, sentinels) = (service.replicas.len(), service.sentinels.len() + 1);
                let text = format!(
                    "name={name},status={status},address={host}:{port},slaves={replicas},\
             sentinels={sentinels}"
                );
                (format!("master{at}"), text)
            }),
    );
    fields
}
