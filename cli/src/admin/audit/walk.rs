//! How does an audit walk through Redis? It reads pages of keys, and pages of the members of their
//! sets.

use super::insist;
use super::pace::Pace;
use super::page::{Choice, PAGE, Page};
use super::position::{AuditPosition, Within, sum};
use crate::admin::scan::{Item, KeyName, MemberPage, StoredHash, hash_key, member_page, metas};
use layercache::internals::{AdminClient, Key, KeyPage, Shards};
use layercache::{Error, Link, LinkKind, RepositoryName};
use std::collections::HashSet;

/// A walk through Redis.
pub(super) struct Walk<'a> {
    redis: &'a AdminClient,
    choice: &'a Choice,
    shards: Shards,
    /// Index of the current server.
    shard: usize,
    /// Checksum of that server's identity.
    life: u32,
    /// The cursors of the current page and of the next one.
    cursor: u64,
    next: u64,
    is_last: bool,
    /// The sets of the page, sorted by name, and the number of them that are done.
    sets: Vec<(LinkKind, RepositoryName)>,
    done: usize,
    /// The cursor in the current set.
    member: u64,
    /// What to resume in the first page.
    resume: Option<Within>,
    pace: Pace,
    pub(super) keys_in_all: u64,
    /// How often the walk began a server again from its first key.
    pub(super) restarts: u64,
}

impl<'a> Walk<'a> {
    pub(super) async fn begin(
        redis: &'a AdminClient,
        choice: &'a Choice,
        rate: f64,
        after: Option<&AuditPosition>,
    ) -> Result<Self, Error> {
        let shards = insist(|| redis.shards()).await?;
        let mut keys_in_all = 0;
        for shard in &shards.list {
            keys_in_all += insist(|| redis.key_count(shard)).await?;
        }
        let mut walk = Self {
            redis,
            choice,
            shard: 0,
            life: 0,
            cursor: 0,
            next: 0,
            is_last: false,
            sets: Vec::new(),
            done: 0,
            member: 0,
            resume: None,
            pace: Pace::new(rate),
            keys_in_all,
            restarts: 0,
            shards,
        };
        if let Some(after) = after.filter(|after| after.share == walk.shards.share) {
            walk.shard = usize::try_from(after.shard).unwrap_or(usize::MAX);
            walk.life = after.life;
            walk.next = after.cursor;
            walk.resume = after.sets;
        }
        Ok(walk)
    }

