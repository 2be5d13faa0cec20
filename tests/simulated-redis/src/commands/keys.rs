//! Commands of keys of every type.

use super::strings::invalid_life;
use super::{Call, is, lower};
use crate::core::Core;
use crate::glob;
use crate::keyspace::Entry;
use crate::reply::{Outcome, Refusal, Reply};
use crate::request;

/// `DEL` and `UNLINK`.
pub(super) fn del(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let keys = core.keys(call);
    let gone = call.rest(1).iter().filter(|key| keys.remove(key).is_some());
    let gone = gone.count();
    call.changed |= gone > 0;
    Ok(Reply::count(gone))
}

pub(super) fn exists(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let keys = core.keys(call);
    let there = call.rest(1).iter().filter(|key| keys.get(key).is_some());
    Ok(Reply::count(there.count()))
}

pub(super) fn type_of(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let entry = core.keys(call).get(call.key());
    let name = entry.map_or("none", |entry| entry.value.type_name());
    Ok(Reply::Status(name.into()))
}

/// `EXPIRE`, `PEXPIRE`, `EXPIREAT` and `PEXPIREAT`.
pub(super) fn expire(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let condition = condition(call)?;
    let name = call.name();
    let number = call.integer(2)?;
    let unit = if name.starts_with('p') { 1 } else { 1000 };
    let from = if name.ends_with("at") {
        0
    } else {
        core.now_ms()
    };
    let at = number.checked_mul(unit);
    let at = at.and_then(|life| life.checked_add_unsigned(from));
    let at = at.ok_or_else(|| invalid_life(core, call))?;
    let now = core.now_ms();
    let keys = core.keys(call);
    let Some(entry) = keys.get(call.key()) else {
        return Ok(Reply::Int(0));
    };
    if !condition.holds(entry.expires, at) {
        return Ok(Reply::Int(0));
    }
    call.changed = true;
    match u64::try_from(at) {
        Ok(at) if at > now => {
            keys.expire(call.key(), Some(at));
        }
        _ => {
            keys.remove(call.key());
        }
    }
    Ok(Reply::Int(1))
}

/// When an `EXPIRE` may change the time that a key has.
#[derive(Default)]
struct Condition {
    only_without: bool,
    only_with: bool,
    only_later: bool,
    only_sooner: bool,
}

impl Condition {
    fn holds(&self, now: Option<u64>, at: i64) -> bool {
        let now = now.map(|now| i64::try_from(now).unwrap_or(i64::MAX));
        !(self.only_without && now.is_some()
            || self.only_with && now.is_none()
            || self.only_later && now.is_none_or(|now| at <= now)
            || self.only_sooner && now.is_some_and(|now| at >= now))
    }
}

fn condition(call: &Call<'_>) -> Result<Condition, Refusal> {
    let mut condition = Condition::default();
    for word in call.rest(3) {
        match lower(word).as_str() {
            "nx" => condition.only_without = true,
            "xx" => condition.only_with = true,
            "gt" => condition.only_later = true,
            "lt" => condition.only_sooner = true,
            _ => {
                let word = String::from_utf8_lossy(word);
                return Err(Refusal::new(format!("ERR Unsupported option {word}")));
            }
        }
    }
    if condition.only_without
        && (condition.only_with || condition.only_later || condition.only_sooner)
    {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(Refusal::new(text));
    }
    if condition.only_later && condition.only_sooner {
        let text = "ERR GT and LT options at the same time are not compatible";
        return Err(Refusal::new(text));
    }
    Ok(condition)
}

/// `TTL` and `PTTL`.
pub(super) fn ttl(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let now = core.now_ms();
    let left = match core.keys(call).get(call.key()) {
        None => return Ok(Reply::Int(-2)),
        Some(Entry { expires: None, .. }) => return Ok(Reply::Int(-1)),
        Some(Entry {
            expires: Some(at), ..
        }) => at.saturating_sub(now),
    };
    let left = match call.is(0, "ttl") {
        true => (left + 500) / 1000,
        false => left,
    };
    Ok(Reply::Int(i64::try_from(left).unwrap_or(i64::MAX)))
}

pub(super) fn persist(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let keys = core.keys(call);
    let expires = keys.get(call.key()).and_then(|entry| entry.expires);
    if expires.is_some() {
        keys.expire(call.key(), None);
        call.changed = true;
    }
    Ok(Reply::Int(expires.is_some().into()))
}

pub(super) fn dbsize(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    Ok(Reply::count(core.keys(call).len()))
}

/// `FLUSHDB` and `FLUSHALL`.
pub(super) fn flush(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let is_known = |word: &Vec<u8>| is(word, "sync") || is(word, "async");
    if call.words.len() > 2 || !call.rest(1).iter().all(is_known) {
        return Err(Refusal::syntax());
    }
    match call.is(0, "flushall") {
        true => core.databases.iter_mut().for_each(|keys| keys.clear()),
        false => core.keys(call).clear(),
    }
    call.changed = true;
    Ok(Reply::ok())
}

pub(super) fn keys(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let all = core.keys(call).iter().map(|(key, _)| key);
    let found = all.filter(|key| glob::matches(call.word(1), key));
    Ok(Reply::bulks(found))
}

pub(super) fn scan(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let cursor = std::str::from_utf8(call.word(1)).ok();
    let cursor = cursor.and_then(|cursor| cursor.parse().ok());
    let cursor: u64 = cursor.ok_or_else(|| Refusal::new("ERR invalid cursor"))?;
    let (mut count, mut pattern, mut type_name) = (10, None, None);
    let (options, rest) = call.rest(2).as_chunks::<2>();
    for [option, value] in options {
        match lower(option).as_str() {
            "count" => {
                let number = request::integer(value).ok_or_else(Refusal::not_an_integer)?;
                let number = usize::try_from(number).ok().filter(|number| *number > 0);
                count = number.ok_or_else(Refusal::syntax)?;
            }
            "match" => pattern = Some(value),
            "type" => type_name = Some(lower(value)),
            _ => return Err(Refusal::syntax()),
        }
    }
    if !rest.is_empty() {
        return Err(Refusal::syntax());
    }
    let (next, page) = core.keys(call).page(cursor, count);
    let found = page.into_iter().filter(|(key, entry)| {
        pattern.is_none_or(|pattern| glob::matches(pattern, key))
            && type_name
                .as_ref()
                .is_none_or(|name| entry.value.type_name() == name)
    });
    let found = Reply::bulks(found.map(|(key, _)| key));
    Ok(Reply::Array(vec![Reply::bulk(next.to_string()), found]))
}
