//! Tests that the registry reaches S3 and Redis over TLS, and verifies their certificates.

use test_support as support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;
use support::http::{Answer, Http, Image, PATIENCE, blob, until};
use support::minio::{PASSWORD, USER, serve};
use support::redis::{Redis, Setup, Version};
use support::registry::Registry;
use support::server::Server;
use support::tls::Certificates;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// A MinIO that serves one bucket over HTTPS.
struct SecureMinio {
    server: Server,
    _folder: TempDir,
}

impl SecureMinio {
    async fn start(certificates: &Certificates) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, certs) = (folder.path().join("data"), folder.path().join("certs"));
        // MinIO serves a folder as a bucket.
        fs::create_dir_all(data.join("registry")).unwrap();
        fs::create_dir(&certs).unwrap();
        fs::copy(certificates.path("server.pem"), certs.join("public.crt")).unwrap();
        fs::copy(certificates.path("server.key"), certs.join("private.key")).unwrap();
        let command = |port| {
            let mut command = serve(&data, port, PASSWORD);
            command.arg("--certs-dir").arg(&certs);
            command
        };
        let ready = |port| format!("API: https://127.0.0.1:{port}");
        Self {
            server: Server::start(command, ready).await,
            _folder: folder,
        }
    }

    /// Returns the variables with which the registry finds the bucket. The registry trusts these
    /// certificates in place of the platform's.
    fn env(&self, roots: &Certificates) -> Vec<(String, String)> {
        let endpoint = format!("https://127.0.0.1:{}", self.server.port());
        let roots = roots.path("ca.pem").display().to_string();
        [
            ("SSL_CERT_FILE", roots.as_str()),
            ("AWS_ENDPOINT", &endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", USER),
            ("AWS_SECRET_ACCESS_KEY", PASSWORD),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

fn is_pushed(answer: &Answer) -> bool {
    answer.status == 201
}

fn is_hit(answer: &Answer, tier: &str) -> bool {
    answer.header("cache-status") == Some(&*format!("layercache; hit; detail={tier}"))
}

#[tokio::test]
async fn an_image_is_pushed_and_pulled_with_s3_and_redis_over_tls() {
    let certificates = Arc::new(Certificates::make_all());
    let minio = SecureMinio::start(&certificates).await;
    let setup = Setup::new(Version::Redis, &[]).with_tls(&certificates);
    let redis = Redis::start_as(setup).await;
    let args = [
        "--storage",
        "s3://registry/images",
        "--redis",
        &redis.url(),
        "--redis-timeout",
        "5s",
    ];
    let env = minio.env(&certificates);
    let (node, other) = (
        Registry::start(&args, &env).await,
        Registry::start(&args, &env).await,
    );
    let (http, other_http) = (Http::new(&node), Http::new(&other));

    let image = Image::new(1);
    until(|| http.try_push_blob("a/b", &image.layer), is_pushed).await;
    http.push("a/b", "latest", &image).await;
    other_http.pulls("a/b", "latest", &image).await;
    let layer = blob("a/b", &image.layer_digest());
    until(|| http.head(&layer), |answer| is_hit(answer, "memory")).await;
    let cold = Registry::start(&args, &env).await;
    let first_answer = Http::new(&cold).head(&layer).await.expect(200);
    assert!(is_hit(&first_answer, "redis"), "{first_answer:?}");
}

#[tokio::test]
async fn an_s3_server_with_an_unknown_certificate_is_refused() {
    let (known, unknown) = (Certificates::make_all(), Certificates::make_all());
    let minio = SecureMinio::start(&known).await;
    let start = async |roots: &Certificates| {
        let args = ["--storage", "s3://registry/images"];
        Registry::start(&args, &minio.env(roots)).await
    };
    let trusting = start(&known).await;
    let push = async || Http::new(&trusting).try_push_blob("a/b", b"content").await;
    until(push, is_pushed).await;

    let node = start(&unknown).await;
    let http = Http::new(&node);
    // The registry repeats the request for some time, and logs each failure.
    let is_logged = async || {
        while !node.has_logged("transport error of kind Connect") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        answer = http.try_push_blob("a/b", b"other") => panic!("the registry answered: {answer:?}"),
        logged = timeout(PATIENCE, is_logged()) => logged.expect("no error of the connection was logged"),
    }
}
