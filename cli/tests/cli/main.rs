//! Tests the command `layercache` as a process, with real servers.

mod check;
mod ends;
mod purge;
mod stat;
mod topologies;
mod warm;
mod watch;

use test_support as support;

use layercache::layout::{Distribution, Layout};
use layercache::{
    CacheStatus, CachedStore, Digest, Freshness, Link, RedisConfig, Repository, RepositoryName,
    StoreBackend,
};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use support::nodes::{config, digest};
use support::redis::Redis;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::sleep;

/// The result of a process of the command.
#[derive(Debug)]
struct CommandOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Returns the command, without the environment variables that it would read.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layercache"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["LAYERCACHE_", "AWS_", "GOOGLE_", "AZURE_", "NO_COLOR"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(args: &[&str]) -> CommandOutput {
    run_with(args, &[]).await
}

/// Runs the command with these environment variables.
async fn run_with(args: &[&str], env: &[(String, String)]) -> CommandOutput {
    let mut command = command(args);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    output_of(command.spawn().unwrap()).await
}

async fn output_of(child: Child) -> CommandOutput {
    let output = child.wait_with_output();
    let output = tokio::time::timeout(support::http::PATIENCE * 3, output).await;
    let output = output.expect("the command ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    CommandOutput {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

impl CommandOutput {
    /// # Panics
    /// If it has ended with another code, or with unexpected output.
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        assert!(
            !self.out.contains('\x1b') && !self.err.contains('\x1b'),
            "colours in a pipe: {self:#?}"
        );
        if code != 2 {
            assert!(!self.err.contains("error:"), "{self:#?}");
        }
        self
    }

    /// Checks that the command has failed with an error that contains these words.
    #[track_caller]
    fn refused(self, words: &[&str]) -> Self {
        let output = self.expect(2);
        assert!(output.err.starts_with("error: "), "{output:#?}");
        for word in words {
            assert!(output.err.contains(word), "no `{word}`: {output:#?}");
        }
        output
    }

    #[track_caller]
    fn has(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "no `{word}`: {self:#?}");
        }
        self
    }

    #[track_caller]
    fn keeps(self, secret: &str) -> Self {
        assert!(
            !self.out.contains(secret) && !self.err.contains(secret),
            "{self:#?}"
        );
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:#?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Returns the cells of the table line that begins like this.
    #[track_caller]
    fn row(&self, first: &str) -> Vec<&str> {
        let mut rows = self
            .out
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>());
        let row = rows.find(|row| row[0].trim() == first);
        row.unwrap_or_else(|| panic!("no row `{first}`: {self:#?}"))
    }
}

type Node = CachedStore<LocalFileSystem>;

/// A folder of a registry, and a Redis.
struct Stage {
    folder: TempDir,
    redis: Redis,
}

impl Stage {
    async fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            redis: Redis::start().await,
        }
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn node(&self) -> Node {
        self.node_with(config(&self.redis))
    }

    fn node_with(&self, config: RedisConfig) -> Node {
        let store = LocalFileSystem::new_with_prefix(self.folder.path()).unwrap();
        CachedStore::builder(store).redis(config).build().unwrap()
    }

    /// Puts this many blobs into a repository through the node, so that all tiers know them.
    async fn push(&self, node: &Node, repository: &str, count: u32) {
        for i in 0..count {
            let path = Distribution::default().blob_path(&digest(i)).unwrap();
            node.put(&path, "content".into()).await.unwrap();
            let repository = node.registry().repository(name(repository));
            repository.link(&digest(i)).await.unwrap();
            settle(&repository, &digest(i)).await;
        }
    }

    /// Deletes a layer's link without telling the cache.
    fn unlink(&self, repository: &str, digest: &Digest) {
        let link = Link::layer(name(repository), *digest);
        let path = Distribution::default().link_path(&link).unwrap();
        std::fs::remove_file(self.folder.path().join(path.as_ref())).unwrap();
    }

    /// Deletes a blob without telling the cache.
    fn collect(&self, digest: &Digest) {
        let path = Distribution::default().blob_path(digest).unwrap();
        std::fs::remove_file(self.folder.path().join(path.as_ref())).unwrap();
    }

    /// Runs the command with the folder and the Redis.
    async fn run(&self, args: &[&str]) -> CommandOutput {
        let url = self.redis.url();
        let all = [args, &["--redis", &url, "--storage", self.path()]].concat();
        run(&all).await
    }
}

/// Asks until memory answers. The fill runs after the answer, and the command reads the cache
/// afterwards.
async fn settle(repository: &Repository<StoreBackend>, digest: &Digest) {
    for _ in 0..200 {
        let answer = repository.stat(digest, Freshness::Cached).await.unwrap();
        if answer.status == CacheStatus::Memory {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{digest} is never in memory");
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}
