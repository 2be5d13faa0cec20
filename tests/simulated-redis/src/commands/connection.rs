//! Commands of a connection, and of the server's configuration.

use super::{Call, is, lower, wrong_arity};
use crate::client::Client;
use crate::core::{Core, DATABASES};
use crate::glob;
use crate::memory::Policy;
use crate::reply::{Outcome, Refusal, Reply, Resp};
use crate::request;
use crate::setup::Flavor;

pub(super) fn ping(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    if call.words.len() > 2 {
        return Err(wrong_arity("ping"));
    }
    let client = core.client(call.client);
    if client.resp == Resp::Two && client.subscriptions() > 0 {
        return Ok(Reply::bulks([b"pong".as_slice(), call.word(1)]));
    }
    Ok(match call.words.get(1) {
        Some(text) => Reply::bulk(text.clone()),
        None => Reply::Status(b"PONG".to_vec()),
    })
}

pub(super) fn echo(_: &mut Core, call: &mut Call<'_>) -> Outcome {
    Ok(Reply::bulk(call.word(1)))
}

pub(super) fn time(core: &mut Core, _: &mut Call<'_>) -> Outcome {
    let now = core.now;
    Ok(Reply::bulks([
        now.as_secs().to_string(),
        now.subsec_micros().to_string(),
    ]))
}

pub(super) fn select(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let db = request::integer(call.word(1));
    let db = db.ok_or_else(Refusal::not_an_integer)?;
    let is_clustered = core.cluster.is_some();
    if is_clustered && db != 0 && core.setup.flavor != Flavor::Valkey {
        return Err(Refusal::new("ERR SELECT is not allowed in cluster mode"));
    }
    let count = if is_clustered { 1 } else { DATABASES };
    let db = usize::try_from(db).ok().filter(|db| *db < count);
    let db = db.ok_or_else(|| Refusal::new("ERR DB index is out of range"))?;
    match &mut core.script {
        Some(script) => script.db = db,
        None => core.client(call.client).db = db,
    }
    Ok(Reply::ok())
}

pub(super) fn quit(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    core.client(call.client).is_closing = true;
    Ok(Reply::ok())
}

pub(super) fn reset(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    core.unsubscribe_all(call.client);
    let needs_password = core.setup.password.is_some();
    let client = core.client(call.client);
    *client = Client {
        input: std::mem::take(&mut client.input),
        output: std::mem::take(&mut client.output),
        ..Client::new(!needs_password)
    };
    Ok(Reply::Status(b"RESET".to_vec()))
}

pub(super) fn auth(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let (user, password) = match call.rest(1) {
        [password] => (b"default".as_slice(), password),
        [user, password] => (user.as_slice(), password),
        _ => return Err(Refusal::syntax()),
    };
    if call.words.len() == 2 && core.setup.password.is_none() {
        let text = "ERR AUTH <password> called without any password configured for the default \
                    user. Are you sure your configuration is correct?";
        return Err(Refusal::new(text));
    }
    log_in(core, call.client, user, password)?;
    Ok(Reply::ok())
}

fn log_in(core: &mut Core, client: u64, user: &[u8], password: &[u8]) -> Result<(), Refusal> {
    let expected = core.setup.password.as_deref().map(str::as_bytes);
    if user != b"default" || expected.is_some_and(|expected| expected != password) {
        let text = "WRONGPASS invalid username-password pair or user is disabled.";
        return Err(Refusal::new(text));
    }
    core.client(client).is_known = true;
    Ok(())
}

