//! [`Keyspace`]: the keys of one database, their values and when they expire.

use crate::reply::Refusal;
use crate::value::{Fields, Sorted, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What a key costs beside its name and its value, roughly.
const KEY: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// In milliseconds since 1970.
    pub(crate) expires: Option<u64>,
}

/// The keys are in the order of their hashes, which `SCAN` uses for its cursors. The hash has no
/// random key, so the order is the same in each run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyspace {
    buckets: BTreeMap<u64, Vec<(Vec<u8>, Entry)>>,
    expiring: BTreeSet<(u64, Vec<u8>)>,
    count: usize,
    size: usize,
    /// The time of the current command, in milliseconds since 1970. A replica hides keys that have
    /// expired; only its primary removes them.
    now: u64,
}

impl Keyspace {
    pub(crate) const fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Returns how many bytes its keys are counted for.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn len(&self) -> usize {
        self.count - self.expired().count()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        let bucket = self.buckets.get(&hash(key))?;
        let (_, entry) = bucket.iter().find(|(name, _)| name == key)?;
        self.is_there(entry).then_some(entry)
    }

    fn is_there(&self, entry: &Entry) -> bool {
        entry.expires.is_none_or(|at| at >= self.now)
    }

    fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let bucket = self.buckets.get_mut(&hash(key))?;
        let (_, entry) = bucket.iter_mut().find(|(name, _)| name == key)?;
        Some(entry)
    }

    /// Puts an entry in the place of another one.
    pub(crate) fn insert(&mut self, key: &[u8], entry: Entry) {
        self.remove(key);
        if let Some(at) = entry.expires {
            self.expiring.insert((at, key.to_vec()));
        }
        self.count += 1;
        self.size += KEY + key.len() + entry.value.size();
        let bucket = self.buckets.entry(hash(key)).or_default();
        bucket.push((key.to_vec(), entry));
    }

    /// Removes a key. Returns its entry, unless the key had expired.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let hash = hash(key);
        let bucket = self.buckets.get_mut(&hash)?;
        let at = bucket.iter().position(|(name, _)| name == key)?;
        let (key, entry) = bucket.remove(at);
        if bucket.is_empty() {
            self.buckets.remove(&hash);
        }
        self.count -= 1;
        self.size -= KEY + key.len() + entry.value.size();
        if let Some(at) = entry.expires {
            self.expiring.remove(&(at, key));
        }
        self.is_there(&entry).then_some(entry)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self {
            now: self.now,
            ..Self::default()
        };
    }

    /// Sets when a key expires. Returns whether there is such a key.
    pub(crate) fn expire(&mut self, key: &[u8], expires: Option<u64>) -> bool {
        let Some(entry) = self.get_mut(key) else {
            return false;
        };
        let before = std::mem::replace(&mut entry.expires, expires);
        if let Some(at) = before {
            self.expiring.remove(&(at, key.to_vec()));
        }
        if let Some(at) = expires {
            self.expiring.insert((at, key.to_vec()));
        }
        true
    }

    /// Returns the keys that have expired.
    pub(crate) fn expired(&self) -> impl Iterator<Item = &[u8]> {
        let expired = self.expiring.iter();
        expired
            .take_while(|(at, _)| *at < self.now)
            .map(|(_, key)| key.as_slice())
    }

    /// Returns the keys that expire some time.
    pub(crate) fn volatile(&self) -> impl Iterator<Item = &[u8]> {
        self.expiring.iter().map(|(_, key)| key.as_slice())
    }

    /// Returns how many keys expire some time.
    pub(crate) fn volatile_count(&self) -> usize {
        self.expiring.len()
    }

    /// Returns all keys and their entries, in the order of `SCAN`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        let entries = self.buckets.values().flatten();
        entries
            .filter(|(_, entry)| self.is_there(entry))
            .map(|(key, entry)| (key.as_slice(), entry))
    }

    /// Returns about `count` keys, and the cursor of the next ones, which is 0 at the end.
    pub(crate) fn page(&self, cursor: u64, count: usize) -> (u64, Vec<(&[u8], &Entry)>) {
        let mut page = Vec::new();
        for (hash, bucket) in self.buckets.range(cursor..) {
            if page.len() >= count {
                return (*hash, page);
            }
            let there = bucket.iter().filter(|(_, entry)| self.is_there(entry));
            page.extend(there.map(|(key, entry)| (key.as_slice(), entry)));
        }
        (0, page)
    }

    pub(crate) fn string(&self, key: &[u8]) -> Result<Option<&Vec<u8>>, Refusal> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::wrong_type()),
        }
    }

    pub(crate) fn set(&self, key: &[u8]) -> Result<Option<&BTreeSet<Vec<u8>>>, Refusal> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Set(set)) => Ok(Some(set)),
            Some(_) => Err(Refusal::wrong_type()),
        }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> Result<Option<&Fields>, Refusal> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(Refusal::wrong_type()),
        }
    }

    pub(crate) fn sorted(&self, key: &[u8]) -> Result<Option<&Sorted>, Refusal> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Sorted(sorted)) => Ok(Some(sorted)),
            Some(_) => Err(Refusal::wrong_type()),
        }
    }

    /// Changes the value of a key, which is `empty` if there is no such key. The change returns by
    /// how many bytes the value has grown or shrunk. A value without members is removed.
    pub(crate) fn change<T>(
        &mut self,
        key: &[u8],
        empty: Value,
        change: impl FnOnce(&mut Value) -> (T, isize),
    ) -> T {
        if self.get(key).is_none() {
            let entry = Entry {
                value: empty,
                expires: None,
            };
            self.insert(key, entry);
        }
        let mut fresh = Value::String(Vec::new());
        let value = match self.get_mut(key) {
            Some(entry) => &mut entry.value,
            // Does not happen: the key was inserted above.
            None => &mut fresh,
        };
        let (result, growth) = change(value);
        let is_empty = value.is_empty();
        self.size = self.size.saturating_add_signed(growth);
        if is_empty {
            self.remove(key);
        }
        result
    }
}

/// Returns the FNV-1a hash of a key, mixed. It is never 0, and never negative as a signed number.
fn hash(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)) >> 1).max(1)
}
