//! [`Storage`]: which storage do the facts of a cache belong to?

use crate::layout::Layout;
use crate::types::{Digest, Link, RepositoryName};
use md5::{Digest as _, Md5};
use std::fmt::Display;
use std::sync::Arc;

/// The longest name of a store that is noted as it is. A longer one is noted as its hash.
const LONGEST: usize = 96;

/// The storage whose facts a cache holds: an object store, with the layout of its paths.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    store: String,
    pub(crate) layout: Arc<dyn Layout>,
}

impl Storage {
    pub(crate) fn new(store: &dyn Display, layout: Arc<dyn Layout>) -> Self {
        let store = store.to_string();
        Self { store, layout }
    }

    /// Returns the note of the storage: the store's name, and a hash of the layout's paths. The
    /// note is the same on all nodes of a registry, whatever versions they have.
    pub(crate) fn note(&self) -> String {
        note(Some(&self.store), self.layout.as_ref())
    }

    /// Returns whether another store of this process is the same storage, as far as their names
    /// and layouts tell. Two stores of one process that differ in their folders are different.
    pub(crate) fn is(&self, other: &Self) -> bool {
        inner(&self.store) == inner(&other.store) && self.note() == other.note()
    }

    /// Returns the note of any storage with this layout.
    #[cfg(feature = "redis")]
    pub(crate) fn note_of_layout(&self) -> String {
        note(None, self.layout.as_ref())
    }
}

fn note(store: Option<&str>, layout: &dyn Layout) -> String {
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
        Some(store) => format!(
            "{}, layout {layout}",
            readable(&without_folder(inner(store)))
        ),
        None => format!("layout {layout}"),
    }
}

/// Returns a store's name without the limits of `object_store`'s own wrappers. They may differ
/// between the nodes of one registry.
fn inner(store: &str) -> &str {
    let mut kind = store;
    loop {
        let inner = |wrapper: &str| kind.strip_prefix(wrapper)?.strip_suffix(')');
        let limited = || Some(inner("LimitStore(")?.split_once(", ")?.1);
        let Some(inner) = limited()
            .or_else(|| inner("ThrottledStore("))
            .or_else(|| inner("ChunkedStore("))
        else {
            return kind;
        };
        kind = inner;
    }
}

/// Returns a store's name without the folder where a file system is mounted. It may differ between
/// the nodes of one registry.
fn without_folder(store: &str) -> String {
    const FOLDER: &str = "LocalFileSystem(";
    match store.split_once(FOLDER) {
        Some((before, rest)) => {
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            format!("{before}{FOLDER}){after}")
        }
        None => store.to_owned(),
    }
}

/// Returns the text itself if it is short and cannot contain a secret of an address, else its hash.
pub(crate) fn readable(text: &str) -> String {
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

    fn of(store: &impl std::fmt::Display) -> String {
        note(Some(&store.to_string()), &Distribution::default())
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
        all.extend(layouts.map(|layout| note(Some("InMemory"), layout)));
        all.extend(layouts.map(|layout| note(None, layout)));
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
            assert!(!note(Some(store), &Distribution::default()).contains("s3cret"));
        }
        let long = "x".repeat(10_000);
        assert!(note(Some(&long), &Distribution::default()).len() < 2 * LONGEST);
    }
}
