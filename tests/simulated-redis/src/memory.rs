//! How much memory the keys may need, and which keys the server evicts.

use crate::core::Core;
use crate::reply::Refusal;
use crate::setup::Random;

/// What an empty server is counted for, as an empty Redis is.
const BASE: usize = 1 << 20;

/// What a full server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It refuses commands that may need memory.
    NoEviction,
    /// It removes any keys.
    AllKeys,
    /// It removes keys that expire some time.
    Volatile,
}

impl Policy {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "noeviction" => Some(Self::NoEviction),
            _ if name.starts_with("allkeys-") => Some(Self::AllKeys),
            _ if name.starts_with("volatile-") => Some(Self::Volatile),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeys => "allkeys-random",
            Self::Volatile => "volatile-random",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Memory {
    /// In bytes; 0 means that there is no limit.
    pub(crate) most: u64,
    pub(crate) policy: Policy,
    pub(crate) random: Random,
}

impl Memory {
    pub(crate) const fn new(random: Random) -> Self {
        Self {
            most: 0,
            policy: Policy::NoEviction,
            random,
        }
    }
}

impl Core {
    /// Returns how many bytes the server is counted for, roughly as Redis counts.
    pub(crate) fn used_memory(&self) -> usize {
        BASE + self.databases.iter().map(|keys| keys.size()).sum::<usize>()
    }

    fn is_over(&self) -> bool {
        self.memory.most > 0 && self.used_memory() as u64 > self.memory.most
    }

    /// Makes room if the server is full. Returns whether it is still full.
    pub(crate) fn make_room(&mut self) -> bool {
        // Only a primary evicts. It tells its replicas what it has evicted.
        while self.replication.is_primary() && self.is_over() {
            let Some((db, key)) = self.victim() else {
                return true;
            };
            self.remove_by_itself(db, &key);
        }
        false
    }

    fn victim(&mut self) -> Option<(usize, Vec<u8>)> {
        let policy = self.memory.policy;
        let counts = self.databases.iter().map(|keys| match policy {
            Policy::NoEviction => 0,
            Policy::AllKeys => keys.len(),
            Policy::Volatile => keys.volatile_count(),
        });
        let counts: Vec<_> = counts.collect();
        let all = counts.iter().sum::<usize>() as u64;
        if all == 0 {
            return None;
        }
        let mut at = usize::try_from(self.memory.random.next() % all).unwrap_or(0);
        for (db, count) in counts.into_iter().enumerate() {
            let Some(rest) = at.checked_sub(count) else {
                let keys = &self.databases[db];
                let key = match policy {
                    Policy::Volatile => keys.volatile().nth(at),
                    _ => keys.iter().nth(at).map(|(key, _)| key),
                };
                return key.map(|key| (db, key.to_vec()));
            };
            at = rest;
        }
        None
    }

    pub(crate) fn full(&self) -> Refusal {
        Refusal::new("OOM command not allowed when used memory > 'maxmemory'.")
    }
}
