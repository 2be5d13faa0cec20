//! The plain cache of the seed, without leases and fences.

use super::RedisCache;
use super::call::millis;
use super::connection;
use crate::cache::LayerInfoCache;
use crate::cache::memory::jittered;
use crate::cache::shared::{Question, SharedTier};
use crate::link::Key;
use crate::{Digest, Error, LayerMeta, Link};
use ::redis::{Pipeline, RedisError, RedisResult, Value};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl LayerInfoCache for RedisCache {
    async fn contains(&self, link: &Link) -> Result<bool, Error> {
        let answers = self.look_up(&[Question::Link(link.clone())]).await?;
        Ok(answers.iter().any(|found| found.member.is_some()))
    }

    async fn add(&self, link: &Link) -> Result<(), Error> {
        self.add_member(link, jittered(self.settings.ttl)).await
    }

    async fn remove(&self, link: &Link) -> Result<(), Error> {
        let keys = [Key::Link(link.clone())];
        self.withdraw(&keys).await?;
        self.mention(&keys).await
    }

    async fn meta(&self, digest: &Digest) -> Result<Option<LayerMeta>, Error> {
        let mut answers = self.look_up(&[Question::Meta(*digest)]).await?;
        Ok(answers.pop().and_then(|found| found.meta))
    }

    async fn set_meta(&self, digest: &Digest, meta: &LayerMeta) -> Result<(), Error> {
        self.put_meta(digest, meta, jittered(self.settings.ttl))
            .await
    }

    async fn remove_meta(&self, digest: &Digest) -> Result<(), Error> {
        let keys = [Key::Meta(*digest)];
        self.withdraw(&keys).await?;
        self.mention(&keys).await
    }
}

impl RedisCache {
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
        let (present, absent) = self.fields(meta);
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
