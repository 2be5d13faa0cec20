//! What does the storage say about a cached fact?

use super::judge::{Place, Stored, StoredMembership};
use super::list::{LISTED_AT_ONCE, worth_listing};
use futures::StreamExt;
use layercache::internals::has_text_of;
use layercache::layout::{Layout, Meaning};
use layercache::{Digest, Error, Link, LinkKind, RepositoryName};
use moka::sync::Cache;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Number of blobs whose presence is kept in memory, because many repositories share the same
/// layers.
const REMEMBERED: u64 = 16 * 1024;

/// Maximum length of a link. A longer object is not a link.
const LONGEST_LINK: u64 = 1024;

/// Number of links that are tried to find out whether a list proves what links hold.
const TRIES: u64 = 50;

/// Asks the storage for an audit.
#[derive(Debug)]
pub(super) struct Storage<S> {
    store: S,
    layout: Arc<dyn Layout>,
    /// Whether repositories share the content of blobs.
    shares: bool,
    there: Cache<Digest, Stored>,
    /// Whether a list may prove what links hold. It does if an entity tag is the MD5 of a small
    /// object.
    lists_prove: AtomicBool,
    questions: AtomicU64,
    lists: AtomicU64,
}

/// The links of one kind of one repository that a list has proved.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) kind: LinkKind,
    pub(super) repository: RepositoryName,
    digests: HashSet<Digest>,
}

impl Proven {
    pub(super) fn is_of(&self, link: &Link) -> bool {
        self.kind == link.kind && self.repository == link.repository
    }

    fn has(&self, link: &Link) -> bool {
        self.is_of(link) && self.digests.contains(&link.digest)
    }
}

/// How a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// An answer from earlier in this audit, of this or another repository, is good enough.
    First,
    /// The storage must be asked for the object itself.
    Second,
}

impl<S: ObjectStore> Storage<S> {
    pub(super) fn new(store: S, layout: Arc<dyn Layout>) -> Self {
        let any = Digest::Sha256([0; 32]);
        Self {
            store,
            shares: layout.blob_path(&any).is_some(),
            layout,
            there: Cache::new(REMEMBERED),
            lists_prove: AtomicBool::new(true),
            questions: AtomicU64::new(0),
            lists: AtomicU64::new(0),
        }
    }

