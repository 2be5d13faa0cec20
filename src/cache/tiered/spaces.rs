//! How several stores share one cache: each has a name space of its own.

use super::{Shared, TieredCache};
use crate::cache::storage::Storage;
use crate::types::Error;
use crate::types::namespace::Namespace;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The name spaces of a cache that stores of this process use.
#[derive(Debug, Default)]
pub(super) struct Spaces(Mutex<HashMap<Namespace, Space>>);

#[derive(Debug)]
struct Space {
    /// The storage of the stores; `None` for backends of the application's own.
    storage: Option<Storage>,
    cache: Weak<TieredCache>,
}

/// The error for a name space that another store of this process uses.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name:?} is the name space of another storage, {there}, and this one is {ours}; give each \
     storage a name space of its own"
)]
struct Taken {
    name: String,
    there: String,
    ours: String,
}

impl Space {
    fn is_of(&self, storage: Option<&Storage>) -> bool {
        match (&self.storage, storage) {
            (Some(one), Some(other)) => one.is(other),
            // Nothing tells two such backends apart.
            (None, None) => true,
            _ => false,
        }
    }
}

fn described(storage: Option<&Storage>) -> String {
    storage.map_or_else(|| "an own backend".to_owned(), Storage::note)
}

impl TieredCache {
    /// Returns the part of this cache that belongs to one name space. It shares this cache's
    /// capacity, connections and node. All stores of the process that use the same name space share
    /// the same part, with its retry queue.
    ///
    /// # Errors
    /// [`Error::Setting`] if a store of this process uses the name space for another storage.
    pub(crate) fn in_namespace(
        &self,
        name: &Namespace,
        storage: Option<&Storage>,
    ) -> Result<Arc<Self>, Error> {
        // The map is consistent between its updates, even after a panic.
        let mut spaces = self.spaces.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = spaces.get(name);
        if let Some((space, cache)) = known.and_then(|space| Some((space, space.cache.upgrade()?)))
        {
            return match space.is_of(storage) {
                true => Ok(cache),
                false => {
                    let source = Box::new(Taken {
                        name: name.as_str().to_owned(),
                        there: described(space.storage.as_ref()),
                        ours: described(storage),
                    });
                    let setting = "namespace";
                    Err(Error::Setting { setting, source })
                }
            };
        }
        // Seldom, so that many name spaces cost little each.
        if spaces.len().is_power_of_two() {
            spaces.retain(|_, space| space.cache.strong_count() > 0);
        }
        let cache = Arc::new(self.new_space(name, storage));
        let space = Space {
            storage: storage.cloned(),
            cache: Arc::downgrade(&cache),
        };
        spaces.insert(name.clone(), space);
        Ok(cache)
    }

    fn new_space(&self, name: &Namespace, storage: Option<&Storage>) -> Self {
        let memory = self.memory.in_new_space();
        let shared = self.shared.as_ref().map(|shared| {
            let tier = shared.tier.in_namespace(name, storage);
            Shared::new(tier, shared.settings, memory.coherence())
        });
        Self {
            shared,
            is_space: true,
            // The stripes that they fence are those of all name spaces, so any of them may have to
            // end a fence.
            ..Self::with_memory(memory, Arc::clone(&self.expiring), Arc::clone(&self.parts))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::memory::MemoryConfig;
    use crate::coherence::change::{ChangeKind, Outcome};
    use crate::types::Digest;
    use crate::types::link::Key;
    use crate::types::question::Question;
    use std::time::Duration;
    use tokio::time::advance;

    const DIGEST: Digest = Digest::Sha256([1; 32]);

    fn two_spaces() -> [Arc<TieredCache>; 2] {
        let cache = TieredCache::in_memory(MemoryConfig::default());
        ["a", "b"].map(|name| {
            let name = Namespace::new("namespace", name).unwrap();
            cache.in_namespace(&name, None).unwrap()
        })
    }

    fn may_fill(cache: &TieredCache) -> bool {
        !cache.read_stamps(&Question::Meta(DIGEST)).is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn the_fence_of_a_name_space_that_is_gone_still_ends() {
        let [a, b] = two_spaces();
        assert!(may_fill(&a) && may_fill(&b));
        let unknown = async { ((), Outcome::Unknown) };
        let keys = vec![Key::Meta(DIGEST)];
        a.change(ChangeKind::Removal, keys, None, unknown)
            .await
            .unwrap();
        drop(a);
        advance(Duration::from_secs(20)).await;
        assert!(!may_fill(&b), "the name spaces share the stripe");
        advance(Duration::from_secs(20)).await;
        assert!(may_fill(&b));
    }

    #[tokio::test(start_paused = true)]
    async fn the_fence_of_a_signed_url_outlives_its_name_space_and_ends_with_the_url() {
        let [a, b] = two_spaces();
        let (keys, time) = (vec![Key::Meta(DIGEST)], Duration::from_secs(100));
        a.open_signed(ChangeKind::Removal, keys, time)
            .await
            .unwrap();
        drop(a);
        advance(Duration::from_secs(90)).await;
        assert!(!may_fill(&b), "the name spaces share the stripe");
        advance(Duration::from_secs(20)).await;
        assert!(may_fill(&b));
    }
}
