//! Runs the example registry of this workspace as a process.

use super::example::binary;
use super::server::{Server, answers};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// A running `examples/registry`.
#[derive(Debug)]
pub struct Registry {
    server: Server,
}

impl Registry {
    /// Starts it with `--listen 127.0.0.1:PORT` and these arguments and variables.
    pub async fn start(args: &[&str], env: &[(String, String)]) -> Self {
        let program = program();
        let command = |port| {
            let mut command = Command::new(&program);
            command
                .args(["--listen", &format!("127.0.0.1:{port}")])
                .args(args)
                .envs(env.iter().map(|(name, value)| (name, value)));
            command
        };
        let ready = |port| format!("http://127.0.0.1:{port}");
        let server = Server::start(command, ready).await;
        let registry = Self { server };
        answers(&format!("{}/v2/", registry.url())).await;
        registry
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

    /// Returns everything it has written so far, line by line.
    pub fn log(&self) -> Vec<String> {
        self.server.log()
    }

    pub fn has_logged(&self, text: &str) -> bool {
        self.server.has_logged(text)
    }

    /// Returns the process, to be signalled.
    pub const fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Asks it to end, and waits for its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.server.terminate().await
    }
}

/// Returns the path of the example registry.
///
/// # Panics
/// If the program is missing.
pub fn program() -> PathBuf {
    binary("registry")
}
