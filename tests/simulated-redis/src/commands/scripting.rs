//! Which script a call means, and what scripts may call.

use super::{Call, Flags, Run, lookup, lower};
use crate::cluster::Routed;
use crate::core::Core;
use crate::replication::Change;
use crate::reply::{Outcome, Refusal, Reply};
use crate::request;
use crate::setup::Flavor;
use std::sync::Arc;

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
    pub(crate) text: Arc<[u8]>,
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
    /// `ASKING` came before it.
    pub(crate) is_asking: bool,
    pub(crate) reads_replica: bool,
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
            core.scripts.insert(hash.clone(), text.into());
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
            Form::Text => (hash(source), source.into()),
            Form::Hash => {
                let hash = lower(source);
                let text = self.scripts.get(&hash).cloned();
                let unknown = match self.setup.flavor {
                    Flavor::Valkey => "NOSCRIPT No matching script.",
                    _ => "NOSCRIPT No matching script. Please use EVAL.",
                };
                (hash, text.ok_or_else(|| Refusal::new(unknown))?)
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
    ///
    /// # Errors
    /// Returns an error if no script may call the command now. The command did not run then.
    pub(crate) fn call_from_script(&mut self, words: &[Vec<u8>]) -> Result<Outcome, Refusal> {
        let is_old = self.setup.flavor == Flavor::Redis6_2;
        let Some(spec) = words.first().and_then(|name| lookup(name)) else {
            return Err(Refusal::new(match self.setup.flavor {
                Flavor::Redis6_2 => "ERR Unknown Redis command called from Lua script",
                Flavor::Redis7 => "ERR Unknown Redis command called from script",
                Flavor::Valkey => "ERR Unknown command called from script",
            }));
        };
        if !spec.fits(words.len(), self.setup.flavor) {
            return Err(Refusal::new(match self.setup.flavor {
                Flavor::Redis6_2 => {
                    "ERR Wrong number of args calling Redis command From Lua script"
                }
                Flavor::Redis7 => "ERR Wrong number of args calling Redis command from script",
                Flavor::Valkey => "ERR Wrong number of args calling command from script",
            }));
        }
        let Run::Plain(run) = spec.run else {
            return Err(forbidden(self.setup.flavor));
        };
        if spec.flags.has(Flags::NO_SCRIPT) {
            return Err(forbidden(self.setup.flavor));
        }
        let Some(script) = &self.script else {
            return Err(Refusal::new("ERR no script is running"));
        };
        let (client, db) = (script.client, script.db);
        let is_refused = spec.flags.has(Flags::DENY_OOM) && script.is_full && !script.has_written;
        if is_refused && self.setup.flavor == Flavor::Valkey {
            return Err(self.full());
        }
        if spec.flags.has(Flags::WRITE) {
            if !self.replication.is_primary() {
                let text = "READONLY You can't write against a read only replica.";
                return Err(dashed(is_old, Refusal::new(text)));
            }
            // Redis 6.2 does not count the replicas here.
            if !is_old && !self.replication.has_enough_replicas() {
                let text = "NOREPLICAS Not enough good replicas to write.";
                return Err(Refusal::new(text));
            }
        }
        if is_refused {
            return Err(dashed(is_old, self.full()));
        }
        if let Some(cluster) = &self.cluster {
            let routed = Routed {
                keys: &spec.keys(words),
                is_asking: script.is_asking,
                reads_replica: script.reads_replica && !spec.flags.has(Flags::WRITE),
                flavor: self.setup.flavor,
            };
            cluster.check_script(&routed, &self.databases[0])?;
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
            self.replication
                .note(|| Change::Command(db, words.to_vec()));
        }
        Ok(outcome)
    }
}

fn forbidden(flavor: Flavor) -> Refusal {
    Refusal::new(match flavor {
        Flavor::Redis6_2 => "ERR This Redis command is not allowed from scripts",
        Flavor::Redis7 => "ERR This Redis command is not allowed from script",
        Flavor::Valkey => "ERR This Valkey command is not allowed from script",
    })
}

/// Redis 6.2 hands these errors to a script as they are sent, with the dash and the end of the line.
fn dashed(is_old: bool, refusal: Refusal) -> Refusal {
    match is_old {
        true => Refusal([b"-", &*refusal.0, b"\r\n"].concat()),
        false => refusal,
    }
}
