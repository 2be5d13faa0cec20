//! [`Values`]: which version of an object has a read returned?
//!
//! Each creation gives its object a new version, the number in its entity tag. A later version has a
//! larger number. The content of an object is always the same, so the promise about deleted objects
//! does not speak of versions. While Redis is away a creation goes on, and other nodes may return an
//! older version until Redis is back. But a node returns no version that is older than one that it has
//! created, and at rest all nodes and Redis have the version of the store.

use histories::record::Fact;
use layercache::CacheStatus;
use std::sync::{Arc, Mutex};

/// Returns the version that an entity tag names.
pub(crate) fn version_of(e_tag: Option<&str>) -> Option<u64> {
    e_tag?.trim_matches('"').parse().ok()
}

/// A version that a read has returned.
#[derive(Debug, Clone, Copy)]
struct Seen {
    fact: Fact,
    version: u64,
    node: usize,
    begin: u64,
    status: CacheStatus,
}

/// A version that the store has had since this creation was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Created {
    pub(crate) fact: Fact,
    pub(crate) version: u64,
    /// The only node that must know of it, or `None` if all must.
    pub(crate) node: Option<usize>,
    pub(crate) end: u64,
}

/// All versions that reads have returned. A clone only increments a reference count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values(Arc<Mutex<Vec<Seen>>>);

impl Values {
    /// Records a version that a read has returned.
    pub(crate) fn read(
        &self,
        fact: Fact,
        version: u64,
        node: usize,
        begin: u64,
        status: CacheStatus,
    ) {
        self.0.lock().unwrap().push(Seen {
            fact,
            version,
            node,
            begin,
            status,
        });
    }

    /// Returns a sentence about each read that has returned a version from before one of these. The
    /// process of a node that has died knows of nothing from before.
    pub(crate) fn outdated(&self, created: &[Created], died: &[(usize, u64)]) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        let mut outdated = Vec::new();
        for read in seen.iter() {
            let is_newer = |it: &&Created| {
                it.fact == read.fact
                    && it.version > read.version
                    && it.end < read.begin
                    && it.node.is_none_or(|node| {
                        let between = it.end..read.begin;
                        let has_died =
                            |(who, at): &(usize, u64)| *who == node && between.contains(at);
                        node == read.node && !died.iter().any(has_died)
                    })
            };
            if let Some(newer) = created.iter().find(is_newer) {
                let Seen {
                    node,
                    status,
                    version,
                    ..
                } = read;
                outdated.push(format!(
                    "an older version is read from {status:?}\nnode {node} has returned version \
                     {version} of {:?} to a read of {} ms, after version {} of {} ms",
                    read.fact,
                    read.begin / 1_000_000,
                    newer.version,
                    newer.end / 1_000_000,
                ));
            }
        }
        outdated
    }
}
