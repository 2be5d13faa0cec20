//! Checks that every future of the public API can be spawned, because a server needs that.

use layercache::{Blobs, CachedStore, Digest, Freshness, Repository, RepositoryName, StoreBackend};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;

const fn is_send<T: Send>(_: &T) {}

type Backend = StoreBackend;

#[test]
fn futures_are_send() {
    let _ = (of_store, of_repository, of_blobs);
}

fn of_store(store: &CachedStore<InMemory>, path: &Path) {
    is_send(store);
    is_send(&store.get(path));
    is_send(&store.head(path));
    is_send(&store.put(path, "x".into()));
    is_send(&store.put_multipart(path));
    is_send(&store.copy(path, path));
    is_send(&store.rename(path, path));
    is_send(&store.delete(path));
}

fn of_repository(repository: &Repository<Backend>, name: &RepositoryName, digests: &[Digest]) {
    let digest = &digests[0];
    is_send(repository);
    is_send(&repository.stat(digest, Freshness::Cached));
    is_send(&repository.stat_many(digests, Freshness::Cached));
    is_send(&repository.contains(digest, Freshness::Cached));
    is_send(&repository.link(digest));
    is_send(&repository.unlink(digest));
    is_send(&repository.mount(name, digest));
}

fn of_blobs(blobs: &Blobs<Backend>, digest: &Digest) {
    is_send(blobs);
    is_send(&blobs.stat(digest, Freshness::Cached));
    is_send(&blobs.delete(digest));
}
