//! [`Interpreter`]: runs the scripts of clients in Lua 5.1, the Lua of Redis.

use crate::commands::scripting::{Prepared, hash};
use crate::core::Core;
use crate::reply::{Outcome, Refusal, Reply, double};
use crate::setup::Flavor;
use mlua::{
    ChunkMode, Error, Function, Lua, LuaOptions, MultiValue, StdLib, String as LuaString, Table,
    Value, Variadic,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PRELUDE: &str = include_str!("prelude.lua");

/// An error of a command, on its way through Lua.
#[derive(Debug)]
struct Raised(Vec<u8>);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl std::error::Error for Raised {}

pub(crate) struct Interpreter {
    lua: Lua,
    run: Function,
    compiled: BTreeMap<String, Function>,
}

impl fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interpreter")
    }
}

pub(crate) fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    // After a panic the whole simulation ends, so nothing reads a state that is half changed.
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Interpreter {
    /// Makes an interpreter whose scripts call the commands of this server.
    pub(crate) fn new(core: &Arc<Mutex<Core>>, flavor: Flavor) -> mlua::Result<Self> {
        let libraries = StdLib::STRING | StdLib::TABLE | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        let of = Arc::clone(core);
        let call = lua.create_function(move |lua, words: Variadic<Value>| {
            match to_lua(lua, call_command(lua, &of, flavor, &words))? {
                Ok(value) => Ok(value),
                Err(Refusal(text)) => Err(Error::external(Raised(text))),
            }
        })?;
        let of = Arc::clone(core);
        let pcall = lua.create_function(move |lua, words: Variadic<Value>| {
            match to_lua(lua, call_command(lua, &of, flavor, &words))? {
                Ok(value) => Ok(value),
                Err(Refusal(text)) => Ok(Value::Table(single(lua, "err", &text)?)),
            }
        })?;
        let describe = lua.create_function(|lua, error: Value| {
            let text = match &error {
                Value::Error(error) => raised(error),
                _ => b"ERR unknown error".to_vec(),
            };
            single(lua, "err", &text)
        })?;
        let sha1hex = lua.create_function(|_, text: LuaString| Ok(hash(&text.as_bytes())))?;
        let error_of = lua.create_function(move |lua, text: LuaString| {
            single(lua, "err", &error_reply(flavor, &text.as_bytes()))
        })?;
        let prelude = lua.load(PRELUDE).set_name("=prelude");
        let run = prelude.call((call, pcall, describe, sha1hex, error_of))?;
        Ok(Self {
            lua,
            run,
            compiled: BTreeMap::new(),
        })
    }

    /// Compiles a script, unless it was compiled before.
    pub(crate) fn compile(&mut self, hash: &str, text: &[u8]) -> Result<Function, Refusal> {
        if let Some(script) = self.compiled.get(hash) {
            return Ok(script.clone());
        }
        let chunk = self.lua.load(text).set_name("@user_script");
        let script = chunk.set_mode(ChunkMode::Text).into_function();
        let script = script.map_err(|error| {
            let what = match error {
                Error::SyntaxError { message, .. } => message,
                error => error.to_string(),
            };
            Refusal::new(format!("ERR Error compiling script (new function): {what}"))
        })?;
        self.compiled.insert(hash.to_owned(), script.clone());
        Ok(script)
    }

    /// Runs a script.
    pub(crate) fn run(&mut self, prepared: &Prepared, flavor: Flavor) -> Outcome {
        let script = self.compile(&prepared.hash, &prepared.text)?;
        let internal = |error: Error| Refusal::new(format!("ERR {error}"));
        let result = self.call(&script, prepared).map_err(internal)?;
        let mut result = result.into_iter();
        let is_fine = matches!(result.next(), Some(Value::Boolean(true)));
        let value = result.next().unwrap_or(Value::Nil);
        if is_fine {
            return to_reply(&value).map_err(internal)?;
        }
        let Value::Table(problem) = value else {
            return Err(Refusal::new("ERR unknown error"));
        };
        let text: LuaString = problem.get(1).map_err(internal)?;
        let is_reply: bool = problem.get(2).map_err(internal)?;
        let is_strict: bool = problem.get(3).map_err(internal)?;
        let line: Option<LuaString> = problem.get(4).map_err(internal)?;
        let line = line.map(|line| line.to_string_lossy());
        let text = match is_reply || flavor == Flavor::Redis6_2 {
            true => text.as_bytes().to_vec(),
            false => [b"ERR ", &*text.as_bytes()].concat(),
        };
        // Redis 6.2 has its own environment in Lua, and names the line there.
        let place = match (is_strict, line) {
            (true, _) if flavor == Flavor::Redis6_2 => Some("@enable_strict_lua:15".into()),
            (_, line) => line.map(|line| format!("@user_script:{line}")),
        };
        Err(failed(flavor, &prepared.hash, &text, place))
    }

    fn call(&self, script: &Function, prepared: &Prepared) -> mlua::Result<MultiValue> {
        let table = |texts: &[Vec<u8>]| {
            let texts = texts.iter().map(|text| self.lua.create_string(text));
            let texts: mlua::Result<Vec<_>> = texts.collect();
            self.lua.create_sequence_from(texts?)
        };
        let (keys, arguments) = (table(&prepared.keys)?, table(&prepared.arguments)?);
        self.run.call((script, keys, arguments))
    }
}