    /// Returns the number of objects that were asked for and of pages that were listed.
    pub(super) fn asked(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.questions), read(&self.lists))
    }

    /// Returns whether the repository has the blob, and whether the blob's content exists.
    pub(super) async fn membership(
        &self,
        link: &Link,
        proven: Option<&Proven>,
        look: Look,
    ) -> Result<StoredMembership, Error> {
        if let (true, Some(proven)) = (look == Look::First, proven)
            && proven.has(link)
        {
            return self.linked(&link.digest, look).await;
        }
        let first = self.link(link, look).await?;
        if first != StoredMembership::Absent || link.kind != LinkKind::Layer {
            return Ok(first);
        }
        // A Go registry of version 3 keeps the digests of manifests in the same set.
        let manifest = Link::manifest(link.repository.clone(), link.digest);
        match self.layout.link_path(&manifest) != self.layout.link_path(link) {
            true => Ok(match self.link(&manifest, look).await? {
                StoredMembership::Unknown => StoredMembership::Absent,
                other => other,
            }),
            false => Ok(StoredMembership::Absent),
        }
    }

    async fn link(&self, link: &Link, look: Look) -> Result<StoredMembership, Error> {
        let Some(path) = self.layout.link_path(link) else {
            return Ok(StoredMembership::Unknown);
        };
        if !self.shares {
            return Ok(match self.head(&path).await? {
                Some(_) => StoredMembership::Linked { has_content: true },
                None => StoredMembership::Absent,
            });
        }
        let Some(content) = self.read(&path).await? else {
            return Ok(StoredMembership::Absent);
        };
        match content.trim().parse::<Digest>() {
            Ok(digest) if digest == link.digest => self.linked(&digest, look).await,
            // A Go registry may know a blob by a second digest.
            Ok(other @ Digest::Sha256(_)) if matches!(link.digest, Digest::Sha512(_)) => {
                self.linked(&other, look).await
            }
            _ => Ok(StoredMembership::Broken(content)),
        }
    }

    async fn linked(&self, digest: &Digest, look: Look) -> Result<StoredMembership, Error> {
        let has_content = match self.layout.blob_path(digest) {
            Some(path) => self.stored(digest, &path, look).await?.is_some(),
            None => true,
        };
        Ok(StoredMembership::Linked { has_content })
    }

    /// Returns the place of a blob whose hash names this path, or no path.
    pub(super) fn place(&self, digest: &Digest, path: Option<&str>) -> Place {
        if let Some(own) = self.layout.blob_path(digest) {
            return Place::At(own.into());
        }
        let meaning = path
            .and_then(|path| Path::parse(path).ok())
            .and_then(|path| self.layout.meaning(&path));
        match meaning {
            Some(Meaning::RepositoryBlob(link)) if link.digest == *digest => Place::Cached,
            _ => Place::Nowhere,
        }
    }

    /// Returns the place of a repository's own object; `Nowhere` if repositories share the content
    /// of blobs.
    pub(super) fn place_of(&self, link: &Link) -> Place {
        match self.layout.link_path(link) {
            Some(path) if !self.shares => Place::At(path.into()),
            _ => Place::Nowhere,
        }
    }

    /// Returns the storage's description of a blob at this place.
    pub(super) async fn blob(
        &self,
        digest: &Digest,
        place: &Place,
        path: Option<&str>,
        look: Look,
    ) -> Result<Option<Stored>, Error> {
        let path = match (place, path) {
            (Place::At(path), _) => path,
            (Place::Cached, Some(path)) => path,
            (Place::Cached, None) | (Place::Nowhere, _) => return Ok(None),
        };
        match Path::parse(path) {
            // If repositories share no content, the digest alone does not identify an object, so
            // the answer is not kept.
            Ok(path) if self.shares => self.stored(digest, &path, look).await,
            Ok(path) => self.head(&path).await,
            Err(_) => Ok(None),
        }
    }

    async fn stored(
        &self,
        digest: &Digest,
        path: &Path,
        look: Look,
    ) -> Result<Option<Stored>, Error> {
        if let (Look::First, Some(stored)) = (look, self.there.get(digest)) {
            return Ok(Some(stored));
        }
        let stored = self.head(path).await?;
        match &stored {
            Some(stored) => self.there.insert(*digest, stored.clone()),
            None => self.there.invalidate(digest),
        }
        Ok(stored)
    }

    async fn head(&self, path: &Path) -> Result<Option<Stored>, Error> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        match self.store.head(path).await {
            Ok(meta) => Ok(Some(meta.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(backend_failed(error)),
        }
    }

    /// Returns the text of a link. Returns a placeholder with the size if the object is too long.
    async fn read(&self, path: &Path) -> Result<Option<String>, Error> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let result = match self.store.get_opts(path, GetOptions::new()).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(backend_failed(error)),
        };
        if result.meta.size > LONGEST_LINK {
            return Ok(Some(format!("({} bytes)", result.meta.size)));
        }
        match result.bytes().await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(backend_failed(error)),
        }
    }

    /// Lists a repository's links and returns what the list proves, if that is cheaper than to read
    /// the cached ones.
    pub(super) async fn list(&self, any: &Link, cached: u64) -> Result<Option<Proven>, Error> {
        let is_worth = self.lists_prove.load(Ordering::Relaxed);
        let (true, Some(most)) = (is_worth, worth_listing(cached)) else {
            return Ok(None);
        };
        let Some(folder) = self.folder(any) else {
            return Ok(None);
        };
        let mut proven = Proven {
            kind: any.kind,
            repository: any.repository.clone(),
            digests: HashSet::new(),
        };
        let mut objects = self.store.list(Some(&folder));
        let mut seen = 0;
        while seen < most
            && let Some(object) = objects.next().await
        {
            let object = object.map_err(backend_failed)?;
            if seen.is_multiple_of(LISTED_AT_ONCE) {
                self.lists.fetch_add(1, Ordering::Relaxed);
            }
            seen += 1;
            if let Some(digest) = self.proved(&proven, &object) {
                proven.digests.insert(digest);
            }
            if seen == TRIES && proven.digests.is_empty() {
                self.lists_prove.store(false, Ordering::Relaxed);
                return Ok(None);
            }
        }
        Ok(Some(proven))
    }

    /// Returns the blob that a listed object proves to be in that repository.
    fn proved(&self, of: &Proven, object: &ObjectMeta) -> Option<Digest> {
        match self.layout.meaning(&object.location)? {
            Meaning::Link(link) => {
                (of.is_of(&link) && has_text_of(object, &link.digest)).then_some(link.digest)
            }
            Meaning::RepositoryBlob(link) => of.is_of(&link).then_some(link.digest),
            _ => None,
        }
    }

    /// Returns the folder that holds this link and all others of its kind.
    fn folder(&self, link: &Link) -> Option<Path> {
        let path = self.layout.link_path(link)?;
        let (folder, _) = path.as_ref().split_once(&link.digest.hex())?;
        // A folder that shards digests by their first characters does not hold all of them.
        let folder = folder.strip_suffix('/')?;
        let is_whole = !folder.ends_with(&format!("/{}", &link.digest.hex()[..2]));
        is_whole.then(|| Path::parse(folder).ok())?
    }
}

fn backend_failed(error: object_store::Error) -> Error {
    Error::Backend {
        source: Arc::new(error),
    }
}
