//! Reads: which calls may the cache answer, and what does it learn from the others?

use super::erased::ErasedStore;
use super::error::{not_found, to_store};
use super::meta::{contradict, describe, recite};
use crate::cache::shared::{Fact, Facts, Value};
use crate::cache::tiered::{Budget, FillGuard};
use crate::layout::Meaning;
use crate::read_through::LinkState;
use crate::types::link::{Key, KeyKind, KeyRef};
use crate::types::question::Question;
use crate::types::{Answer, CachePolicy, CacheStatus, Digest, Freshness, LayerMeta, Link};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetResult, GetResultPayload, ObjectStore, Result};
use std::ops::Range;

/// A read: the request, and the meaning of its path.
#[derive(Debug)]
pub(super) struct ReadRequest {
    request: Request,
    /// `None` if the layout gives the path no meaning.
    meaning: Option<Meaning>,
}

/// The kind of a read request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// The object's metadata.
    Head(Freshness),
    /// The whole content.
    Content(Freshness),
    /// A part of the content.
    Part,
    /// A request that only the store can answer exactly.
    Other,
}

impl Request {
    fn of(options: &GetOptions) -> Self {
        // Without `..`, so that a field of a later version does not compile until it is handled
        // here.
        let GetOptions {
            if_match,
            if_none_match,
            if_modified_since,
            if_unmodified_since,
            range,
            version,
            head,
            extensions,
        } = options;
        let conditional = if_match.is_some()
            || if_none_match.is_some()
            || if_modified_since.is_some()
            || if_unmodified_since.is_some();
        let policy = extensions.get().copied().unwrap_or_default();
        let freshness = match policy {
            CachePolicy::Default => Freshness::Cached,
            CachePolicy::Refresh => Freshness::Verified,
            CachePolicy::Bypass => return Self::Other,
        };
        match (conditional || version.is_some(), head, range.is_some()) {
            (true, _, _) | (_, true, true) => Self::Other,
            (_, true, _) => Self::Head(freshness),
            (_, _, true) => Self::Part,
            (_, _, false) => Self::Content(freshness),
        }
    }
}