/// Runs a command for a script.
fn call_command(lua: &Lua, core: &Mutex<Core>, flavor: Flavor, words: &[Value]) -> Outcome {
    let words: Option<Vec<_>> = words.iter().map(argument).collect();
    let result = match words {
        Some(words) if words.is_empty() => Err(no_argument(flavor)),
        Some(words) => lock(core).call_from_script(&words),
        None => Err(bad_argument(flavor)),
    };
    result.unwrap_or_else(|Refusal(text)| {
        if flavor != Flavor::Redis6_2 {
            return Err(Refusal(text));
        }
        // Redis 6.2 says where the script has called a command that it did not run.
        let line = lua.inspect_stack(1, |place| place.current_line()).flatten();
        let plain = text.strip_prefix(b"ERR ").unwrap_or(&text);
        let place = format!("@user_script: {}: ", line.unwrap_or_default());
        Err(Refusal([place.as_bytes(), plain].concat()))
    })
}

/// Returns the error of a script that has failed, as this server words it.
fn failed(flavor: Flavor, hash: &str, text: &[u8], place: Option<String>) -> Refusal {
    let mut whole = Vec::new();
    match flavor {
        Flavor::Redis6_2 => {
            let place = place.map(|place| place + ": ").unwrap_or_default();
            let start = format!("ERR Error running script (call to f_{hash}): {place}");
            whole.extend_from_slice(start.as_bytes());
            whole.extend_from_slice(text);
        }
        _ => {
            whole.extend_from_slice(text);
            if let Some(place) = place {
                let end = match flavor {
                    Flavor::Valkey => format!(" script: on {place}."),
                    _ => format!(" script: {hash}, on {place}."),
                };
                whole.extend_from_slice(end.as_bytes());
            }
        }
    }
    Refusal(one_line(whole))
}

/// An error reply is one line, so Redis leaves out the end of the last line of an error, and
/// replaces the others.
fn one_line(mut text: Vec<u8>) -> Vec<u8> {
    while matches!(text.last(), Some(b'\r' | b'\n')) {
        text.pop();
    }
    for byte in &mut text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    text
}

/// Returns what `redis.error_reply` makes of a text.
fn error_reply(flavor: Flavor, text: &[u8]) -> Vec<u8> {
    if flavor == Flavor::Redis6_2 {
        return text.to_vec();
    }
    let plain = text.strip_prefix(b"-").unwrap_or(text);
    match plain.contains(&b' ') {
        true => plain.to_vec(),
        false => [b"ERR ", plain].concat(),
    }
}

fn raised(error: &Error) -> Vec<u8> {
    match error {
        Error::CallbackError { cause, .. } => raised(cause),
        error => match error.downcast_ref::<Raised>() {
            Some(Raised(text)) => text.clone(),
            None => format!("ERR {error}").into_bytes(),
        },
    }
}

