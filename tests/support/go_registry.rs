//! Runs Debian's `docker-registry`: docker/distribution 2.8, as people deploy it.

use super::redis::Redis;
use super::server::{Server, answers};
use super::tools::require;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A running Go registry.
#[derive(Debug)]
pub struct GoRegistry {
    server: Server,
    folder: TempDir,
}

impl GoRegistry {
    /// Starts a registry that serves the files below `root` (`docker/registry/v2/…`). Its blob
    /// descriptor cache is in `redis`; with `None` it has no cache.
    pub async fn start(root: &Path, redis: Option<&Redis>, delete_enabled: bool) -> Self {
        let storage = json!({
            "filesystem": { "rootdirectory": root },
            "delete": { "enabled": delete_enabled },
        });
        let log = json!({ "level": "info" });
        let ready = |port| format!("listening on 127.0.0.1:{port}");
        Self::start_as(storage, redis, log, ready).await
    }

    /// Starts a registry with this `storage` section, set up to serve as fast as it can: it logs no
    /// requests and keeps all its connections to Redis open.
    pub async fn start_quiet(storage: Value, redis: &Redis) -> Self {
        let log = json!({ "level": "warn", "accesslog": { "disabled": true } });
        // At this log level the registry does not say that it listens. This is the only line that
        // it writes.
        let ready = |_| "No HTTP secret provided".to_owned();
        Self::start_as(storage, Some(redis), log, ready).await
    }

    async fn start_as(
        storage: Value,
        redis: Option<&Redis>,
        log: Value,
        ready: impl Fn(u16) -> String,
    ) -> Self {
        let program = require("docker-registry");
        let folder = tempfile::tempdir().expect("a folder for a configuration");
        let config = config_in(&folder);
        let command = |port| {
            let text = config_text(port, &storage, redis, &log);
            fs::write(&config, text).expect("a configuration");
            let mut command = Command::new(&program);
            command.arg("serve").arg(&config);
            // If this variable names a bundle of certificates, the registry's S3 client refuses the
            // transport that it is given.
            command.env_remove("AWS_CA_BUNDLE");
            command
        };
        let server = Server::start(command, ready).await;
        answers(&format!("http://127.0.0.1:{}/v2/", server.port())).await;
        Self { server, folder }
    }

    /// Returns its `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// Returns its `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Collects garbage below its root, in a separate process, as operators do.
    pub fn garbage_collect(&self) -> Output {
        let output = Command::new(require("docker-registry"))
            .arg("garbage-collect")
            .arg(config_in(&self.folder))
            .output()
            .expect("docker-registry");
        assert!(output.status.success(), "{output:?}");
        output
    }

    pub fn log(&self) -> Vec<String> {
        self.server.log()
    }
}

fn config_in(folder: &TempDir) -> PathBuf {
    folder.path().join("config.yml")
}

/// Returns the configuration as JSON. JSON is valid YAML and quotes every path correctly.
fn config_text(port: u16, storage: &Value, redis: Option<&Redis>, log: &Value) -> String {
    let mut config = json!({
        "version": "0.1",
        "log": log,
        "storage": storage,
        "http": { "addr": format!("127.0.0.1:{port}") },
    });
    if let Some(redis) = redis {
        config["storage"]["cache"] = json!({ "blobdescriptor": "redis" });
        config["redis"] = json!({
            "addr": redis.address(),
            // Without these settings it opens a connection for each command.
            "pool": { "maxidle": 256, "maxactive": 0, "idletimeout": "300s" },
        });
    }
    config.to_string()
}
