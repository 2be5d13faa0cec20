//! A load: Redis, then the backend, then the fill.

use super::{Backend, LinkState, ReadThrough, Reply, Stat};
use crate::cache::memory::Rights;
use crate::cache::shared::{Found, Leases, Member, Question};
use crate::coherence::flight::Departure;
use crate::error::BoxError;
use crate::{Answer, CacheStatus, Error, Freshness, LayerMeta};
use std::sync::Arc;

/// What a load has found out.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) link: LinkState,
    pub(super) meta: Option<LayerMeta>,
    pub(super) status: CacheStatus,
}

impl From<Found> for Loaded {
    fn from(found: Found) -> Self {
        Self {
            link: match found.member {
                Some(member) => LinkState::Linked(member.object),
                None => LinkState::Absent,
            },
            meta: found.meta,
            status: CacheStatus::Memory,
        }
    }
}

impl Loaded {
    pub(super) fn answer(self, status: CacheStatus) -> Answer<Self> {
        Answer {
            value: self,
            status,
        }
    }

    /// Access is decided by membership alone. Where repositories share no content, the object that
    /// is the membership is the blob.
    pub(super) fn meta_if_member(self, shares_blobs: bool) -> Option<LayerMeta> {
        match self.link {
            LinkState::Linked(object) if !shares_blobs => object,
            LinkState::Linked(_) => self.meta,
            LinkState::Absent | LinkState::Broken => None,
        }
    }
}

impl<B: Backend> ReadThrough<B> {
    /// Runs a load to its end. Those who boarded have their answer before the tiers are filled;
    /// those who came later wait until they are.
    pub(super) async fn load(
        self,
        question: Question,
        freshness: Freshness,
        departure: Departure<(Question, Freshness), Reply>,
    ) {
        // The rights come before anything is read.
        let rights = self.cache().rights(&question);
        let mut found = Found::default();
        if freshness == Freshness::Cached {
            found = self.cache().recall_again(&question);
            let shared = self
                .cache()
                .look_up(std::slice::from_ref(&question), &[rights])
                .await;
            found = found.or(shared.into_iter().next().unwrap_or_default());
        }
        // And the leases before the backend is. Where nothing is missing none is asked for.
        let verified = freshness == Freshness::Verified;
        let (found, leases) = self.cache().lease(&question, found, rights, verified).await;
        if !verified && self.is_answer(&question, &found) {
            let status = CacheStatus::Redis;
            return departure.answer(Ok(Loaded {
                status,
                ..found.into()
            }));
        }
        match self.ask_backend(&question, found).await {
            Ok(loaded) => {
                departure.answer(Ok(loaded.clone()));
                self.settle(question, loaded, (rights, leases), verified)
                    .await;
            }
            Err(error) => {
                let asked = Found::default().asked(&question);
                self.inner.lookups.count_error(asked);
                departure.answer(Err(Arc::new(error)));
                self.cache().release(&question, leases).await;
            }
        }
    }

    /// Asks the backend for what is missing.
    async fn ask_backend(&self, question: &Question, found: Found) -> Result<Loaded, Error> {
        let backend = self.backend();
        let known = found
            .member
            .clone()
            .map(|member| LinkState::Linked(member.object));
        let stat = match (question, known, &found.meta) {
            (Question::Link(link), _, _) => Stat {
                link: backend.link(link).await,
                meta: Ok(None),
            },
            (Question::Meta(digest), _, _) => Stat {
                link: Ok(LinkState::Absent),
                meta: backend.describe(digest).await,
            },
            (Question::Stat(link), Some(known), None) if backend.shares_blobs() => Stat {
                link: Ok(known),
                meta: backend.describe(&link.digest).await,
            },
            (Question::Stat(link), None, Some(meta)) if backend.shares_blobs() => Stat {
                link: backend.link(link).await,
                meta: Ok(Some(meta.clone())),
            },
            (Question::Stat(link), _, _) => backend.stat(link).await,
        };
        let loaded = read(stat, question).map_err(Error::backend)?;
        let asked = loaded.clone().found().asked(question);
        self.inner.lookups.count(asked);
        Ok(loaded)
    }

    /// Fills the tiers with what was found, and takes away what was denied.
    async fn settle(
        &self,
        question: Question,
        loaded: Loaded,
        (rights, leases): (Rights, Leases),
        verified: bool,
    ) {
        let found = loaded.found();
        let unfilled = question.missing(&found, Leases::default());
        if !unfilled.is_empty() {
            if verified {
                self.cache().heal(&unfilled).await;
            } else {
                self.cache()
                    .release(&question, leases.without(&found))
                    .await;
            }
        }
        self.cache().fill(found.of(&question), rights, leases).await;
    }
}

impl Loaded {
    fn found(self) -> Found {
        Found {
            member: match self.link {
                LinkState::Linked(object) => Some(Member { object }),
                LinkState::Absent | LinkState::Broken => None,
            },
            meta: self.meta,
        }
    }
}

/// A failed look for the meta of what is not a member is not worth an error.
fn read(stat: Stat, question: &Question) -> Result<Loaded, BoxError> {
    let link = stat.link?;
    let is_member = matches!(link, LinkState::Linked(_));
    let meta = match stat.meta {
        Ok(meta) => meta,
        Err(_) if question.link().is_some() && !is_member => None,
        Err(error) => return Err(error),
    };
    Ok(Loaded {
        link,
        meta,
        status: CacheStatus::Miss,
    })
}
