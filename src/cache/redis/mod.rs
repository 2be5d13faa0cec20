//! The shared tier: Redis, with the keys of docker/distribution.

mod config;
mod connection;
mod fields;
mod keys;

pub use config::RedisConfig;

use super::LayerInfoCache;
use super::memory::jittered;
use super::shared::{Facts, Found, Member, Question, SharedTier};
use crate::layout::Layout;
use crate::link::Key;
use crate::{Digest, Error, LayerMeta, Link};
use ::redis::{Pipeline, RedisError, RedisResult, Value};
use async_trait::async_trait;
use connection::Connection;
use fields::StoredPath;
use keys::Keys;
use std::sync::Arc;
use std::time::Duration;

/// A [`LayerInfoCache`] in Redis, shared by all nodes that use it.
///
/// Keys and fields are those of docker/distribution, with more fields beside them:
///
/// | key | type | holds |
/// |---|---|---|
/// | `repository::<name>::blobs` | set | the digests of the repository's layers |
/// | `repository::<name>::manifests` | set | the digests of its manifests |
/// | `blobs::<digest>` | hash | `path`, `length`, `e_tag`, `version`, `last_modified` (seconds since 1970), `attributes` |
///
/// `size` and `digest`, which today's Go registry writes, are read as well, so that a Redis which
/// one has warmed answers here. What is missing, of another type or makes no sense is a miss and
/// is overwritten by the next fill; [`RedisConfig::ttl`] is set when a key is born and never
/// renewed by reads. The members of a set have no time of their own in Redis, so a set expires as
/// a whole, counted from its first member.
///
/// # Cost
/// Each operation is one round trip and no script, except that the first member of a set takes a
/// second one to give the set its time.
///
/// # Failure
/// No operation takes longer than [`RedisConfig::timeout`]. A connection is made when it is first
/// needed and again when it is lost; a server that cannot be reached is not tried for each
/// operation.
#[derive(Debug)]
pub struct RedisCache {
    connection: Connection,
    keys: Keys,
    ttl: Duration,
    /// With a layout, a path is stored only if `store_path`, and believed only if the layout says
    /// the same.
    layout: Option<Arc<dyn Layout>>,
    store_path: bool,
}

impl RedisCache {
    /// A cache in the Redis that `config` names. Does not connect yet.
    ///
    /// # Errors
    /// An address that cannot be one is refused.
    pub fn new(config: RedisConfig) -> Result<Self, Error> {
        Ok(Self {
            connection: Connection::new(&config)?,
            keys: Keys::new(config.prefix),
            ttl: config.ttl,
            layout: None,
            store_path: config.store_path,
        })
    }

    pub(crate) fn with_layout(mut self, layout: Arc<dyn Layout>) -> Self {
        self.layout = Some(layout);
        self
    }

    pub(crate) const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Where a blob is, as the layout says it.
    fn path_of(&self, digest: &Digest, link: Option<&Link>) -> StoredPath {
        let Some(layout) = &self.layout else {
            return StoredPath::Any;
        };
        let shared = layout.blob_path(digest);
        match shared.or_else(|| link.and_then(|link| layout.link_path(link))) {
            Some(path) => StoredPath::Only(path.into()),
            None => StoredPath::None,
        }
    }

    /// Whether a blob's object is also its membership.
    fn is_membership(&self, link: &Link, meta: &LayerMeta) -> bool {
        let layout = self.layout.as_deref();
        let path = layout.and_then(|layout| layout.link_path(link));
        path.is_some_and(|path| path.as_ref() == meta.path())
    }

    fn push_question(&self, pipeline: &mut Pipeline, question: &Question) {
        if let Some(link) = question.link() {
            let member = link.digest.to_string();
            pipeline
                .cmd("SISMEMBER")
                .arg(self.keys.set(link))
                .arg(member);
        }
        if let Some(digest) = question.meta() {
            let key = self.keys.hash(digest);
            pipeline.cmd("HMGET").arg(key).arg(&fields::READ);
        }
    }

    fn read_answer(
        &self,
        question: &Question,
        replies: &mut impl Iterator<Item = RedisResult<Value>>,
    ) -> Found {
        let mut found = Found::default();
        if question.link().is_some()
            && let Some(Ok(Value::Int(1))) = replies.next()
        {
            found.member = Some(Member::default());
        }
        if let Some(digest) = question.meta()
            && let Some(Ok(Value::Array(values))) = replies.next()
        {
            let path = self.path_of(digest, question.link());
            found.meta = fields::read(digest, path, &values);
        }
        if let (Some(link), Some(member), Some(meta)) =
            (question.link(), &mut found.member, &found.meta)
            && self.is_membership(link, meta)
        {
            member.object = Some(meta.clone());
        }
        found
    }