impl ErasedStore {
    /// Answers a read.
    pub(super) fn get<'a>(
        &'a self,
        location: &'a Path,
        options: GetOptions,
    ) -> BoxFuture<'a, Result<GetResult>> {
        let read = async move {
            let mut asked = ReadRequest {
                request: Request::of(&options),
                meaning: self.meaning_of_call(location),
            };
            match self.hit(location, &mut asked) {
                Some(result) => Ok(result),
                // Boxed, so that the future of a caller that memory answers stays small.
                None => self.load(location, options, asked).boxed().await,
            }
        };
        read.boxed()
    }

    /// Answers a `head` from memory without a future. If memory has only a part of the answer, only
    /// the store has the rest.
    fn hit(&self, location: &Path, asked: &mut ReadRequest) -> Option<GetResult> {
        let ReadRequest {
            request: request @ Request::Head(Freshness::Cached),
            meaning: Some(meaning),
        } = asked
        else {
            return None;
        };
        let known = match meaning {
            Meaning::Blob(digest) => self.core.get_meta(digest),
            Meaning::RepositoryBlob(link) => self.core.get_stat((&*link).into()),
            Meaning::Link(link) => self.core.get_object((&*link).into()),
        }?;
        let result = answer(location, &known, Bytes::new(), CacheStatus::Memory);
        if result.is_none() {
            *request = Request::Head(Freshness::Verified);
        }
        result
    }

    async fn load(
        &self,
        location: &Path,
        options: GetOptions,
        asked: ReadRequest,
    ) -> Result<GetResult> {
        let ReadRequest { request, meaning } = asked;
        let Some(meaning) = meaning else {
            return self.bypass(location, options).await;
        };
        match (request, meaning) {
            (Request::Other, _) | (Request::Part, Meaning::Link(_)) => {
                self.bypass(location, options).await
            }
            (Request::Head(freshness), meaning) => {
                self.head(location, options, meaning, freshness).await
            }
            (Request::Content(freshness), Meaning::Link(link)) => {
                self.link_content(location, options, link, freshness).await
            }
            (Request::Content(_) | Request::Part, meaning) => {
                self.blob_content(location, options, meaning).await
            }
        }
    }

    async fn bypass(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner().get_opts(location, options).await?;
        result.extensions.insert(CacheStatus::Bypass);
        Ok(result)
    }

    async fn head(
        &self,
        location: &Path,
        options: GetOptions,
        meaning: Meaning,
        freshness: Freshness,
    ) -> Result<GetResult> {
        let budget = &mut self.core.cache().budget();
        // The tiers may lack fields that a `head` has to return. Then the store is asked once.
        for freshness in [freshness, Freshness::Verified] {
            let Answer { value, status } = match &meaning {
                Meaning::Blob(digest) => self.core.load_meta(digest, freshness, budget).await,
                Meaning::RepositoryBlob(link) => {
                    self.core.load_stat(link.into(), freshness, budget).await
                }
                Meaning::Link(link) => match self.core.load_object(link.into(), budget).await {
                    // The object is not a link, so only the store can describe it.
                    Ok(Answer {
                        value: LinkState::Broken,
                        ..
                    }) => break,
                    answer => answer.map(|answer| answer.map(LinkState::into_object)),
                },
            }
            .map_err(to_store)?;
            let meta = value.ok_or_else(|| not_found(location))?;
            if let Some(result) = answer(location, &meta, Bytes::new(), status) {
                return Ok(result);
            }
        }
        self.bypass(location, options).await
    }

    /// Answers a link's content. The content is the link's digest, so memory can answer it if it
    /// has the link.
    async fn link_content(
        &self,
        location: &Path,
        options: GetOptions,
        link: Link,
        freshness: Freshness,
    ) -> Result<GetResult> {
        if freshness == Freshness::Cached
            && let Some(object) = self.core.get_object((&link).into())
        {
            let content = Bytes::from(link.digest.to_string());
            if let Some(result) = answer(location, &object, content, CacheStatus::Memory) {
                return Ok(result);
            }
        }
        let (question, mut budget) = (Question::Link(link), self.core.cache().budget());
        let guard = self.core.guard(&question, false, &mut budget).await;
        let mut result = match self.inner().get_opts(location, options).await {
            Ok(result) => result,
            Err(error) => {
                self.deny_if_gone(&question, &error, Some(guard), budget)
                    .await;
                return Err(error);
            }
        };
        result.extensions.insert(CacheStatus::Miss);
        self.learn_link(location, question, (guard, budget), result)
            .await
    }

    /// Reads an object that should be a link, and caches the membership if it is one.
    async fn learn_link(
        &self,
        location: &Path,
        question: Question,
        (guard, budget): (FillGuard, Budget),
        mut result: GetResult,
    ) -> Result<GetResult> {
        let Question::Link(link) = &question else {
            return Ok(result);
        };
        let GetResult {
            meta,
            attributes,
            range,
            extensions,
            ..
        } = &mut result;
        if meta.size != link.digest.text_len() as u64 || *range != (0..meta.size) {
            return Ok(result);
        }
        let object = describe(location, meta, attributes).ok();
        let (meta, attributes) = (meta.clone(), std::mem::take(attributes));
        let (range, extensions) = (range.clone(), std::mem::take(extensions));
        let content = result.bytes().await?;
        let object = object.filter(|_| content == link.digest.to_string());
        if object.is_some() {
            let fact = Fact {
                key: Key::Link(link.clone()),
                value: Value::Member { object },
            };
            self.core.fill(guard, Facts::one(fact), budget);
        }
        Ok(GetResult {
            payload: GetResultPayload::Stream(once(content)),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    /// Returns a blob's content from the store, and fills the tiers with the metadata that comes
    /// with it.
    async fn blob_content(
        &self,
        location: &Path,
        options: GetOptions,
        meaning: Meaning,
    ) -> Result<GetResult> {
        let question = question(meaning);
        let (known, mut budget) = (self.core.known(&question), self.core.cache().budget());
        let guard = match &known {
            Some(known) if known.is_full() => None,
            // The known metadata comes from a list, which lacks some fields. The metadata that
            // comes with the content replaces it.
            Some(_) => Some(self.core.guard(&question, true, &mut budget).await),
            None => Some(self.core.guard(&question, false, &mut budget).await),
        };
        let mut result = match self.inner().get_opts(location, options).await {
            Ok(result) => result,
            Err(error) => {
                self.deny_if_gone(&question, &error, guard, budget).await;
                return Err(error);
            }
        };
        result.extensions.insert(CacheStatus::Bypass);
        match (describe(location, &result.meta, &result.attributes), guard) {
            // The object was changed without the cache's knowledge.
            (Ok(meta), guard) if known.is_some_and(|known| contradict(&known, &meta)) => {
                self.core.deny(question.keys(), guard, budget).await;
            }
            (Ok(meta), Some(guard)) => self.core.fill(guard, facts(&question, &meta), budget),
            _ => {}
        }
        Ok(result)
    }

    /// Reads parts of an object from the store.
    pub(super) fn get_ranges<'a>(
        &'a self,
        location: &'a Path,
        ranges: &'a [Range<u64>],
    ) -> BoxFuture<'a, Result<Vec<Bytes>>> {
        let parts = async move {
            let result = self.inner().get_ranges(location, ranges).await;
            if let Err(error) = &result
                && let Some(meaning) = self.meaning(location)
            {
                let budget = self.core.cache().budget();
                self.deny_if_gone(&question(meaning), error, None, budget)
                    .await;
            }
            result
        };
        parts.boxed()
    }

    /// Removes the object's entries from all tiers of all nodes if the store answers `NotFound`.
    /// This happens before the caller gets the error, as far as Redis answers in time.
    async fn deny_if_gone(
        &self,
        question: &Question,
        error: &object_store::Error,
        guard: Option<FillGuard>,
        budget: Budget,
    ) {
        if let object_store::Error::NotFound { .. } = error {
            self.core.deny(question.keys(), guard, budget).await;
        }
    }
}

