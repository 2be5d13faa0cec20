//! How does the audit check a page? It checks each item once, and each suspect a second time.

use super::finding::{Fate, Finding, Wrong};
use super::insist;
use super::judge::{StoredMembership, of_membership, of_meta};
use super::page::Page;
use super::progress::AuditReport;
use super::storage::{Look, Proven, Storage};
use crate::admin::scan::{Item, Now, StoredHash, review, sweep};
use futures::{StreamExt, TryStreamExt};
use layercache::internals::{AdminClient, Key, StoredMeta};
use layercache::{Error, Link};
use object_store::ObjectStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Pause between the two checks. A Go registry sets no fences, and caches a link before it writes
/// the link; after this time its change is done.
const PAUSE: Duration = Duration::from_millis(100);

/// Checks pages against Redis and the storage.
pub(super) struct Checker<S> {
    redis: Arc<AdminClient>,
    storage: Arc<Storage<S>>,
    concurrency: usize,
    fix: bool,
    /// The proven links of the set in which the last page has ended.
    proven: Option<Arc<Proven>>,
    /// The time from which no node can answer a removed entry.
    settled: Instant,
}

/// An item that looks wrong.
#[derive(Debug)]
struct Suspect {
    item: Item,
    wrong: Wrong,
}

/// The result of one check.
#[derive(Debug)]
enum Observed {
    Right,
    Wrong(Wrong),
    /// The layout has no place for items of this kind.
    Unknown,
}

impl<S: ObjectStore> Checker<S> {
    pub(super) fn new(
        redis: Arc<AdminClient>,
        storage: Storage<S>,
        concurrency: usize,
        fix: bool,
    ) -> Self {
        Self {
            redis,
            storage: Arc::new(storage),
            concurrency,
            fix,
            proven: None,
            settled: Instant::now(),
        }
    }

    /// Checks a whole page. Removes the findings if `fix` is set.
    pub(super) async fn check(
        &mut self,
        page: Page,
        report: &mut AuditReport,
    ) -> Result<Vec<Finding>, Error> {
        let began = Instant::now();
        report.metas += page.empty;
        report.skipped += page.empty;
        report.others += page.others.len() as u64;
        for fact in &page.facts {
            match fact {
                Item::Member(_) => report.memberships += 1,
                _ => report.metas += 1,
            }
        }

        let mut suspects = Vec::new();
        let nows = insist(|| review(&self.redis, &page.others)).await?;
        for (item, now) in page.others.into_iter().zip(nows) {
            match now {
                Now::Same => suspects.push(Suspect {
                    wrong: wrong_by_itself(&item),
                    item,
                }),
                Now::Changed | Now::Fenced => report.ok += 1,
            }
        }
        let proven = self.list(&page.sizes).await?;
        let looks = self.look(page.facts, &proven, Look::First).await?;
        for (item, seen) in looks {
            match seen {
                Observed::Right => report.ok += 1,
                Observed::Unknown => report.skipped += 1,
                Observed::Wrong(wrong) => suspects.push(Suspect { item, wrong }),
            }
        }

        if !suspects.is_empty() {
            sleep_until(began + PAUSE).await;
            suspects = self.look_again(suspects, report).await?;
        }
        let fates = match self.fix && !suspects.is_empty() {
            true => self.take_away(&suspects).await?,
            false => vec![Fate::Left; suspects.len()],
        };
        let findings = suspects.into_iter().zip(fates);
        let findings: Vec<_> = findings
            .map(|(suspect, fate)| self.finding(suspect, fate))
            .collect();
        findings.iter().for_each(|finding| report.count(finding));
        (report.questions, report.lists) = self.storage.asked();
        Ok(findings)
    }

    /// Lists the links of those sets for which that is cheaper. Keeps the last list, because the
    /// next page may continue in the same set.
    async fn list(&mut self, sizes: &[(Link, u64)]) -> Result<Vec<Arc<Proven>>, Error> {
        let mut all = Vec::new();
        for (link, size) in sizes {
            let known = self.proven.take_if(|proven| proven.is_of(link));
            let proven = match known {
                Some(known) => Some(known),
                None => self.storage.list(link, *size).await?.map(Arc::new),
            };
            all.extend(proven.clone());
            self.proven = proven;
        }
        Ok(all)
    }

    /// Asks the storage about these facts, with bounded concurrency.
    async fn look(
        &self,
        facts: Vec<Item>,
        proven: &[Arc<Proven>],
        look: Look,
    ) -> Result<Vec<(Item, Observed)>, Error> {
        let looks = facts.into_iter().map(|item| {
            let storage = Arc::clone(&self.storage);
            let proven = match &item {
                Item::Member(link) => proven.iter().find(|proven| proven.is_of(link)),
                _ => None,
            };
            let proven = proven.cloned();
            async move {
                let seen = ask(&storage, &item, proven.as_deref(), look).await?;
                Ok::<_, Error>((item, seen))
            }
        });
        let looks: Vec<_> = looks.collect();
        let looks = futures::stream::iter(looks).buffer_unordered(self.concurrency);
        looks.try_collect().await
    }

