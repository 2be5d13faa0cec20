//! Commands of strings.

use super::{Call, is, wrong_arity};
use crate::core::Core;
use crate::keyspace::Entry;
use crate::reply::{Outcome, Refusal, Reply};
use crate::request;
use crate::setup::Flavor;
use crate::value::Value;

/// When a `SET` makes its key expire.
enum Expiry {
    Never,
    Keep,
    At(u64),
}

pub(super) fn get(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    Ok(Reply::maybe(core.keys(call).string(call.key())?.cloned()))
}

pub(super) fn strlen(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let text = core.keys(call).string(call.key())?;
    Ok(Reply::count(text.map_or(0, Vec::len)))
}

pub(super) fn mget(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let keys = core.keys(call);
    let texts = call.rest(1).iter();
    let texts = texts.map(|key| Reply::maybe(keys.string(key).ok().flatten().cloned()));
    Ok(Reply::Array(texts.collect()))
}

pub(super) fn mset(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let (pairs, rest) = call.rest(1).as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong_arity("mset"));
    }
    for [key, value] in pairs {
        put(core, call, key, value, None);
    }
    Ok(Reply::ok())
}

pub(super) fn setnx(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let is_new = core.keys(call).get(call.key()).is_none();
    if is_new {
        put(core, call, call.key(), call.word(2), None);
    }
    Ok(Reply::Int(is_new.into()))
}

pub(super) fn getdel(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let text = core.keys(call).string(call.key())?.cloned();
    if text.is_some() {
        core.keys(call).remove(call.key());
        call.changed = true;
    }
    Ok(Reply::maybe(text))
}

/// `SETEX` and `PSETEX`.
pub(super) fn setex(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let unit = if call.is(0, "psetex") { 1 } else { 1000 };
    let at = life(core, call, 2, unit, true)?;
    put(core, call, call.key(), call.word(3), Some(at));
    Ok(Reply::ok())
}

pub(super) fn set(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let (mut expiry, mut only, mut returns) = (Expiry::Never, None, false);
    let mut at = 3;
    while at < call.words.len() {
        let word = call.word(at);
        let has_next = at + 1 < call.words.len();
        match () {
            () if is(word, "nx") && only != Some(true) => only = Some(false),
            () if is(word, "xx") && only != Some(false) => only = Some(true),
            () if is(word, "get") => returns = true,
            () if is(word, "keepttl") && matches!(expiry, Expiry::Never) => expiry = Expiry::Keep,
            () if has_next && matches!(expiry, Expiry::Never) => {
                let units = [
                    ("ex", 1000, true),
                    ("px", 1, true),
                    ("exat", 1000, false),
                    ("pxat", 1, false),
                ];
                let unit = units.iter().find(|(name, ..)| is(word, name));
                let (_, unit, is_relative) = unit.ok_or_else(Refusal::syntax)?;
                at += 1;
                expiry = Expiry::At(life(core, call, at, *unit, *is_relative)?);
            }
            () => return Err(Refusal::syntax()),
        }
        at += 1;
    }
    let keys = core.keys(call);
    let before = match returns {
        true => keys.string(call.key())?.cloned(),
        false => None,
    };
    let there = keys.get(call.key());
    let kept = there.and_then(|entry| entry.expires);
    if only.is_some_and(|only| only != there.is_some()) {
        return Ok(Reply::maybe(before));
    }
    let expires = match expiry {
        Expiry::Never => None,
        Expiry::Keep => kept,
        Expiry::At(at) => Some(at),
    };
    put(core, call, call.key(), call.word(2), expires);
    Ok(match returns {
        true => Reply::maybe(before),
        false => Reply::ok(),
    })
}

/// Reads when a key is to expire.
fn life(
    core: &Core,
    call: &Call<'_>,
    at: usize,
    unit: i64,
    is_relative: bool,
) -> Result<u64, Refusal> {
    let number = call.integer(at)?;
    let from = if is_relative { core.now_ms() } else { 0 };
    let expires = number.checked_mul(unit).filter(|life| *life > 0);
    let expires = expires.and_then(|life| life.checked_add_unsigned(from));
    let expires = expires.and_then(|at| u64::try_from(at).ok());
    expires.ok_or_else(|| invalid_life(core, call))
}

/// Returns the error for a time that no key can expire at.
pub(super) fn invalid_life(core: &Core, call: &Call<'_>) -> Refusal {
    let name = call.name();
    Refusal::new(match core.setup.flavor {
        Flavor::Redis6_2 => format!("ERR invalid expire time in {name}"),
        _ => format!("ERR invalid expire time in '{name}' command"),
    })
}

fn put(core: &mut Core, call: &mut Call<'_>, key: &[u8], text: &[u8], expires: Option<u64>) {
    let value = Value::String(text.to_vec());
    core.keys(call).insert(key, Entry { value, expires });
    call.changed = true;
}

pub(super) fn append(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    core.keys(call).string(call.key())?;
    let more = call.word(2);
    let empty = Value::String(Vec::new());
    let length = core.keys(call).change(call.key(), empty, |value| {
        let Value::String(text) = value else {
            return (0, 0);
        };
        text.extend_from_slice(more);
        (text.len(), more.len().cast_signed())
    });
    call.changed = true;
    Ok(Reply::count(length))
}

/// `INCR`, `DECR`, `INCRBY` and `DECRBY`.
pub(super) fn count(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let by = match call.words.len() {
        2 => 1,
        _ => call.integer(2)?,
    };
    let by = match call.name().starts_with("decr") {
        true => by
            .checked_neg()
            .ok_or_else(|| Refusal::new("ERR decrement would overflow"))?,
        false => by,
    };
    let entry = core.keys(call).get(call.key());
    let expires = entry.and_then(|entry| entry.expires);
    let now = match core.keys(call).string(call.key())? {
        None => 0,
        Some(text) => request::integer(text).ok_or_else(Refusal::not_an_integer)?,
    };
    let sum = now.checked_add(by);
    let sum = sum.ok_or_else(|| Refusal::new("ERR increment or decrement would overflow"))?;
    put(core, call, call.key(), sum.to_string().as_bytes(), expires);
    Ok(Reply::Int(sum))
}
