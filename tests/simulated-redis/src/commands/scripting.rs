//! Which script a call means, and what scripts may call.

use super::{Call, Flags, Run, lookup, lower};
use crate::core::Core;
use crate::reply::{Outcome, Refusal, Reply};
use crate::request;
use crate::setup::Flavor;

/// How a call names its script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Hash,
}

/// A script that is about to run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) hash: String,
    pub(crate) text: Vec<u8>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// The script that runs now.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) client: u64,
    pub(crate) db: usize,
    /// The server was full when the script began.
    pub(crate) is_full: bool,
    /// The script has called a command that writes.
    pub(crate) has_written: bool,
    /// The slot of the keys that it has named, in a cluster.
    pub(crate) slot: Option<u16>,
}

/// Returns the hash by which Redis knows a script.
pub fn hash(text: &[u8]) -> String {
    sha1_smol::Sha1::from(text).digest().to_string()
}

/// `SCRIPT LOAD`, `EXISTS` and `FLUSH`. The server compiles the text before this runs.
pub(super) fn script(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    match (lower(call.word(1)).as_str(), call.words.len()) {
        ("load", 3) => {
            let text = call.word(2);
            let hash = hash(text);
            core.scripts.insert(hash.clone(), text.to_vec());
            Ok(Reply::bulk(hash))
        }
        ("exists", 3..) => {
            let each = call.rest(2).iter();
            let each = each.map(|hash| core.scripts.contains_key(&lower(hash)));
            Ok(Reply::Array(
                each.map(|has| Reply::Int(has.into())).collect(),
            ))
        }
        ("flush", 2) => {
            core.scripts.clear();
            Ok(Reply::ok())
        }
        ("flush", 3) if call.is(2, "sync") || call.is(2, "async") => {
            core.scripts.clear();
            Ok(Reply::ok())
        }
        ("flush", 3) => Err(Refusal::new(
            "ERR SCRIPT FLUSH only support SYNC|ASYNC option",
        )),
        _ => Err(core.unknown_subcommand(call)),
    }
}

impl Core {
    /// Finds the script of an `EVAL` or `EVALSHA`, and its keys and arguments.
    pub(crate) fn prepare(&self, form: Form, words: &[Vec<u8>]) -> Result<Prepared, Refusal> {
        let count = words.get(2).and_then(|count| request::integer(count));
        let count = count.ok_or_else(Refusal::not_an_integer)?;
        let rest = words.get(3..).unwrap_or_default();
        if count > i64::try_from(rest.len()).unwrap_or(i64::MAX) {
            let text = "ERR Number of keys can't be greater than number of args";
            return Err(Refusal::new(text));
        }
        let Ok(count) = usize::try_from(count) else {
            return Err(Refusal::new("ERR Number of keys can't be negative"));
        };
        let source = words.get(1).map_or(&[][..], Vec::as_slice);
        let (hash, text) = match form {
            Form::Text => (hash(source), source.to_vec()),
            Form::Hash => {
                let hash = lower(source);
                let text = self.scripts.get(&hash).cloned();
                let unknown = || Refusal::new("NOSCRIPT No matching script. Please use EVAL.");
                (hash, text.ok_or_else(unknown)?)
            }
        };
        let (keys, arguments) = rest.split_at(count);
        Ok(Prepared {
            hash,
            text,
            keys: keys.to_vec(),
            arguments: arguments.to_vec(),
        })
    }

    /// Runs a command for the script that runs now.
    pub(crate) fn call_from_script(&mut self, words: &[Vec<u8>]) -> Outcome {
        let is_old = self.setup.flavor == Flavor::Redis6_2;
        let Some(spec) = words.first().and_then(|name| lookup(name)) else {
            return Err(Refusal::new(match self.setup.flavor {
                Flavor::Redis6_2 => "ERR Unknown Redis command called from Lua script",
                Flavor::Redis7 => "ERR Unknown Redis command called from script",
                Flavor::Valkey => "ERR Unknown command called from script",
            }));
        };
        if !spec.fits(words.len()) {
            return Err(Refusal::new(match self.setup.flavor {
                Flavor::Redis6_2 => {
                    "ERR Wrong number of args calling Redis command From Lua script"
                }
                Flavor::Redis7 => "ERR Wrong number of args calling Redis command from script",
                Flavor::Valkey => "ERR Wrong number of args calling command from script",
            }));
        }
        let Run::Plain(run) = spec.run else {
            return Err(forbidden(is_old));
        };
        if spec.flags.has(Flags::NO_SCRIPT) {
            return Err(forbidden(is_old));
        }
        let Some(script) = &self.script else {
            return Err(Refusal::new("ERR no script is running"));
        };
        let (client, db) = (script.client, script.db);
        if spec.flags.has(Flags::WRITE) {
            if !self.replication.is_primary() {
                return Err(Refusal::new(
                    "READONLY You can't write against a read only replica.",
                ));
            }
            // Redis 6.2 does not count the replicas here.
            if !is_old && !self.replication.has_enough_replicas() {
                return Err(Refusal::new(
                    "NOREPLICAS Not enough good replicas to write.",
                ));
            }
            if spec.flags.has(Flags::DENY_OOM) && script.is_full && !script.has_written {
                return Err(self.full());
            }
        }
        if let Some(cluster) = &self.cluster {
            cluster.check_script(script, &spec.keys(words))?;
        }
        if let Some(script) = &mut self.script
            && spec.flags.has(Flags::WRITE)
        {
            script.has_written = true;
        }
        let mut call = Call {
            words,
            client,
            db,
            changed: false,
        };
        let outcome = run(self, &mut call);
        if call.changed {
            self.replication.note(db, words);
        }
        outcome
    }
}

fn forbidden(is_old: bool) -> Refusal {
    Refusal::new(match is_old {
        true => "ERR This Redis command is not allowed from scripts",
        false => "ERR This Redis command is not allowed from script",
    })
}
