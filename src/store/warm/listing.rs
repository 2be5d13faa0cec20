//! How is a list read page by page?

use super::super::erased::ErasedStore;
use super::super::read::question;
use crate::types::Error;
use crate::types::question::Question;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, Result};

/// Number of objects per page: as many as one request to S3, GCS or Azure lists.
const PAGE: u64 = 1000;

/// Number of objects after which the task yields to other tasks.
const STRETCH: u64 = 100;

/// Reads one list of a store, page by page.
pub(super) struct Listing {
    store: ErasedStore,
    objects: BoxStream<'static, Result<ObjectMeta>>,
    /// The last name so far.
    last: Option<Path>,
    is_in_order: bool,
}

/// A listed object that the layout gives a meaning.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) object: ObjectMeta,
    pub(super) question: Question,
}

/// A run of listed objects.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) seen: u64,
    /// Objects that the layout gives no meaning.
    pub(super) meaningless: u64,
    pub(super) listed: Vec<Listed>,
    /// The last object before the page; `None` if the page is the first one.
    pub(super) after: Option<Path>,
    /// The last object, if the layout gives it no meaning.
    passed_over: Option<Path>,
    /// Whether all names so far came in order.
    pub(super) is_in_order: bool,
}

impl Page {
    /// Returns the page's last object.
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

/// Lists the store's objects below `prefix`, after `after`.
pub(super) fn list(
    store: &dyn ObjectStore,
    prefix: Option<&Path>,
    after: Option<&Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let objects = match after {
        Some(after) => store.list_with_offset(prefix, after),
        None => store.list(prefix),
    };
    // Fused, because a call for a page after the last one polls the list again, and a bucket's list
    // panics then.
    objects.fuse().boxed()
}

impl Listing {
    pub(super) fn new(store: &ErasedStore, prefix: Option<&Path>, after: Option<&Path>) -> Self {
        Self {
            store: store.clone(),
            objects: list(store.inner().as_ref(), prefix, after),
            last: after.cloned(),
            is_in_order: true,
        }
    }

    /// Returns the next page, or `None` after the last one.
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
