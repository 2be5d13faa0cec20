//! Provides a real S3 server: MinIO, or the server that the environment names.

use super::server::{Server, Signal, answers, free_port};
use super::tools::require;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3CopyIfNotExists};
use object_store::path::Path;
use object_store::signer::Signer;
use std::env;
use std::path::Path as Folder;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// The access key of the servers that [`serve`] starts.
pub const USER: &str = "layercache";

/// The secret key of these servers, unless the test chooses another one.
pub const PASSWORD: &str = "layercache-secret";

/// Returns the command that serves a folder as S3 on this port. Each folder in it is a bucket.
pub fn serve(folder: &Folder, port: u16, password: &str) -> Command {
    let mut command = Command::new(require("minio"));
    command
        .arg("server")
        .arg(folder)
        .args(["--address", &format!("127.0.0.1:{port}")])
        .args(["--console-address", &format!("127.0.0.1:{}", free_port())])
        .env("MINIO_ROOT_USER", USER)
        .env("MINIO_ROOT_PASSWORD", password)
        .env("MINIO_BROWSER", "off")
        // MinIO then does not look for a newer release.
        .env("MINIO_UPDATE", "off");
    command
}

/// An S3 server with buckets for tests.
///
/// If `LAYERCACHE_TEST_S3_ENDPOINT` is set, the tests use that server instead of a MinIO of their
/// own, with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and the existing, empty
/// bucket `LAYERCACHE_TEST_S3_BUCKET`. Tests then run one after the other, and each leaves its
/// objects in the bucket.
#[derive(Debug)]
pub struct Minio {
    endpoint: String,
    user: String,
    password: String,
    region: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ours {
        server: Server,
        _folder: TempDir,
    },
    Theirs {
        bucket: String,
        _turn: MutexGuard<'static, ()>,
    },
}

impl Minio {
    /// Starts a server for this test alone, which may signal and kill it.
    pub async fn start() -> Self {
        match env::var("LAYERCACHE_TEST_S3_ENDPOINT") {
            Ok(endpoint) => Self::theirs(endpoint).await,
            Err(_) => Self::ours(PASSWORD).await,
        }
    }

    /// Starts a MinIO with this secret key, whatever the environment names.
    pub async fn start_with_password(password: &str) -> Self {
        Self::ours(password).await
    }

    /// Returns a server that all running tests share. It ends with the last of them.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Minio>> = Mutex::const_new(Weak::new());
        if env::var_os("LAYERCACHE_TEST_S3_ENDPOINT").is_some() {
            return Arc::new(Self::start().await);
        }
        let mut shared = SHARED.lock().await;
        if let Some(minio) = shared.upgrade() {
            return minio;
        }
        let minio = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&minio);
        minio
    }

    async fn ours(password: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for MinIO");
        let command = |port| serve(folder.path(), port, password);
        let ready = |port| format!("API: http://127.0.0.1:{port}");
        let server = Server::start(command, ready).await;
        let endpoint = format!("http://127.0.0.1:{}", server.port());
        answers(&format!("{endpoint}/minio/health/ready")).await;
        Self {
            endpoint,
            user: USER.to_owned(),
            password: password.to_owned(),
            region: "us-east-1".to_owned(),
            kind: Kind::Ours {
                server,
                _folder: folder,
            },
        }
    }

    async fn theirs(endpoint: String) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let var = |name| {
            env::var(name).unwrap_or_else(|_| panic!("LAYERCACHE_TEST_S3_ENDPOINT needs {name}"))
        };
        Self {
            endpoint,
            user: var("AWS_ACCESS_KEY_ID"),
            password: var("AWS_SECRET_ACCESS_KEY"),
            region: env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned()),
            kind: Kind::Theirs {
                bucket: var("LAYERCACHE_TEST_S3_BUCKET"),
                _turn: TURN.lock().await,
            },
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Makes a new bucket and returns its name.
    pub async fn bucket(&self) -> String {
        if let Kind::Theirs { bucket, .. } = &self.kind {
            return bucket.clone();
        }
        let bucket = format!("test-{}", uuid::Uuid::new_v4());
        // `object_store` cannot make buckets, but a signed PUT to the root of the bucket does.
        let root = self
            .store(&bucket)
            .signed_url(
                reqwest::Method::PUT,
                &Path::default(),
                Duration::from_secs(60),
            )
            .await
            .expect("a signed URL");
        let answer = reqwest::Client::new().put(root).send().await;
        let answer = answer.expect("an answer of MinIO");
        assert!(answer.status().is_success(), "no bucket: {answer:?}");
        bucket
    }

    /// Returns the bucket as an `object_store`.
    pub fn store(&self, bucket: &str) -> AmazonS3 {
        self.builder(bucket).build().expect("an S3 store")
    }

    /// Returns a builder for the bucket's `object_store`, for tests that configure it further.
    pub fn builder(&self, bucket: &str) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(self.endpoint.starts_with("http:"))
            .with_region(&self.region)
            .with_bucket_name(bucket)
            .with_access_key_id(&self.user)
            .with_secret_access_key(&self.password)
            .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
    }

    /// Returns a new bucket as an `object_store`.
    pub async fn new_store(&self) -> AmazonS3 {
        self.store(&self.bucket().await)
    }

    /// Returns the variables that a child process needs for `AmazonS3Builder::from_env`.
    pub fn env(&self, bucket: &str) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", self.endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", &self.region),
            ("AWS_BUCKET", bucket),
            ("AWS_ACCESS_KEY_ID", &self.user),
            ("AWS_SECRET_ACCESS_KEY", &self.password),
            ("AWS_COPY_IF_NOT_EXISTS", "multipart"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// # Panics
    /// If the server was not started by the tests.
    pub fn signal(&self, signal: Signal) {
        match &self.kind {
            Kind::Ours { server, .. } => server.signal(signal),
            Kind::Theirs { .. } => panic!("{} is not ours to signal", self.endpoint),
        }
    }
}
