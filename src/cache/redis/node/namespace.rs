//! Which storage the facts in a name space of Redis belong to.
//!
//! If the nodes of two stores shared a name space, each store would get the answers of the other: a
//! fact says which repository has a blob, but not in which bucket. So before a node uses a Redis,
//! it notes there what it caches, beside the set of nodes. A node that finds another note does not
//! use that Redis.

use crate::cache::redis::net::connect_error::ConnectError;
use crate::layout::Layout;
use crate::telemetry::metrics::foreign_storage;
use crate::types::{Digest, Link, RepositoryName};
use ::metrics::Counter;
use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisResult, Value, cmd};
use md5::{Digest as _, Md5};
use std::sync::atomic::{AtomicBool, Ordering};

/// Notes the storage if nothing is noted yet, and returns the note. The script removes something
/// first, because a full Redis refuses a `SET` otherwise. A value of another type is replaced.
pub(crate) const CLAIM: &str = "
local there = redis.pcall('GET', KEYS[1])
if type(there) == 'string' then return there end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
";

/// The longest name of a store that is noted as it is. A longer one is noted as its hash.
const LONGEST: usize = 96;

/// A node's claim on its name space.
#[derive(Debug)]
pub(crate) struct NamespaceClaim {
    storage: String,
    /// Whether the log says already that another storage is noted.
    is_told: AtomicBool,
    refused: Counter,
}

impl NamespaceClaim {
    pub(crate) fn new(storage: String) -> Self {
        Self {
            storage,
            is_told: AtomicBool::new(false),
            refused: foreign_storage(),
        }
    }

    /// Notes this node's storage in Redis.
    ///
    /// # Errors
    /// Returns an error if another storage is noted, or if nothing can be noted.
    pub(crate) async fn stake(
        &self,
        connection: &mut MultiplexedConnection,
        nodes: &str,
    ) -> Result<(), ConnectError> {
        let key = format!("{nodes}::storage");
        let mut claim = cmd("EVAL");
        claim.arg(CLAIM).arg(1).arg(&key).arg(&self.storage);
        let there: RedisResult<Value> = claim.query_async(connection).await;
        let there = match there.map_err(ConnectError::Connecting)? {
            Value::BulkString(there) if there == self.storage.as_bytes() => {
                self.is_told.store(false, Ordering::Relaxed);
                return Ok(());
            }
            Value::BulkString(there) => readable(&String::from_utf8_lossy(&there)),
            _ => readable(""),
        };
        self.refused.increment(1);
        let ours = self.storage.clone();
        let error = ConnectError::Foreign { key, there, ours };
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "this Redis is not used");
        }
        Err(error)
    }
}

/// Returns the note of a storage: the store's name, if it counts, and a hash of the layout's paths.
/// The note is the same on all nodes of a registry, whatever versions they have.
pub(crate) fn storage(store: Option<&str>, layout: &dyn Layout) -> String {
    let any = Digest::Sha256([0; 32]);
    let mut paths = vec![layout.blob_path(&any)];
    if let Ok(name) = "a".parse::<RepositoryName>() {
        paths.push(layout.link_path(&Link::layer(name.clone(), any)));
        paths.push(layout.link_path(&Link::manifest(name, any)));
    }
    let paths: Vec<_> = paths
        .into_iter()
        .map(|path| path.map(String::from).unwrap_or_default())
        .collect();
    let layout = hash(&paths.join("\n"));
    match store {
        Some(store) => format!("{}, layout {layout}", readable(&kind(store))),
        None => format!("layout {layout}"),
    }
}

/// Returns a store's name without what may differ between the nodes of one registry: the limits of
/// `object_store`'s own wrappers, and the folder where a file system is mounted.
fn kind(store: &str) -> String {
    let mut kind = store;
    loop {
        let inner = |wrapper: &str| kind.strip_prefix(wrapper)?.strip_suffix(')');
        let limited = || Some(inner("LimitStore(")?.split_once(", ")?.1);
        let Some(inner) = limited()
            .or_else(|| inner("ThrottledStore("))
            .or_else(|| inner("ChunkedStore("))
        else {
            break;
        };
        kind = inner;
    }
    const FOLDER: &str = "LocalFileSystem(";
    match kind.split_once(FOLDER) {
        Some((before, rest)) => {
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            format!("{before}{FOLDER}){after}")
        }
        None => kind.to_owned(),
    }
}

/// Returns the text itself if it is short and cannot contain a secret of an address, else its hash.
fn readable(text: &str) -> String {
    let is_plain = |byte: u8| byte == b' ' || (byte.is_ascii_graphic() && !b"@?=%".contains(&byte));
    match text.len() <= LONGEST && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => hash(text),
    }
}

fn hash(text: &str) -> String {
    let hash = Md5::digest(text);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Distribution, OciImages, Template};
    use object_store::chunked::ChunkedStore;
    use object_store::limit::LimitStore;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::prefix::PrefixStore;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use std::sync::Arc;

    fn of(store: &impl std::fmt::Display) -> String {
        storage(Some(&store.to_string()), &Distribution::default())
    }

    #[test]
    fn nodes_of_one_registry_note_the_same_text() {
        let throttled = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
        assert_eq!(of(&InMemory::new()), of(&throttled));
        assert_eq!(of(&InMemory::new()), of(&LimitStore::new(throttled, 7)));
        let chunked = ChunkedStore::new(Arc::new(InMemory::new()), 7);
        assert_eq!(of(&InMemory::new()), of(&chunked));
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [first, second] = folders
            .each_ref()
            .map(|folder| LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        assert_eq!(of(&first), of(&LimitStore::new(second, 8)));
        assert!(of(&first).starts_with("LocalFileSystem(), layout "));
        let tenant: Arc<dyn object_store::ObjectStore> =
            Arc::new(PrefixStore::new(InMemory::new(), "a"));
        assert_eq!(of(&tenant), of(&PrefixStore::new(first, "a")));
    }

    #[test]
    fn nodes_of_different_registries_note_different_texts() {
        let [a, b] = ["a", "b"].map(|tenant| PrefixStore::new(InMemory::new(), tenant));
        let mut all = vec![of(&a), of(&b), of(&InMemory::new())];
        let template: Template = "oci-blobs/{digest}".parse().unwrap();
        let layouts: [&dyn Layout; 4] = [
            &Distribution::new(Path::from("elsewhere")),
            &OciImages::default(),
            &OciImages::new(Path::from("zot")),
            &template,
        ];
        all.extend(layouts.map(|layout| storage(Some("InMemory"), layout)));
        all.extend(layouts.map(|layout| storage(None, layout)));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn the_note_has_no_secret_and_is_short() {
        for store in [
            "Http(https://me:s3cret@host)",
            "Az(https://host?sig=s3cret)",
        ] {
            assert!(!storage(Some(store), &Distribution::default()).contains("s3cret"));
        }
        let long = "x".repeat(10_000);
        assert!(storage(Some(&long), &Distribution::default()).len() < 2 * LONGEST);
    }
}
