//! A load: how does one question go to Redis, then to the backend, and then into the tiers?

use super::{LinkState, LoadResult, ReadThrough, Stat};
use crate::cache::memory::{ReadStamps, jittered};
use crate::cache::shared::{Found, Value};
use crate::cache::tiered::{Budget, FillGuard};
use crate::coherence::flight::RunningLoad;
use crate::coherence::load::{FinishStep, Load, LoadStep, Verdict};
use crate::telemetry::spans;
use crate::types::error::BoxError;
use crate::types::link::KeyKind;
use crate::types::question::{Question, QuestionRef};
use crate::types::{Answer, CacheStatus, Error, Freshness};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span};

/// How long a load that no caller waits for may ask the backend, so that the tiers can be filled.
/// By default the load's lease ends after that time, and Redis would refuse its fill.
const ABANDONED: Duration = Duration::from_secs(10);

/// The result of a load.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) found: Found,
    /// Whether the backend has an object at the membership's path that is not a link.
    pub(super) is_broken: bool,
    pub(super) status: CacheStatus,
}

impl From<Found> for Loaded {
    fn from(found: Found) -> Self {
        Self {
            found,
            is_broken: false,
            status: CacheStatus::Memory,
        }
    }
}

impl Loaded {
    pub(super) const fn answer(self, status: CacheStatus) -> Answer<Self> {
        Answer {
            value: self,
            status,
        }
    }

    pub(super) fn link_state(self) -> LinkState {
        match self.found.object() {
            Some(object) => LinkState::Linked(object),
            None if self.is_broken => LinkState::Broken,
            None => LinkState::Absent,
        }
    }
}

/// A load between two of its steps.
#[derive(Debug)]
pub(super) struct Underway {
    pub(super) question: Question,
    pub(super) read_stamps: ReadStamps,
    pub(super) load: Load,
    pub(super) found: Found,
    pub(super) budget: Budget,
}

/// A load that is about to start.
type Beginning = (
    Question,
    Freshness,
    RunningLoad<(Question, Freshness), LoadResult>,
    Budget,
);

impl ReadThrough {
    /// Runs a load to its end, through the steps of [`coherence::load`](crate::coherence::load).
    /// Callers that joined it have their answer before the tiers are filled. Callers that arrive
    /// later wait until the tiers are filled.
    pub(super) async fn load(self, (question, freshness, running, budget): Beginning) {
        let load = Load::new(freshness == Freshness::Verified);
        let step = load.begin();
        let underway = Underway {
            // Take the stamps before anything is read.
            read_stamps: self.cache().read_stamps(&question),
            question,
            load,
            found: Found::default(),
            budget,
        };
        self.go_on(underway, step, running).await;
    }

    /// Runs a load from this step on.
    pub(super) async fn go_on(
        self,
        underway: Underway,
        mut step: LoadStep,
        running: RunningLoad<(Question, Freshness), LoadResult>,
    ) {
        let Underway {
            question,
            read_stamps,
            mut load,
            mut found,
            mut budget,
        } = underway;
        let cache = self.cache();
        let mut guard = cache.guard_with([(&question, read_stamps)]);
        let mut has_waited = false;
        loop {
            step = match step {
                LoadStep::LookUp => {
                    let questions = std::slice::from_ref(&question);
                    let mut now = cache.fetch(questions, &[read_stamps], &mut budget).await;
                    found = found.or(now.pop().unwrap_or_default());
                    match found.is_whole(&question) || !budget.has_broken() {
                        true => load.looked_up(found.is_whole(&question)),
                        false => load.broken(),
                    }
                }
                LoadStep::Grant { steal } => {
                    let keys = question.missing(&found, guard.leases(question.keys()));
                    let grants = cache.grant(&mut guard, &keys, steal, &mut budget).await;
                    // If Redis could not be asked, there is no grant.
                    load.granted(&grants.unwrap_or_default())
                }
                LoadStep::Pause(pause) => {
                    has_waited = true;
                    sleep(jittered(pause)).await;
                    LoadStep::LookUp
                }
                LoadStep::Answer => {
                    if budget.has_failed() {
                        running.met_silence();
                    }
                    if has_waited {
                        cache.work().awaited.increment(1);
                    }
                    self.verify_shared_hit(&question, read_stamps);
                    spans::answered(&Span::current(), CacheStatus::Redis);
                    let status = CacheStatus::Redis;
                    return running.answer(Ok(Loaded {
                        status,
                        ..found.into()
                    }));
                }
                LoadStep::Ask => break,
            };
        }
        if budget.has_failed() {
            running.met_silence();
        }
        let loaded = tokio::select! {
            biased;
            loaded = self.ask_backend(&question, found) => loaded,
            // A load that no caller waits for ends, even if the backend hangs.
            () = running.abandoned(ABANDONED) => {
                self.inner().loads.count_error(Found::default().lookup_result(&question));
                Err(Error::LoadLost)
            }
        };
        let loaded = loaded.map_err(Arc::new);
        if loaded.is_ok() {
            spans::answered(&Span::current(), CacheStatus::Miss);
        }
        running.answer(loaded.clone());
        // If repositories share no content, the object is the metadata.
        let wants_object = load.is_verified() && self.backend().shares_blobs();
        let found = loaded.ok().map(|loaded| match wants_object {
            true => loaded.found,
            false => loaded.found.without_objects(),
        });
        let mut budget = budget.after_the_answer();
        let filled = self.finish(&question, &load, found, &mut guard, &mut budget);
        filled.await;
        if budget.has_failed() {
            running.met_silence();
        }
    }

