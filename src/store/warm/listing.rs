//! Pages of a list.

use super::super::CachedStore;
use super::super::read::question;
use crate::Error;
use crate::cache::shared::Question;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, Result};

/// The objects of a page: what one request to S3, GCS or Azure lists.
const PAGE: u64 = 1000;

/// How many objects are looked at before others have their turn on this thread.
const STRETCH: u64 = 100;

/// What one list of a store shows, page by page.
pub(super) struct Listing<S: ObjectStore> {
    store: CachedStore<S>,
    objects: BoxStream<'static, Result<ObjectMeta>>,
    /// The greatest name so far.
    last: Option<Path>,
    is_in_order: bool,
}

/// A listed object that says something of a fact.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) object: ObjectMeta,
    pub(super) question: Question,
}

/// Some objects that were listed one after the other.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) seen: u64,
    /// Those that mean nothing to the layout.
    pub(super) meaningless: u64,
    pub(super) listed: Vec<Listed>,
    /// What precedes the page; `None` if nothing does.
    pub(super) after: Option<Path>,
    /// The last object, if it means nothing.
    passed_over: Option<Path>,
    /// Whether all names until here came in their order.
    pub(super) is_in_order: bool,
}

impl Page {
    /// The page's last object.
    pub(super) fn last(&self) -> Option<&Path> {
        let listed = || self.listed.last().map(|listed| &listed.object.location);
        self.passed_over.as_ref().or_else(listed)
    }

    fn take(&mut self, listed: Listed) {
        self.passed_over = None;
        self.listed.push(listed);
    }

    fn pass_over(&mut self, object: ObjectMeta) {
        self.meaningless += 1;
        self.passed_over = Some(object.location);
    }
}

/// What the store has below `prefix`, after `after`.
pub(super) fn list(
    store: &impl ObjectStore,
    prefix: Option<&Path>,
    after: Option<&Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let objects = match after {
        Some(after) => store.list_with_offset(prefix, after),
        None => store.list(prefix),
    };
    // Who asks for a page after the last one asks the list again, and that of a bucket panics then.
    objects.fuse().boxed()
}

impl<S: ObjectStore> Listing<S> {
    pub(super) fn new(store: &CachedStore<S>, prefix: Option<&Path>, after: Option<&Path>) -> Self {
        Self {
            store: store.clone(),
            objects: list(store.inner(), prefix, after),
            last: after.cloned(),
            is_in_order: true,
        }
    }

    /// The next page; `None` if there is none.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, Error> {
        let mut page = Page {
            after: self.last.clone(),
            ..Page::default()
        };
        while page.seen < PAGE
            && let Some(object) = self.objects.next().await
        {
            let object = object.map_err(|error| Error::backend(error.into()))?;
            page.seen += 1;
            if page.seen.is_multiple_of(STRETCH) {
                tokio::task::yield_now().await;
            }
            let is_next = |last: &Path| *last < object.location;
            self.is_in_order &= page.last().or(self.last.as_ref()).is_none_or(is_next);
            match self.store.meaning(&object.location) {
                Some(meaning) => page.take(Listed {
                    object,
                    question: question(meaning),
                }),
                None => page.pass_over(object),
            }
        }
        self.last = page.last().cloned().or(self.last.take());
        page.is_in_order = self.is_in_order;
        Ok((page.seen > 0).then_some(page))
    }
}
