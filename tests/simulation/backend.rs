//! The backend, without a node and without the network in between.

use super::traffic::{REPOSITORIES, digest, path};
use super::values::version_of;
use super::world::World;
use histories::record::Fact;
use object_store::ObjectStoreExt;
use object_store::path::Path;

impl World {
    /// Returns all facts that the clients' requests are about.
    pub(crate) fn facts(&self) -> impl Iterator<Item = Fact> + use<> {
        (0..self.blobs).flat_map(|blob| {
            let links = (0..REPOSITORIES).map(move |repository| Fact::Link(repository, blob));
            links.chain([Fact::Blob(blob)])
        })
    }

    pub(crate) fn fact_at(&self, at: &Path) -> Option<Fact> {
        self.facts().find(|fact| path(*fact) == *at)
    }

    /// Puts an object straight into the backend.
    pub(crate) fn put_now(&mut self, fact: Fact) {
        let path = path(fact);
        let content = match fact {
            Fact::Blob(_) => "content".to_owned(),
            Fact::Link(_, blob) => digest(blob).to_string(),
        };
        let put = self.backend.put(&path, content.into());
        let put = futures::FutureExt::now_or_never(put);
        put.expect("memory answers at once")
            .expect("memory takes all");
    }

    /// Deletes an object straight from the backend.
    pub(crate) fn delete_now(&mut self, fact: Fact) {
        let path = path(fact);
        let delete = self.backend.delete(&path);
        let delete = futures::FutureExt::now_or_never(delete);
        // There may be no such object.
        let _ = delete.expect("memory answers at once");
    }

    /// Returns whether the backend has this object.
    pub(crate) fn has(&self, fact: Fact) -> bool {
        self.version(fact).is_some()
    }

    /// Returns the version of an object in the backend, if there is the object.
    pub(crate) fn version(&self, fact: Fact) -> Option<u64> {
        let path = path(fact);
        let head = self.backend.head(&path);
        let head = futures::FutureExt::now_or_never(head);
        let meta = head.expect("memory answers at once").ok()?;
        version_of(meta.e_tag.as_deref())
    }
}
