//! A load: Redis, then the backend, then the fill.

use super::{Backend, LinkState, ReadThrough, Reply, Stat};
use crate::cache::memory::{Rights, jittered};
use crate::cache::shared::{Found, Member, Question};
use crate::cache::tiered::{Budget, FillGuard};
use crate::coherence::flight::Departure;
use crate::coherence::load::{Load, Said, Settlement, Step};
use crate::error::BoxError;
use crate::spans;
use crate::{Answer, CacheStatus, Error, Freshness, LayerMeta};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

/// How long a load that nobody waits for any more may ask the backend, for the tiers' sake. After
/// that its lease would be over by default, and its fill refused.
const FORSAKEN: Duration = Duration::from_secs(10);

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

    /// Access is decided by membership alone.
    pub(super) fn meta_if_member(self) -> Option<LayerMeta> {
        match self.link {
            LinkState::Linked(_) => self.meta,
            LinkState::Absent | LinkState::Broken => None,
        }
    }
}

/// A load between two of its steps.
#[derive(Debug)]
pub(super) struct Underway {
    pub(super) question: Question,
    pub(super) rights: Rights,
    pub(super) load: Load,
    pub(super) found: Found,
    pub(super) budget: Budget,
}

/// A load that is about to begin.
type Beginning = (
    Question,
    Freshness,
    Departure<(Question, Freshness), Reply>,
    Budget,
);

impl<B: Backend> ReadThrough<B> {
    /// Runs a load to its end, as [`coherence::load`](crate::coherence::load) has its steps. Those
    /// who boarded have their answer before the tiers are filled; those who came later wait until
    /// they are.
    pub(super) async fn load(self, (question, freshness, departure, budget): Beginning) {
        let load = Load::new(freshness == Freshness::Verified);
        let step = load.begin();
        let underway = Underway {
            // The rights come before anything is read.
            rights: self.cache().rights(&question),
            question,
            load,
            found: Found::default(),
            budget,
        };
        self.go_on(underway, step, departure).await;
    }

    /// Runs it from this step on.
    pub(super) async fn go_on(
        self,
        underway: Underway,
        mut step: Step,
        departure: Departure<(Question, Freshness), Reply>,
    ) {
        let Underway {
            question,
            rights,
            mut load,
            mut found,
            mut budget,
        } = underway;
        let cache = self.cache();
        let mut guard = cache.guard_with([(&question, rights)]);
        let mut has_waited = false;
        loop {
            step = match step {
                Step::LookUp => {
                    let questions = std::slice::from_ref(&question);
                    let mut now = cache.look_up(questions, &[rights], &mut budget).await;
                    found = found.or(now.pop().unwrap_or_default());
                    match found.is_whole(&question) || !budget.has_broken() {
                        true => load.looked_up(found.is_whole(&question)),
                        false => load.broken(),
                    }
                }
                Step::Grant { steal } => {
                    let keys = question.missing(&found, guard.leases(question.keys()));
                    let grants = cache.grant(&mut guard, &keys, steal, &mut budget).await;
                    // Where Redis could not be asked nothing was said.
                    load.granted(&grants.unwrap_or_default())
                }
                Step::Pause(pause) => {
                    has_waited = true;
                    sleep(jittered(pause)).await;
                    Step::LookUp
                }
                Step::Answer => {
                    if budget.has_failed() {
                        departure.meets_silence();
                    }
                    if has_waited {
                        cache.work().awaited.increment(1);
                    }
                    self.audit_shared_hit(&question, rights);
                    spans::answered(&Span::current(), CacheStatus::Redis);
                    let status = CacheStatus::Redis;
                    return departure.answer(Ok(Loaded {
                        status,
                        ..found.into()
                    }));
                }
                Step::Ask => break,
            };
        }
        if budget.has_failed() {
            departure.meets_silence();
        }
        let loaded = tokio::select! {
            loaded = self.ask_backend(&question, found) => loaded,
            // A backend that hangs does not keep what nobody waits for.
            () = departure.forsaken(FORSAKEN) => {
                self.inner.loads.count_error(Found::default().asked(&question));
                Err(Error::LoadLost)
            }
        };
        let loaded = loaded.map_err(Arc::new);
        if loaded.is_ok() {
            spans::answered(&Span::current(), CacheStatus::Miss);
        }
        departure.answer(loaded.clone());
        // Where repositories share no content, the object is the meta.
        let wants_object = load.is_verified() && self.backend().shares_blobs();
        let found = loaded.ok().map(|loaded| loaded.found(wants_object));
        let mut budget = budget.after_the_answer();
        let filled = self.settle(&question, &load, found, &mut guard, &mut budget);
        filled.await;
        if budget.has_failed() {
            departure.meets_silence();
        }
    }

