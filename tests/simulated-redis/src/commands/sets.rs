//! Commands of sets.

use super::Call;
use crate::core::Core;
use crate::reply::{Outcome, Reply};
use crate::value::{Value, size_of};
use std::collections::BTreeSet;

pub(super) fn sadd(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    core.keys(call).set(call.key())?;
    let members = call.rest(2);
    let empty = Value::Set(BTreeSet::new());
    let added = core.keys(call).change(call.key(), empty, |value| {
        let (mut added, mut growth) = (0, 0);
        if let Value::Set(set) = value {
            for member in members {
                if set.insert(member.clone()) {
                    added += 1;
                    growth += size_of(&[member]).cast_signed();
                }
            }
        }
        (added, growth)
    });
    call.changed |= added > 0;
    Ok(Reply::count(added))
}

pub(super) fn srem(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    if core.keys(call).set(call.key())?.is_none() {
        return Ok(Reply::Int(0));
    }
    let members = call.rest(2);
    let empty = Value::Set(BTreeSet::new());
    let gone = core.keys(call).change(call.key(), empty, |value| {
        let (mut gone, mut growth) = (0, 0);
        if let Value::Set(set) = value {
            for member in members {
                if set.remove(member) {
                    gone += 1;
                    growth -= size_of(&[member]).cast_signed();
                }
            }
        }
        (gone, growth)
    });
    call.changed |= gone > 0;
    Ok(Reply::count(gone))
}

pub(super) fn scard(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let set = core.keys(call).set(call.key())?;
    Ok(Reply::count(set.map_or(0, BTreeSet::len)))
}

pub(super) fn smembers(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let set = core.keys(call).set(call.key())?;
    let members = set.into_iter().flatten();
    Ok(Reply::Set(
        members.map(|member| Reply::bulk(member.clone())).collect(),
    ))
}

pub(super) fn sismember(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let set = core.keys(call).set(call.key())?;
    let has = set.is_some_and(|set| set.contains(call.word(2)));
    Ok(Reply::Int(has.into()))
}

pub(super) fn smismember(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let set = core.keys(call).set(call.key())?;
    let has = |member: &Vec<u8>| set.is_some_and(|set| set.contains(member));
    let each = call
        .rest(2)
        .iter()
        .map(|member| Reply::Int(has(member).into()));
    Ok(Reply::Array(each.collect()))
}