pub(super) fn hello(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let mut resp = core.client(call.client).resp;
    if call.words.len() > 1 {
        let version = request::integer(call.word(1));
        let text = "ERR Protocol version is not an integer or out of range";
        resp = match version.ok_or_else(|| Refusal::new(text))? {
            2 => Resp::Two,
            3 => Resp::Three,
            _ => return Err(Refusal::new("NOPROTO unsupported protocol version")),
        };
    }
    let (mut user, mut name) = (None, None);
    let mut at = 2;
    while at < call.words.len() {
        match (lower(call.word(at)).as_str(), call.words.len() - at - 1) {
            ("auth", 2..) => {
                user = Some((call.word(at + 1), call.word(at + 2)));
                at += 2;
            }
            ("setname", 1..) => {
                name = Some(call.word(at + 1));
                at += 1;
            }
            _ => {
                let option = String::from_utf8_lossy(call.word(at));
                let text = format!("ERR Syntax error in HELLO option '{option}'");
                return Err(Refusal::new(text));
            }
        }
        at += 1;
    }
    if let Some((user, password)) = user {
        log_in(core, call.client, user, password)?;
    }
    let client = core.client(call.client);
    if !client.is_known {
        let text = "NOAUTH HELLO must be called with the client already authenticated, otherwise \
                    the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the \
                    client and select the RESP protocol version at the same time";
        return Err(Refusal::new(text));
    }
    if let Some(name) = name {
        client.name = name.to_vec();
    }
    client.resp = resp;
    let (server, version) = match core.setup.flavor {
        Flavor::Valkey => ("valkey", "9.1.2"),
        flavor => ("redis", flavor.version()),
    };
    let role = match core.replication.is_primary() {
        true => "master",
        false => "replica",
    };
    let mode = core.mode();
    let text = |text: &str| Reply::bulk(text);
    let mut fields = vec![
        (text("server"), text(server)),
        (text("version"), text(version)),
        (
            text("proto"),
            Reply::Int(if resp == Resp::Three { 3 } else { 2 }),
        ),
        (
            text("id"),
            Reply::Int(i64::try_from(call.client).unwrap_or(i64::MAX)),
        ),
        (text("mode"), text(mode)),
    ];
    if core.sentinel.is_none() {
        fields.push((text("role"), text(role)));
    }
    fields.push((text("modules"), Reply::Array(Vec::new())));
    Ok(Reply::Map(fields))
}

pub(super) fn client(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let what = lower(call.word(1));
    match (what.as_str(), call.words.len()) {
        ("id", 2) => Ok(Reply::Int(call.client.cast_signed())),
        ("getname", 2) => {
            let name = &core.client(call.client).name;
            Ok(Reply::maybe((!name.is_empty()).then(|| name.clone())))
        }
        ("setname", 3) => {
            core.client(call.client).name = call.word(2).to_vec();
            Ok(Reply::ok())
        }
        // The first versions of Redis that know it are 7.2 and Valkey.
        ("setinfo", 4) if core.setup.flavor == Flavor::Valkey => {
            let name = call.word(2);
            match is(name, "lib-name") || is(name, "lib-ver") {
                true => Ok(Reply::ok()),
                false => {
                    let name = String::from_utf8_lossy(name);
                    Err(Refusal::new(format!("ERR Unrecognized option '{name}'")))
                }
            }
        }
        ("kill", 4) if call.is(2, "type") => {
            let kind = lower(call.word(3));
            let gone = core.kill(call.client, |client| match kind.as_str() {
                "pubsub" => client.subscriptions() > 0,
                "normal" => client.subscriptions() == 0,
                _ => false,
            });
            Ok(Reply::count(gone))
        }
        _ => Err(core.unknown_subcommand(call)),
    }
}

/// `CONFIG GET` and `CONFIG SET`, of the parameters that the simulation has.
pub(super) fn config(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let what = lower(call.word(1));
    match (what.as_str(), call.words.len()) {
        ("get", 3) => {
            let parameters = [
                ("maxmemory", core.memory.most.to_string()),
                ("maxmemory-policy", core.memory.policy.name().to_owned()),
                (
                    "min-replicas-to-write",
                    core.replication.least_replicas.to_string(),
                ),
            ];
            let pattern = lower(call.word(2));
            let found = parameters
                .into_iter()
                .filter(|(name, _)| glob::matches(pattern.as_bytes(), name.as_bytes()));
            let pairs = found.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)));
            Ok(Reply::Map(pairs.collect()))
        }
        ("set", 4) => {
            let (name, value) = (lower(call.word(2)), call.word(3));
            let number = request::integer(value).and_then(|number| u64::try_from(number).ok());
            let policy = Policy::of(&lower(value));
            match (name.as_str(), number, policy) {
                ("maxmemory", Some(number), _) => core.memory.most = number,
                ("min-replicas-to-write", Some(number), _) => {
                    core.replication.least_replicas = usize::try_from(number).unwrap_or(usize::MAX);
                }
                ("maxmemory-policy", _, Some(policy)) => core.memory.policy = policy,
                _ => {
                    let text = format!(
                        "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                    );
                    return Err(Refusal::new(text));
                }
            }
            Ok(Reply::ok())
        }
        _ => Err(core.unknown_subcommand(call)),
    }
}
