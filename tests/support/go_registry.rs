//! Debian's `docker-registry`: docker/distribution 2.8, as people run it.

use super::redis::Redis;
use super::server::{Server, answers};
use super::tools::require;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A running Go registry over a folder.
#[derive(Debug)]
pub struct GoRegistry {
    server: Server,
    folder: TempDir,
}

impl GoRegistry {
    /// Serves what is below `root` (`docker/registry/v2/…`); its blob descriptor cache is in `redis`,
    /// or nowhere.
    pub async fn start(root: &Path, redis: Option<&Redis>, delete_enabled: bool) -> Self {
        let program = require("docker-registry");
        let folder = tempfile::tempdir().expect("a folder for a configuration");
        let config = config_in(&folder);
        let command = |port| {
            let text = config_text(port, root, redis, delete_enabled);
            fs::write(&config, text).expect("a configuration");
            let mut command = Command::new(&program);
            command.arg("serve").arg(&config);
            command
        };
        let ready = |port| format!("listening on 127.0.0.1:{port}");
        let server = Server::start(command, ready).await;
        answers(&format!("http://127.0.0.1:{}/v2/", server.port())).await;
        Self { server, folder }
    }

    /// Its `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// Its `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Collects garbage below its root, from a process beside it, as people do.
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

/// JSON is YAML, and quotes every path as it has to be.
fn config_text(port: u16, root: &Path, redis: Option<&Redis>, delete_enabled: bool) -> String {
    let mut config = serde_json::json!({
        "version": "0.1",
        "log": { "level": "info" },
        "storage": {
            "filesystem": { "rootdirectory": root },
            "delete": { "enabled": delete_enabled },
        },
        "http": { "addr": format!("127.0.0.1:{port}") },
    });
    if let Some(redis) = redis {
        config["storage"]["cache"] = serde_json::json!({ "blobdescriptor": "redis" });
        config["redis"] = serde_json::json!({ "addr": redis.address() });
    }
    config.to_string()
}