    /// Returns the suspects that are still cached and that the storage still does not confirm. Asks
    /// Redis before the storage and after it, so that a change in between causes no finding.
    async fn look_again(
        &self,
        suspects: Vec<Suspect>,
        report: &mut AuditReport,
    ) -> Result<Vec<Suspect>, Error> {
        let there = self.still_there(suspects, report).await?;
        let (facts, mut wrong): (Vec<_>, Vec<_>) = there
            .into_iter()
            .partition(|suspect| suspect.item.fact().is_some());
        let facts = facts.into_iter().map(|suspect| suspect.item).collect();
        for (item, seen) in self.look(facts, &[], Look::Second).await? {
            match seen {
                Observed::Wrong(seen) => wrong.push(Suspect { item, wrong: seen }),
                Observed::Right | Observed::Unknown => report.changed += 1,
            }
        }
        self.still_there(wrong, report).await
    }

    async fn still_there(
        &self,
        suspects: Vec<Suspect>,
        report: &mut AuditReport,
    ) -> Result<Vec<Suspect>, Error> {
        let items: Vec<_> = suspects
            .iter()
            .map(|suspect| suspect.item.clone())
            .collect();
        let nows = insist(|| review(&self.redis, &items)).await?;
        let mut there = Vec::with_capacity(suspects.len());
        for (suspect, now) in suspects.into_iter().zip(nows) {
            match now {
                Now::Same => there.push(suspect),
                Now::Changed => report.changed += 1,
                Now::Fenced => report.changing += 1,
            }
        }
        Ok(there)
    }

    /// Removes these items, and checks whether they are gone.
    async fn take_away(&mut self, suspects: &[Suspect]) -> Result<Vec<Fate>, Error> {
        let items: Vec<_> = suspects
            .iter()
            .map(|suspect| suspect.item.clone())
            .collect();
        let redis = &self.redis;
        let doubt = insist(|| sweep(redis, &items)).await?;
        self.settled = Instant::now() + doubt;
        let nows = insist(|| review(redis, &items)).await?;
        let fate = |now| match now {
            Now::Same => Fate::Returned,
            Now::Changed | Now::Fenced => Fate::Removed,
        };
        Ok(nows.into_iter().map(fate).collect())
    }

    /// Waits until no node can answer a removed entry.
    pub(super) async fn finish(&self) {
        sleep_until(self.settled).await;
    }

    fn finding(&self, suspect: Suspect, fate: Fate) -> Finding {
        let Suspect { item, wrong } = suspect;
        let (repository, digest, member) = match &item {
            Item::Member(link) => (
                Some(link.repository.clone()),
                Some(link.digest),
                Some(link.digest.to_string()),
            ),
            Item::Meta(key, _) => (key.repository().cloned(), Some(*key.digest()), None),
            Item::MediaType(repository, digest) => (Some(repository.clone()), Some(*digest), None),
            Item::OddMember(_, repository, member) => (
                Some(repository.clone()),
                None,
                Some(String::from_utf8_lossy(member).into_owned()),
            ),
            Item::OddType(..) | Item::Forever(_) | Item::Junk(_) => (None, None, None),
        };
        Finding {
            key: item.key(&self.redis),
            member,
            repository,
            digest,
            wrong,
            fate,
        }
    }
}

/// Returns what is wrong with an item that only Redis can judge.
fn wrong_by_itself(item: &Item) -> Wrong {
    match item {
        Item::OddMember(..) => Wrong::Broken {
            why: "the member is not a digest",
        },
        Item::OddType(_, "set") => Wrong::Broken {
            why: "the key is not a set",
        },
        Item::OddType(..) => Wrong::Broken {
            why: "the key is not a hash",
        },
        Item::MediaType(..) => Wrong::Orphan {
            what: "a media type without its membership",
        },
        Item::Forever(_) => Wrong::Orphan {
            what: "a lease or a fence that never expires",
        },
        Item::Junk(_) | Item::Member(_) | Item::Meta(..) => Wrong::Orphan {
            what: "a name that only begins like one of the cache's",
        },
    }
}

/// Asks the storage about one item.
async fn ask<S: ObjectStore>(
    storage: &Storage<S>,
    item: &Item,
    proven: Option<&Proven>,
    look: Look,
) -> Result<Observed, Error> {
    let wrong = match item {
        Item::Member(link) => {
            let stored = storage.membership(link, proven, look).await?;
            if stored == StoredMembership::Unknown {
                return Ok(Observed::Unknown);
            }
            of_membership(&stored)
        }
        Item::Meta(
            key,
            StoredHash::Meta(StoredMeta {
                meta,
                path,
                alias_of,
            }),
        ) => {
            let digest = alias_of.as_ref().unwrap_or(key.digest());
            let path = path.as_deref().filter(|_| alias_of.is_none());
            let place = match key {
                Key::Meta(_) => storage.place(digest, path),
                Key::Own(link) | Key::Link(link) => storage.place_of(link),
            };
            let stored = storage.blob(digest, &place, path, look).await?;
            of_meta(meta, path, &place, stored.as_ref())
        }
        Item::Meta(_, _) => Some(Wrong::Broken {
            why: "the fields are not valid",
        }),
        other => Some(wrong_by_itself(other)),
    };
    Ok(wrong.map_or(Observed::Right, Observed::Wrong))
}
