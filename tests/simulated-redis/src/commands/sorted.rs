//! Commands of sorted sets.

use super::{Call, lower};
use crate::core::Core;
use crate::reply::{Outcome, Refusal, Reply};
use crate::request;
use crate::value::{Sorted, Value, size_of};
use std::ops::Bound;

/// The options of a `ZADD`.
#[derive(Default)]
struct Options {
    only_new: bool,
    only_known: bool,
    only_greater: bool,
    only_less: bool,
    counts_changes: bool,
    increments: bool,
}

pub(super) fn zadd(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let mut options = Options::default();
    let mut at = 2;
    while at < call.words.len() {
        match lower(call.word(at)).as_str() {
            "nx" => options.only_new = true,
            "xx" => options.only_known = true,
            "gt" => options.only_greater = true,
            "lt" => options.only_less = true,
            "ch" => options.counts_changes = true,
            "incr" => options.increments = true,
            _ => break,
        }
        at += 1;
    }
    let (pairs, rest) = call.rest(at).as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Refusal::syntax());
    }
    if options.only_new && options.only_known {
        let text = "ERR XX and NX options at the same time are not compatible";
        return Err(Refusal::new(text));
    }
    if options.only_greater && (options.only_new || options.only_less)
        || options.only_less && options.only_new
    {
        let text = "ERR GT, LT, and/or NX options at the same time are not compatible";
        return Err(Refusal::new(text));
    }
    if options.increments && pairs.len() > 1 {
        let text = "ERR INCR option supports a single increment-element pair";
        return Err(Refusal::new(text));
    }
    let scored = pairs
        .iter()
        .map(|[score, member]| Some((request::float(score)?, member)));
    let scored: Option<Vec<_>> = scored.collect();
    let scored = scored.ok_or_else(|| Refusal::new("ERR value is not a valid float"))?;
    add(core, call, &options, &scored)
}

pub(super) fn zincrby(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let by = request::float(call.word(2));
    let by = by.ok_or_else(|| Refusal::new("ERR value is not a valid float"))?;
    let options = Options {
        increments: true,
        ..Options::default()
    };
    let member = call.word(3).to_vec();
    add(core, call, &options, &[(by, &member)])
}

fn add(
    core: &mut Core,
    call: &mut Call<'_>,
    options: &Options,
    scored: &[(f64, &Vec<u8>)],
) -> Outcome {
    core.keys(call).sorted(call.key())?;
    let empty = Value::Sorted(Sorted::default());
    let (mut added, mut updated) = (0, 0);
    let result = core.keys(call).change(call.key(), empty, |value| {
        let (mut last, mut growth) = (Ok(None), 0);
        let Value::Sorted(sorted) = value else {
            return (last, 0);
        };
        for (score, member) in scored {
            let before = sorted.score(member);
            let score = match before {
                Some(before) if options.increments => before + score,
                _ => *score,
            };
            if score.is_nan() {
                last = Err(Refusal::new("ERR resulting score is not a number (NaN)"));
                break;
            }
            let is_kept = match before {
                None => options.only_known,
                Some(before) => {
                    options.only_new
                        || options.only_greater && score <= before
                        || options.only_less && score >= before
                }
            };
            if is_kept {
                continue;
            }
            last = Ok(Some(score));
            match before {
                None => {
                    added += 1;
                    growth += size_of(&[member]).cast_signed();
                }
                Some(before) if before != score => updated += 1,
                Some(_) => continue,
            }
            sorted.insert(member, score);
        }
        (last, growth)
    });
    call.changed |= added + updated > 0;
    let last = result?;
    Ok(match options.increments {
        true => last.map_or(Reply::Null, Reply::Double),
        false if options.counts_changes => Reply::count(added + updated),
        false => Reply::count(added),
    })
}

pub(super) fn zrem(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    if core.keys(call).sorted(call.key())?.is_none() {
        return Ok(Reply::Int(0));
    }
    Ok(Reply::count(remove(core, call, call.rest(2))))
}

fn remove(core: &mut Core, call: &mut Call<'_>, members: &[Vec<u8>]) -> usize {
    let empty = Value::Sorted(Sorted::default());
    let gone = core.keys(call).change(call.key(), empty, |value| {
        let (mut gone, mut growth) = (0, 0);
        if let Value::Sorted(sorted) = value {
            for member in members {
                if sorted.remove(member) {
                    gone += 1;
                    growth -= size_of(&[member]).cast_signed();
                }
            }
        }
        (gone, growth)
    });
    call.changed |= gone > 0;
    gone
}