    /// Asks the backend for the facts that are missing, and counts the call.
    pub(super) async fn ask_backend(
        &self,
        question: &Question,
        found: Found,
    ) -> Result<Loaded, Error> {
        let loads = &self.inner().loads;
        let began = Instant::now();
        let asked = self.consult(question, found).await;
        loads.duration.record(began.elapsed());
        match &asked {
            Ok(loaded) => loads.count(loaded.found.lookup_result(question)),
            Err(_) => loads.count_error(Found::default().lookup_result(question)),
        }
        asked
    }

    /// Asks the backend for the facts that are missing, without counting the call.
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
        let known = found.clone().object().map(LinkState::Linked);
        let stat = match (question, known, found.meta()) {
            (Question::Link(link), _, _) => Stat {
                link: backend.link_state(link).await,
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
                link: backend.link_state(link).await,
                meta: Ok(Some(meta)),
            },
            (Question::Stat(link) | Question::Own(link), _, _) => backend.stat(link).await,
        };
        read(stat, question).map_err(Error::backend)
    }

    /// Fills the tiers with the facts that were found, and removes the ones that the backend
    /// denied. If the backend failed, it only gives the leases back.
    async fn finish(
        &self,
        question: &Question,
        load: &Load,
        found: Option<Found>,
        guard: &mut FillGuard,
        budget: &mut Budget,
    ) {
        let (mut denied, mut unused) = (Vec::new(), Vec::new());
        let is_answered = found.is_some();
        let found = found.unwrap_or_default();
        for (key, value) in question.keys().with(found.as_ref()) {
            let said = match value {
                _ if !is_answered => Verdict::Nothing,
                Some(_) => Verdict::Yes,
                None => Verdict::No,
            };
            match load.finish(said) {
                FinishStep::Fill => {}
                FinishStep::Release => unused.push(key),
                FinishStep::Repair => denied.push(key),
            }
        }
        let cache = self.cache();
        if !denied.is_empty() {
            cache.deny(&denied, Some(&mut *guard), budget).await;
        }
        cache.release(guard, &unused, budget).await;
        cache.fill(guard, found.of(question), budget).await;
    }
}

/// Turns the backend's answers into a result. If the blob is not a member, an error of its metadata
/// is ignored.
fn read(stat: Stat, question: &Question) -> Result<Loaded, BoxError> {
    let (link, stat_meta) = match (question, stat.link?) {
        // The object that proves the membership is the blob itself.
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
    let is_broken = matches!(link, LinkState::Broken);
    let mut member = match link {
        LinkState::Linked(object) => Some(Value::Member { object }),
        LinkState::Absent | LinkState::Broken => None,
    };
    let mut meta = meta.map(Value::Meta);
    let keys = QuestionRef::from(question).keys();
    Ok(Loaded {
        found: keys.filter_map(|key| match key.kind() {
            KeyKind::Membership => member.take(),
            KeyKind::Meta => meta.take(),
        }),
        is_broken,
        status: CacheStatus::Miss,
    })
}