/// Returns the question that an object with this meaning answers.
pub(super) fn question(meaning: Meaning) -> Question {
    match meaning {
        Meaning::Blob(digest) => Question::Meta(digest),
        Meaning::Link(link) => Question::Link(link),
        Meaning::RepositoryBlob(link) => Question::Own(link),
    }
}

/// Returns the facts that come with a blob's content.
pub(super) fn facts(question: &Question, meta: &LayerMeta) -> Facts {
    question.keys().map(|key| Fact {
        value: match KeyRef::from(&key).kind() {
            KeyKind::Membership => Value::MEMBER,
            KeyKind::Meta => Value::Meta(meta.clone()),
        },
        key,
    })
}

/// Builds the result that the store would return, from cached metadata. Returns `None` if the
/// metadata is not sufficient.
fn answer(
    location: &Path,
    meta: &LayerMeta,
    content: Bytes,
    status: CacheStatus,
) -> Option<GetResult> {
    let (meta, attributes) = recite(location, meta)?;
    let mut result = GetResult {
        range: 0..meta.size,
        payload: GetResultPayload::Stream(if content.is_empty() {
            futures::stream::empty().boxed()
        } else {
            once(content)
        }),
        meta,
        attributes,
        extensions: Default::default(),
    };
    result.extensions.insert(status);
    Some(result)
}

fn once(content: Bytes) -> BoxStream<'static, Result<Bytes>> {
    futures::stream::once(async move { Ok(content) }).boxed()
}

impl Question {
    pub(super) const fn digest(&self) -> &Digest {
        match self {
            Self::Stat(link) | Self::Own(link) | Self::Link(link) => &link.digest,
            Self::Meta(digest) => digest,
        }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