pub(super) fn zcard(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let sorted = core.keys(call).sorted(call.key())?;
    Ok(Reply::count(sorted.map_or(0, Sorted::len)))
}

pub(super) fn zscore(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let sorted = core.keys(call).sorted(call.key())?;
    let score = sorted.and_then(|sorted| sorted.score(call.word(2)));
    Ok(score.map_or(Reply::Null, Reply::Double))
}

/// The scores between two bounds.
struct Between(Bound<f64>, Bound<f64>);

impl Between {
    fn read(least: &[u8], most: &[u8]) -> Result<Self, Refusal> {
        let bound = |text: &[u8]| match text.strip_prefix(b"(") {
            Some(text) => request::float(text).map(Bound::Excluded),
            None => request::float(text).map(Bound::Included),
        };
        match (bound(least), bound(most)) {
            (Some(least), Some(most)) => Ok(Self(least, most)),
            _ => Err(Refusal::new("ERR min or max is not a float")),
        }
    }

    fn of<'a>(&self, sorted: Option<&'a Sorted>) -> impl Iterator<Item = (&'a [u8], f64)> {
        let all = sorted.into_iter().flat_map(Sorted::iter);
        all.filter(|(_, score)| {
            let is_enough = match self.0 {
                Bound::Included(least) => *score >= least,
                Bound::Excluded(least) => *score > least,
                Bound::Unbounded => true,
            };
            is_enough
                && match self.1 {
                    Bound::Included(most) => *score <= most,
                    Bound::Excluded(most) => *score < most,
                    Bound::Unbounded => true,
                }
        })
    }
}

pub(super) fn zcount(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let between = Between::read(call.word(2), call.word(3))?;
    let sorted = core.keys(call).sorted(call.key())?;
    Ok(Reply::count(between.of(sorted).count()))
}

pub(super) fn zremrangebyscore(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let between = Between::read(call.word(2), call.word(3))?;
    let sorted = core.keys(call).sorted(call.key())?;
    if sorted.is_none() {
        return Ok(Reply::Int(0));
    }
    let members: Vec<_> = between
        .of(sorted)
        .map(|(member, _)| member.to_vec())
        .collect();
    Ok(Reply::count(remove(core, call, &members)))
}

pub(super) fn zrangebyscore(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
    let mut at = 4;
    while at < call.words.len() {
        match lower(call.word(at)).as_str() {
            "withscores" => with_scores = true,
            "limit" if at + 2 < call.words.len() => {
                (offset, limit) = (call.integer(at + 1)?, call.integer(at + 2)?);
                at += 2;
            }
            _ => return Err(Refusal::syntax()),
        }
        at += 1;
    }
    let between = Between::read(call.word(2), call.word(3))?;
    let sorted = core.keys(call).sorted(call.key())?;
    let Ok(offset) = usize::try_from(offset) else {
        return Ok(Reply::Array(Vec::new()));
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = between.of(sorted).skip(offset).take(limit);
    Ok(members(found, with_scores))
}

/// `ZRANGE` with positions. It knows no other form.
pub(super) fn zrange(core: &mut Core, call: &mut Call<'_>) -> Outcome {
    let with_scores = match call.rest(4) {
        [] => false,
        [word] if super::is(word, "withscores") => true,
        _ => return Err(Refusal::syntax()),
    };
    let (first, last) = (call.integer(2)?, call.integer(3)?);
    let sorted = core.keys(call).sorted(call.key())?;
    let count = sorted.map_or(0, Sorted::len);
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at < 0 { at.saturating_add(count) } else { at };
    let (first, last) = (from_end(first).max(0), from_end(last));
    let taken = usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0);
    let all = sorted.into_iter().flat_map(Sorted::iter);
    let found = all.skip(usize::try_from(first).unwrap_or(0)).take(taken);
    Ok(members(found, with_scores))
}

fn members<'a>(found: impl Iterator<Item = (&'a [u8], f64)>, with_scores: bool) -> Reply {
    match with_scores {
        true => Reply::Scored(
            found
                .map(|(member, score)| (member.to_vec(), score))
                .collect(),
        ),
        false => Reply::bulks(found.map(|(member, _)| member)),
    }
}
