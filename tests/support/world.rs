//! A cached store over a counted one, for each layout.

use super::recording::Recording;
use layercache::layout::{Distribution, Layout, OciImages, Template};
use layercache::{CachePolicy, CacheStatus, CachedStore, Digest, Link};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Extensions, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};

pub type Bare = Recording<InMemory>;

pub struct World {
    pub store: CachedStore<Bare>,
    pub bare: Bare,
    /// A path that the layout takes for a blob, one that it takes for a link if the layout has
    /// links, and one that has no meaning in the layout.
    pub blob: Path,
    pub link: Option<Path>,
    pub other: Path,
    pub digest: Digest,
}

pub fn world(layout: impl Layout) -> World {
    let digest = Digest::Sha256([0xab; 32]);
    let link = layout.link_path(&Link::layer("library/alpine".parse().unwrap(), digest));
    let blob = layout.blob_path(&digest);
    let (blob, link) = match blob {
        Some(blob) => (blob, link),
        None => (link.unwrap(), None),
    };
    let bare = Recording::new(InMemory::new());
    World {
        store: CachedStore::builder(bare.clone())
            .layout(layout)
            .build()
            .expect("settings that work"),
        bare,
        blob,
        link,
        other: Path::from("elsewhere/object"),
        digest,
    }
}

pub fn worlds() -> [World; 3] {
    let template: Template = "oci-blobs/{digest}".parse().unwrap();
    [
        world(Distribution::default()),
        world(OciImages::default()),
        world(template),
    ]
}

pub fn head() -> GetOptions {
    GetOptions::new().with_head(true)
}

pub fn with_policy(options: GetOptions, policy: CachePolicy) -> GetOptions {
    let mut extensions = Extensions::new();
    extensions.insert(policy);
    options.with_extensions(extensions)
}

pub fn status(result: &GetResult) -> CacheStatus {
    *result.extensions.get().expect("a status in every result")
}

impl World {
    pub async fn head(&self, path: &Path) -> (ObjectMeta, CacheStatus) {
        let result = self.store.get_opts(path, head()).await.unwrap();
        (result.meta.clone(), status(&result))
    }

    /// Asks until memory answers, because a fill runs after the answer that caused it.
    pub async fn warm(&self, path: &Path) {
        for _ in 0..100 {
            if self.head(path).await.1 == CacheStatus::Memory {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{path} is never answered from memory");
    }

    /// Puts the blob through the cache, and asks for it until memory answers.
    pub async fn warm_blob(&self) {
        self.store.put(&self.blob, "content".into()).await.unwrap();
        self.warm(&self.blob).await;
    }

    /// Overwrites the blob in the store without telling the cache.
    pub async fn change_behind_the_cache(&self) {
        let put = self.bare.put(&self.blob, "changed behind the cache".into());
        put.await.unwrap();
    }

    /// Checks that the cached answer for `path` equals the bare store's answer.
    pub async fn assert_right(&self, path: &Path, why: &str) {
        let cached = self.store.head(path).await.ok();
        let bare = self.bare.inner().head(path).await.ok();
        assert_eq!(cached, bare, "{path} after {why}");
    }

    pub async fn warm_if_cached(&self, path: &Path) {
        if path.prefix_matches(&Path::from("docker")) {
            self.warm(path).await;
        }
    }
}