    /// Asks the backend for what is missing.
    pub(super) async fn ask_backend(
        &self,
        question: &Question,
        found: Found,
    ) -> Result<Loaded, Error> {
        let loads = &self.inner.loads;
        let began = Instant::now();
        let asked = self.consult(question, found).await;
        loads.duration.record(began.elapsed());
        match &asked {
            Ok(loaded) => loads.count(loaded.clone().found(false).asked(question)),
            Err(_) => loads.count_error(Found::default().asked(question)),
        }
        asked
    }

    /// As [`ask_backend`](Self::ask_backend), and not counted.
    pub(super) async fn consult(&self, question: &Question, found: Found) -> Result<Loaded, Error> {
        let span = spans::backend(match question {
            Question::Stat(_) | Question::Own(_) => "stat",
            Question::Link(_) => "link",
            Question::Meta(_) => "describe",
        });
        self.call(question, found).instrument(span).await
    }

    async fn call(&self, question: &Question, found: Found) -> Result<Loaded, Error> {
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
            (Question::Stat(link), Some(known), None) => Stat {
                link: Ok(known),
                meta: backend.describe(&link.digest).await,
            },
            (Question::Stat(link), None, Some(meta)) => Stat {
                link: backend.link(link).await,
                meta: Ok(Some(meta.clone())),
            },
            (Question::Stat(link) | Question::Own(link), _, _) => backend.stat(link).await,
        };
        read(stat, question).map_err(Error::backend)
    }

    /// Fills the tiers with what was found, and takes away what was denied. Nothing is known of what
    /// the backend failed to say.
    async fn settle(
        &self,
        question: &Question,
        load: &Load,
        found: Option<Found>,
        guard: &mut FillGuard,
        budget: &mut Budget,
    ) {
        let (mut denied, mut unused) = (Vec::new(), Vec::new());
        for key in question.keys() {
            let said = match &found {
                None => Said::Nothing,
                Some(found) if found.has(&key) => Said::Yes,
                Some(_) => Said::No,
            };
            match load.settle(said) {
                Settlement::Fill => {}
                Settlement::Release => unused.push(key),
                Settlement::Heal => denied.push(key),
            }
        }
        let cache = self.cache();
        if !denied.is_empty() {
            cache.deny(&denied, Some(&mut *guard), budget).await;
        }
        cache.release(guard, &unused, budget).await;
        let facts = found.unwrap_or_default().of(question);
        cache.fill(guard, facts, budget).await;
    }
}

impl Loaded {
    /// The facts in it. The object whose presence is the membership is kept where it is wanted: it
    /// takes ten times the memory of the membership.
    pub(super) fn found(self, wants_object: bool) -> Found {
        Found {
            member: match self.link {
                LinkState::Linked(object) => Some(Member {
                    object: object.filter(|_| wants_object),
                }),
                LinkState::Absent | LinkState::Broken => None,
            },
            meta: self.meta,
        }
    }
}

/// A failed look for the meta of what is not a member is not worth an error.
fn read(stat: Stat, question: &Question) -> Result<Loaded, BoxError> {
    let (link, stat_meta) = match (question, stat.link?) {
        // The object that is the membership is the blob.
        (Question::Own(_), LinkState::Linked(Some(object))) => {
            (LinkState::Linked(None), Ok(Some(object)))
        }
        (_, link) => (link, stat.meta),
    };
    let is_member = matches!(link, LinkState::Linked(_));
    let meta = match stat_meta {
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
