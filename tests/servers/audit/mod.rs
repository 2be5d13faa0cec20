//! Tests the audit: it finds exactly the facts that the storage does not confirm. With `fix` it
//! removes them, and it writes nothing else.

mod cluster;
mod command;
mod findings;
mod fixes;
mod go;
mod large;
mod lists;
mod looks;
mod own_blobs;

use test_support as support;

use layercache::layout::{Distribution, Layout};
use layercache::{Digest, Link, RepositoryName};
use layercache_cli::admin::{Audit, AuditError, AuditReport, Finding};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use support::nodes::{LENGTH, blob_path, config, digest, name};
use support::recording::Recording;
use support::redis::Redis;

/// A store and a Redis, without any node.
struct World {
    store: Recording<InMemory>,
    redis: Redis,
}

/// The findings and the report of an audit.
#[derive(Debug)]
struct AuditOutput {
    report: AuditReport,
    findings: Vec<Finding>,
}

impl AuditOutput {
    /// Returns the name, the key and the member of each finding, sorted.
    fn names(&self) -> Vec<String> {
        let names = self.findings.iter().map(|finding| {
            let member = finding.member.as_deref().unwrap_or_default();
            let text = format!("{} {} {member}", finding.wrong.name(), finding.key);
            text.trim_end().to_owned()
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl World {
    async fn new() -> Self {
        Self {
            store: Recording::new(InMemory::new()),
            redis: Redis::start().await,
        }
    }

    fn audit(&self) -> Audit<Recording<InMemory>> {
        Audit::new(self.store.clone(), config(&self.redis)).unwrap()
    }

    /// Runs an audit, and returns its findings and its report.
    async fn run<S: ObjectStore>(audit: Audit<S>) -> Result<AuditOutput, AuditError> {
        let findings = Arc::new(Mutex::new(Vec::new()));
        let reported = Arc::clone(&findings);
        let audit = audit.findings(move |finding| reported.lock().unwrap().push(finding.clone()));
        let report = audit.await?;
        let findings = std::mem::take(&mut *findings.lock().unwrap());
        assert_eq!(findings.len() as u64, report.findings());
        Ok(AuditOutput { report, findings })
    }

    async fn look(&self) -> AuditOutput {
        Self::run(self.audit()).await.unwrap()
    }

    async fn fix(&self) -> AuditOutput {
        Self::run(self.audit().fix(true)).await.unwrap()
    }

    /// Puts a blob with a link, and caches it as a Go registry does.
    async fn cached(&self, i: u32) -> Digest {
        let digest = digest(i);
        store_blob(&self.store, &digest).await;
        store_link(&self.store, &name(), &digest).await;
        self.cache_as_go(&name(), &digest, LENGTH);
        digest
    }

    /// Caches facts as a Go registry does, whether or not they are true.
    fn cache_as_go(&self, repository: &RepositoryName, digest: &Digest, size: u64) {
        for command in as_go(repository, digest, size) {
            let parts: Vec<_> = command.split(' ').collect();
            self.redis.cli(&parts);
        }
    }

    /// Returns all of Redis as text, which any write would change.
    fn dump(&self) -> Vec<String> {
        dump(&self.redis)
    }
}

/// Returns the commands with which a Go registry caches a blob of a repository.
fn as_go(repository: &RepositoryName, digest: &Digest, size: u64) -> [String; 4] {
    let media_type = "mediatype application/octet-stream";
    [
        format!("SADD repository::{repository}::blobs {digest}"),
        format!("HMSET blobs::{digest} digest {digest} size {size}"),
        format!("HSETNX blobs::{digest} {media_type}"),
        format!("HSET repository::{repository}::blobs::{digest} {media_type}"),
    ]
}

/// Returns every key with its value, and whether it expires.
fn dump(redis: &Redis) -> Vec<String> {
    let keys = redis.cli(&["KEYS", "*"]);
    let keys = keys.lines().filter(|key| !key.is_empty());
    let mut all: Vec<_> = keys
        .map(|key| {
            let value = match redis.cli(&["TYPE", key]).as_str() {
                "set" => redis.cli(&["SMEMBERS", key]),
                "hash" => redis.cli(&["HGETALL", key]),
                "list" => redis.cli(&["LRANGE", key, "0", "-1"]),
                "zset" => redis.cli(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
                _ => redis.cli(&["GET", key]),
            };
            let mut lines: Vec<_> = value.lines().collect();
            // A set has no order, and a read may change it.
            lines.sort_unstable();
            let lapses = redis.cli(&["PTTL", key]) != "-1";
            format!("{key} {lines:?} {lapses}")
        })
        .collect();
    all.sort();
    all
}

/// Returns how many changes Redis has made to its data since it was started.
fn changes(redis: &Redis) -> String {
    let info = redis.cli(&["INFO", "persistence"]);
    let changes = info.lines().find(|line| line.starts_with("rdb_changes"));
    changes.expect("a number of changes").to_owned()
}

fn link_path(link: &Link) -> Path {
    Distribution::default().link_path(link).unwrap()
}

async fn store_blob(store: &impl ObjectStore, digest: &Digest) {
    let put = store.put(&blob_path(digest), "content".into()).await;
    put.unwrap();
}

async fn store_link(store: &impl ObjectStore, repository: &RepositoryName, digest: &Digest) {
    let path = link_path(&Link::layer(repository.clone(), *digest));
    store.put(&path, digest.to_string().into()).await.unwrap();
}

/// Runs `layercache audit` with these arguments.
fn command(args: &[&str]) -> Output {
    let mut command = Command::new(test_support::command::program());
    command.arg("audit").args(args);
    command.output().expect("the command")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