    /// Returns the next page to audit, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.done < self.sets.len() {
            return self.members().await.map(Some);
        }
        if self.is_last {
            self.leave().await?;
        }
        if self.shard < self.shards.list.len() {
            return self.keys().await.map(Some);
        }
        self.end().await?;
        Ok(None)
    }

    /// Returns a page of keys, with the values of its hashes.
    async fn keys(&mut self) -> Result<Page, Error> {
        let mut found = self.key_page(PAGE).await?;
        if self.is_another(&found) {
            self.start_over();
            found = self.key_page(PAGE).await?;
        }
        let KeyPage {
            identity,
            next,
            keys,
        } = found;
        self.life = sum([identity.as_str()]);
        (self.cursor, self.next, self.is_last) = (self.next, next, next == 0);
        let mut page = Page {
            keys: keys.len() as u64,
            ..Page::default()
        };
        let (mut hashes, mut sets) = (Vec::new(), HashSet::new());
        for key in keys {
            let name = KeyName::read(self.redis.prefix(), &key);
            let is_chosen = |name: &RepositoryName| self.choice.has_repository(name);
            if !name.repository().is_none_or(is_chosen) {
                continue;
            }
            match name {
                KeyName::Set(kind, repository) => {
                    sets.insert((kind, repository));
                }
                // If only some repositories are audited, the shared blobs are taken from their
                // members instead.
                KeyName::Hash(key)
                    if self.choice.filter.is_none() || key.repository().is_some() =>
                {
                    hashes.push(key);
                }
                KeyName::MediaType(repository, digest) if self.choice.has_digest(&digest) => {
                    page.others.push(Item::MediaType(repository, digest));
                }
                KeyName::Mark(None) if self.choice.filter.is_some() => {}
                KeyName::Mark(_) => page.others.push(Item::Forever(key)),
                KeyName::Junk if self.choice.filter.is_none() => {
                    page.others.push(Item::Junk(key));
                }
                KeyName::Hash(_) | KeyName::MediaType(..) | KeyName::Junk | KeyName::Other => {}
            }
        }
        self.sets = sets.into_iter().collect();
        self.sets.sort_unstable();
        (self.done, self.member) = (0, 0);
        self.take_up();
        self.metas(&mut page, hashes).await?;
        page.position = Some(self.position());
        Ok(page)
    }

    async fn key_page(&mut self, count: usize) -> Result<KeyPage, Error> {
        let (redis, cursor) = (self.redis, self.next);
        let shard = &self.shards.list[self.shard];
        self.pace.wait().await;
        let page = insist(|| redis.key_page(shard, cursor, count)).await?;
        self.pace.spend(page.keys.len());
        Ok(page)
    }

    /// Returns whether the server is not the one that returned the earlier pages. A cursor of one
    /// server means nothing to another.
    fn is_another(&self, page: &KeyPage) -> bool {
        self.life != 0 && self.life != sum([page.identity.as_str()])
    }

    fn start_over(&mut self) {
        self.restarts += 1;
        (self.life, self.next, self.is_last, self.resume) = (0, 0, false, None);
        self.sets.clear();
    }

    /// Goes on to the next server, if the current one was the same server to the end.
    async fn leave(&mut self) -> Result<(), Error> {
        self.next = 0;
        let page = self.key_page(1).await?;
        match self.is_another(&page) {
            true => self.start_over(),
            false => {
                self.shard += 1;
                (self.life, self.is_last) = (0, false);
                self.sets.clear();
            }
        }
        Ok(())
    }

    /// Resumes within the sets of the page, if they are still the same sets.
    fn take_up(&mut self) {
        let Some(was) = self.resume.take() else {
            return;
        };
        let done = was.done as usize;
        if done <= self.sets.len() && self.names(done, was.cursor) == was.names {
            (self.done, self.member) = (done, was.cursor);
        }
    }

    /// Returns a checksum of the names of the first `done` sets, and of the set that is begun, if
    /// there is one.
    fn names(&self, done: usize, member: u64) -> u32 {
        let named = if member == 0 { done } else { done + 1 };
        let names = self.sets.iter().take(named);
        let kind = |kind: &LinkKind| match kind {
            LinkKind::Layer => "blobs",
            _ => "manifests",
        };
        sum(names.flat_map(|(of, name)| [kind(of), name.as_str()]))
    }

    fn position(&self) -> AuditPosition {
        let is_within = self.done < self.sets.len();
        let position = AuditPosition {
            share: self.shards.share,
            shard: self.shard.try_into().unwrap_or(u32::MAX),
            life: self.life,
            cursor: self.next,
            sets: None,
        };
        match (is_within, self.is_last) {
            (true, _) => AuditPosition {
                cursor: self.cursor,
                sets: Some(Within {
                    done: self.done.try_into().unwrap_or(u32::MAX),
                    names: self.names(self.done, self.member),
                    cursor: self.member,
                }),
                ..position
            },
            (false, true) => AuditPosition {
                shard: position.shard.saturating_add(1),
                life: 0,
                cursor: 0,
                ..position
            },
            (false, false) => position,
        }
    }

    /// Returns a page of members of the sets.
    async fn members(&mut self) -> Result<Page, Error> {
        let mut page = Page::default();
        while !page.is_full()
            && let Some((kind, repository)) = self.sets.get(self.done).cloned()
        {
            let (redis, cursor) = (self.redis, self.member);
            self.pace.wait().await;
            let members = || member_page(redis, kind, &repository, cursor, PAGE);
            let found = insist(members).await?;
            let (next, in_all, members) = match found {
                Some(MemberPage {
                    next,
                    in_all,
                    members,
                }) => (next, in_all, members),
                None => {
                    let key = redis.set_key(kind, &repository).into_bytes();
                    page.others.push(Item::OddType(key, "set"));
                    (0, 0, Vec::new())
                }
            };
            self.pace.spend(members.len().max(1));
            let before = page.facts.len();
            self.take_members(&mut page, kind, &repository, members);
            if let Some(Item::Member(first)) = page.facts.get(before) {
                page.sizes.push((first.clone(), in_all));
            }
            self.member = next;
            if next == 0 {
                self.done += 1;
            }
        }
        if self.choice.filter.is_some() {
            let digests = page.facts.iter().filter_map(|fact| match fact {
                Item::Member(link) => Some(Key::Meta(link.digest)),
                _ => None,
            });
            let digests: HashSet<_> = digests.collect();
            self.metas(&mut page, digests.into_iter().collect()).await?;
        }
        page.position = Some(self.position());
        Ok(page)
    }

    fn take_members(
        &self,
        page: &mut Page,
        kind: LinkKind,
        repository: &RepositoryName,
        members: Vec<Vec<u8>>,
    ) {
        for member in members {
            let text = std::str::from_utf8(&member).unwrap_or_default();
            match KeyName::member(text) {
                KeyName::Hash(Key::Meta(digest)) if self.choice.has_digest(&digest) => {
                    page.facts.push(Item::Member(Link {
                        kind,
                        repository: repository.clone(),
                        digest,
                    }));
                }
                KeyName::Junk => {
                    let odd = Item::OddMember(kind, repository.clone(), member);
                    page.others.push(odd);
                }
                _ => {}
            }
        }
    }

    /// Adds the metadata of these blobs to the page.
    async fn metas(&mut self, page: &mut Page, mut of: Vec<Key>) -> Result<(), Error> {
        of.retain(|key| self.choice.has_digest(key.digest()));
        let held = insist(|| metas(self.redis, &of)).await?;
        for (key, held) in of.into_iter().zip(held) {
            match held {
                // The hash may also have been deleted meanwhile.
                StoredHash::Nothing => page.empty += 1,
                StoredHash::OtherType => {
                    let key = hash_key(self.redis, &key).into_bytes();
                    page.others.push(Item::OddType(key, "hash"));
                }
                held => page.facts.push(Item::Meta(key, held)),
            }
        }
        Ok(())
    }

    /// Checks that no slots moved during the walk. A key that moves is seen twice, or not at all.
    async fn end(&self) -> Result<(), Error> {
        let now = insist(|| self.redis.shards()).await?;
        let is_moving = insist(|| self.redis.is_moving(&now)).await?;
        match now.share == self.shards.share && !is_moving {
            true => Ok(()),
            false => Err(Error::Cache {
                tier: "redis",
                operation: "scan",
                source: Box::new(Moved),
            }),
        }
    }
}

/// Slots moved, so the walk may have missed keys.
#[derive(Debug, thiserror::Error)]
#[error("the cluster moved slots during the audit; repeat it when no slots move")]
struct Moved;