    async fn add_member(&self, link: &Link, ttl: Duration) -> Result<(), Error> {
        let set = self.keys.set(link);
        let add = |pipeline: &mut Pipeline| {
            pipeline
                .cmd("SADD")
                .arg(&set)
                .arg(link.digest.to_string())
                .cmd("PTTL")
                .arg(&set);
        };
        let left = self.write("add", &set, add).await?;
        if let Some(Value::Int(-1)) = left.last() {
            let mut pipeline = Pipeline::new();
            pipeline.cmd("PEXPIRE").arg(&set).arg(millis(ttl));
            self.connection.run("add", &mut pipeline).await?;
        }
        Ok(())
    }

    async fn put_meta(
        &self,
        digest: &Digest,
        meta: &LayerMeta,
        ttl: Duration,
    ) -> Result<(), Error> {
        let key = self.keys.hash(digest);
        let with_path = self.store_path || self.layout.is_none();
        let (present, absent) = fields::write(meta, with_path);
        let put = |pipeline: &mut Pipeline| {
            pipeline.atomic();
            // What the new meta lacks must not be left over from an older one.
            pipeline.cmd("HDEL").arg(&key).arg(&absent);
            pipeline.cmd("HSET").arg(&key).arg(&present);
            pipeline.cmd("PEXPIRE").arg(&key).arg(millis(ttl));
        };
        self.write("set_meta", &key, put).await?;
        Ok(())
    }

    /// Runs commands on one key. A value of another type that stands in their way is deleted.
    async fn write(
        &self,
        operation: &'static str,
        key: &str,
        commands: impl Fn(&mut Pipeline),
    ) -> Result<Vec<Value>, Error> {
        let mut pipeline = Pipeline::new();
        commands(&mut pipeline);
        let failed = |source: RedisError| connection::failed(operation, source);
        let replies = self.connection.run(operation, &mut pipeline).await?;
        match replies.into_iter().collect::<RedisResult<_>>() {
            Err(error) if error.code() == Some("WRONGTYPE") => {}
            done => return done.map_err(failed),
        }
        let mut delete = Pipeline::new();
        delete.cmd("DEL").arg(key);
        self.connection.run(operation, &mut delete).await?;
        let replies = self.connection.run(operation, &mut pipeline).await?;
        replies
            .into_iter()
            .collect::<RedisResult<_>>()
            .map_err(failed)
    }
}

fn millis(ttl: Duration) -> u64 {
    ttl.as_millis().try_into().unwrap_or(u64::MAX).max(1)
}

#[async_trait]
impl SharedTier for RedisCache {
    async fn look_up(&self, questions: &[Question]) -> Result<Vec<Found>, Error> {
        let mut pipeline = Pipeline::new();
        for question in questions {
            self.push_question(&mut pipeline, question);
        }
        let replies = self.connection.run("look-up", &mut pipeline).await?;
        let mut replies = replies.into_iter();
        let answers = questions
            .iter()
            .map(|question| self.read_answer(question, &mut replies));
        Ok(answers.collect())
    }

    async fn fill(&self, facts: &Facts, ttl: Duration) -> Result<(), Error> {
        let member = async {
            match &facts.member {
                Some((link, _)) => self.add_member(link, ttl).await,
                None => Ok(()),
            }
        };
        let meta = async {
            match &facts.meta {
                Some((digest, meta)) => self.put_meta(digest, meta, ttl).await,
                None => Ok(()),
            }
        };
        let (member, meta) = futures::future::join(member, meta).await;
        member.and(meta)
    }

    async fn withdraw(&self, keys: &[Key]) -> Result<(), Error> {
        let mut pipeline = Pipeline::new();
        for key in keys {
            match key {
                Key::Link(link) => {
                    let member = link.digest.to_string();
                    pipeline.cmd("SREM").arg(self.keys.set(link)).arg(member)
                }
                Key::Meta(digest) => pipeline.cmd("DEL").arg(self.keys.hash(digest)),
            };
        }
        let replies = self.connection.run("remove", &mut pipeline).await?;
        for (key, reply) in keys.iter().zip(replies) {
            match reply {
                Ok(_) => {}
                // A value of another type answers no look-up.
                Err(error) if error.code() == Some("WRONGTYPE") => {}
                Err(error) => {
                    tracing::debug!(?key, "not removed");
                    return Err(connection::failed("remove", error));
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl LayerInfoCache for RedisCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        let answers = self.look_up(&[Question::Link(link.clone())]).await?;
        Ok(answers.iter().any(|found| found.member.is_some()))
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        self.add_member(link, jittered(self.ttl)).await
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        self.withdraw(&[Key::Link(link.clone())]).await
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        let mut answers = self.look_up(&[Question::Meta(*digest)]).await?;
        Ok(answers.pop().and_then(|found| found.meta))
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        self.put_meta(digest, meta, jittered(self.ttl)).await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        self.withdraw(&[Key::Meta(*digest)]).await
    }
}
