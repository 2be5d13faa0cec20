//! Commands of hashes.

use super::{Call, wrong_arity};
use crate::core::Core;
use crate::reply::{Outcome, Refusal, Reply};
use crate::request;
use crate::value::{Value, size_of};
use std::collections::BTreeMap;

/// Sets fields. Returns how many of them are new.
fn put(core: &mut Core, call: &mut Call<'_>, pairs: &[[Vec<u8>; 2]]) -> usize {
    let empty = Value::Hash(BTreeMap::new());
    let added = core.keys(call).change(call.key(), empty, |value| {
        let (mut added, mut growth) = (0, 0);
        if let Value::Hash(hash) = value {
            for [field, value] in pairs {
                growth += size_of(&[field, value]).cast_signed();
                match hash.insert(field.clone(), value.clone()) {
                    None => added += 1,
                    Some(before) => growth -= size_of(&[field, &before]).cast_signed(),
                }
            }
        }
        (added, growth)
    });
    call.changed = true;
    added
}

/// `HSET` and `HMSET`.
pub(super) fn hset(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let (pairs, rest) = call.rest(2).as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong_arity(&call.name()));
    }
    core.keys(call).hash(call.key())?;
    let added = put(core, call, pairs);
    Ok(match call.is(0, "hmset") {
        true => Reply::ok(),
        false => Reply::count(added),
    })
}

pub(super) fn hsetnx(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    if hash.is_some_and(|hash| hash.contains_key(call.word(2))) {
        return Ok(Reply::Int(0));
    }
    put(core, call, call.rest(2).as_chunks().0);
    Ok(Reply::Int(1))
}

pub(super) fn hincrby(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let by = call.integer(3)?;
    let hash = core.keys(call).hash(call.key())?;
    let now = match hash.and_then(|hash| hash.get(call.word(2))) {
        None => 0,
        Some(text) => {
            let number = request::integer(text);
            number.ok_or_else(|| Refusal::new("ERR hash value is not an integer"))?
        }
    };
    let sum = now.checked_add(by);
    let sum = sum.ok_or_else(|| Refusal::new("ERR increment or decrement would overflow"))?;
    let pair = [call.word(2).to_vec(), sum.to_string().into_bytes()];
    put(core, call, &[pair]);
    Ok(Reply::Int(sum))
}

pub(super) fn hdel(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    if core.keys(call).hash(call.key())?.is_none() {
        return Ok(Reply::Int(0));
    }
    let fields = call.rest(2);
    let empty = Value::Hash(BTreeMap::new());
    let gone = core.keys(call).change(call.key(), empty, |value| {
        let (mut gone, mut growth) = (0, 0);
        if let Value::Hash(hash) = value {
            for field in fields {
                if let Some(before) = hash.remove(field) {
                    gone += 1;
                    growth -= size_of(&[field, &before]).cast_signed();
                }
            }
        }
        (gone, growth)
    });
    call.changed |= gone > 0;
    Ok(Reply::count(gone))
}

pub(super) fn hget(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    Ok(Reply::maybe(
        hash.and_then(|hash| hash.get(call.word(2))).cloned(),
    ))
}

pub(super) fn hmget(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    let values = call.rest(2).iter();
    let values = values.map(|field| Reply::maybe(hash.and_then(|hash| hash.get(field)).cloned()));
    Ok(Reply::Array(values.collect()))
}

pub(super) fn hexists(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    let has = hash.is_some_and(|hash| hash.contains_key(call.word(2)));
    Ok(Reply::Int(has.into()))
}

pub(super) fn hlen(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    Ok(Reply::count(hash.map_or(0, BTreeMap::len)))
}

pub(super) fn hgetall(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    let pairs = hash.into_iter().flatten();
    let pairs =
        pairs.map(|(field, value)| (Reply::bulk(field.clone()), Reply::bulk(value.clone())));
    Ok(Reply::Map(pairs.collect()))
}

pub(super) fn hkeys(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    Ok(Reply::bulks(
        hash.into_iter().flat_map(BTreeMap::keys).cloned(),
    ))
}

pub(super) fn hvals(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let hash = core.keys(call).hash(call.key())?;
    Ok(Reply::bulks(
        hash.into_iter().flat_map(BTreeMap::values).cloned(),
    ))
}