fn no_argument(flavor: Flavor) -> Refusal {
    Refusal::new(match flavor {
        Flavor::Redis6_2 => "ERR Please specify at least one argument for redis.call()",
        Flavor::Redis7 => "ERR Please specify at least one argument for this redis lib call",
        Flavor::Valkey => "ERR Please specify at least one argument for this call",
    })
}

fn bad_argument(flavor: Flavor) -> Refusal {
    Refusal::new(match flavor {
        Flavor::Redis6_2 => "ERR Lua redis() command arguments must be strings or integers",
        Flavor::Redis7 => "ERR Lua redis lib command arguments must be strings or integers",
        Flavor::Valkey => "ERR Command arguments must be strings or integers",
    })
}

/// Returns an argument of a command. Numbers lose nothing here, unlike in Lua's own `tostring`.
fn argument(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        Value::Number(number) => Some(double(*number).into_bytes()),
        _ => None,
    }
}

fn single(lua: &Lua, name: &str, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, lua.create_string(text)?)?;
    Ok(table)
}

/// Converts the reply of a command, as Redis does for scripts, which speak version 2.
fn to_lua(lua: &Lua, outcome: Outcome) -> mlua::Result<Result<Value, Refusal>> {
    let reply = match outcome {
        Ok(Reply::Error(text)) => return Ok(Err(Refusal(text))),
        Ok(reply) => reply,
        Err(refusal) => return Ok(Err(refusal)),
    };
    value_of(lua, &reply).map(Ok)
}

fn value_of(lua: &Lua, reply: &Reply) -> mlua::Result<Value> {
    let text = |text: &[u8]| lua.create_string(text).map(Value::String);
    let sequence = |values: Vec<Value>| lua.create_sequence_from(values).map(Value::Table);
    match reply {
        Reply::Written | Reply::Null | Reply::NullArray => Ok(Value::Boolean(false)),
        Reply::Status(status) => single(lua, "ok", status).map(Value::Table),
        Reply::Error(error) => single(lua, "err", error).map(Value::Table),
        Reply::Int(number) => Ok(Value::Integer(*number)),
        Reply::Bulk(bulk) => text(bulk),
        Reply::Verbatim(verbatim) => text(verbatim.as_bytes()),
        Reply::Double(number) => text(double(*number).as_bytes()),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            let values = items.iter().map(|item| value_of(lua, item));
            sequence(values.collect::<mlua::Result<_>>()?)
        }
        Reply::Map(pairs) => {
            let items = pairs.iter().flat_map(|(field, value)| [field, value]);
            let values = items.map(|item| value_of(lua, item));
            sequence(values.collect::<mlua::Result<_>>()?)
        }
        Reply::Scored(members) => {
            let mut values = Vec::with_capacity(2 * members.len());
            for (member, score) in members {
                values.push(text(member)?);
                values.push(text(double(*score).as_bytes())?);
            }
            sequence(values)
        }
    }
}

/// Converts the result of a script, as Redis does.
fn to_reply(value: &Value) -> mlua::Result<Outcome> {
    Ok(Ok(match value {
        Value::String(text) => Reply::Bulk(text.as_bytes().to_vec()),
        Value::Integer(number) => Reply::Int(*number),
        // A fraction is cut off.
        Value::Number(number) => Reply::Int(*number as i64),
        Value::Boolean(true) => Reply::Int(1),
        Value::Table(table) => {
            if let Value::String(error) = table.raw_get("err")? {
                return Ok(Err(Refusal(one_line(error.as_bytes().to_vec()))));
            }
            if let Value::String(status) = table.raw_get("ok")? {
                return Ok(Ok(Reply::Status(one_line(status.as_bytes().to_vec()))));
            }
            let mut items = Vec::new();
            for at in 1.. {
                match table.raw_get(at)? {
                    Value::Nil => break,
                    item => items.push(Reply::from(to_reply(&item)?)),
                }
            }
            Reply::Array(items)
        }
        _ => Reply::Null,
    }))
}
