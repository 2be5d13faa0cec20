//! The commands: their names, what Redis checks before it runs them, and what they do.

pub(crate) mod cluster;
mod connection;
mod hashes;
mod info;
mod keys;
mod pubsub;
pub(crate) mod scripting;
pub(crate) mod sentinel;
mod sets;
mod sorted;
mod strings;
mod table;

pub(crate) use table::lookup;

use crate::core::Core;
use crate::reply::{Outcome, Refusal};
use crate::request;
use crate::setup::Flavor;
use std::ops::{BitOr, Range};

/// What a command may do, and where it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const WRITE: Self = Self(1);
    /// A full server refuses it.
    pub(crate) const DENY_OOM: Self = Self(2);
    /// It runs while the server loads its data.
    pub(crate) const LOADING: Self = Self(4);
    /// No script may call it.
    pub(crate) const NO_SCRIPT: Self = Self(8);
    /// It needs no password.
    pub(crate) const NO_AUTH: Self = Self(16);
    /// It may come on a connection of version 2 that has subscriptions.
    pub(crate) const SUBSCRIBED: Self = Self(32);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which arguments of a command are keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    None,
    One,
    /// All arguments.
    All,
    /// Every second argument, from the first on.
    Pairs,
    /// As many as the second argument says, after it.
    Counted,
}

/// What a command does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run {
    Plain(fn(&mut Core, &mut Call<'_>) -> Outcome),
    /// `EVAL` or `EVALSHA`: the server runs it, because it has the interpreter.
    Script(scripting::Form),
}

#[derive(Debug)]
pub(crate) struct Spec {
    /// In lower case.
    pub(crate) name: &'static str,
    /// How many words it has. A negative number is the least number.
    pub(crate) arity: i8,
    pub(crate) flags: Flags,
    pub(crate) keys: Keys,
    pub(crate) run: Run,
}

impl Spec {
    /// Checks whether a call has as many words as the command needs.
    pub(crate) fn fits(&self, words: usize, flavor: Flavor) -> bool {
        // `NX`, `XX`, `GT` and `LT` came with Redis 7.
        let is_expiry = ["expire", "expireat", "pexpire", "pexpireat"].contains(&self.name);
        let arity = match flavor {
            Flavor::Redis6_2 if is_expiry => 3,
            _ => self.arity,
        };
        fits(arity, words)
    }

    /// Returns the keys among the words of a call.
    pub(crate) fn keys<'a>(&self, words: &'a [Vec<u8>]) -> Vec<&'a [u8]> {
        let (range, step) = match self.keys {
            Keys::None => (0..0, 1),
            Keys::One => (1..2, 1),
            Keys::All => (1..words.len(), 1),
            Keys::Pairs => (1..words.len(), 2),
            Keys::Counted => {
                let count = words.get(2).and_then(|count| request::integer(count));
                let count = count.and_then(|count| usize::try_from(count).ok());
                (3..count.unwrap_or(0).saturating_add(3), 1)
            }
        };
        let there: Range<usize> = range.start.min(words.len())..range.end.min(words.len());
        words[there]
            .iter()
            .step_by(step)
            .map(Vec::as_slice)
            .collect()
    }
}

/// A call of a command.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The name of the command, and then its arguments.
    pub(crate) words: &'a [Vec<u8>],
    pub(crate) client: u64,
    pub(crate) db: usize,
    /// Whether the call has changed any data.
    pub(crate) changed: bool,
}

impl<'a> Call<'a> {
    /// Returns an argument, which is empty if it is missing.
    pub(crate) fn word(&self, at: usize) -> &'a [u8] {
        self.words.get(at).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn key(&self) -> &'a [u8] {
        self.word(1)
    }

    /// Returns the arguments from this one on.
    pub(crate) fn rest(&self, from: usize) -> &'a [Vec<u8>] {
        self.words.get(from..).unwrap_or_default()
    }

    pub(crate) fn integer(&self, at: usize) -> Result<i64, Refusal> {
        request::integer(self.word(at)).ok_or_else(Refusal::not_an_integer)
    }

    pub(crate) fn is(&self, at: usize, word: &str) -> bool {
        is(self.word(at), word)
    }

    pub(crate) fn name(&self) -> String {
        lower(self.word(0))
    }
}

/// Checks whether a call has as many words as the command needs.
pub(crate) fn fits(arity: i8, words: usize) -> bool {
    let least = usize::from(arity.unsigned_abs());
    words == least || (arity < 0 && words > least)
}

pub(crate) fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

pub(crate) fn lower(text: &[u8]) -> String {
    String::from_utf8_lossy(text).to_lowercase()
}

pub(crate) fn wrong_arity(name: &str) -> Refusal {
    Refusal::new(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}
