//! Starts MinIO behind a proxy, a small Redis, and nodes of the example.

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::aws::AmazonS3;
use std::collections::HashSet;
use test_support::minio::Minio;
use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::registry::Registry;

/// The number of nodes.
pub(crate) const NODES: usize = 2;

/// The memory limit of Redis. Redis evicts nothing, so at this limit it stays full until keys are
/// deleted.
const MAX_MEMORY: &str = "32mb";

pub(crate) struct World {
    pub(crate) nodes: Vec<Registry>,
    pub(crate) redis: Redis,
    /// The proxy between the nodes and S3.
    pub(crate) proxy: Proxy,
    /// The same bucket, without the proxy.
    bucket: AmazonS3,
    _minio: Minio,
}

impl World {
    pub(crate) async fn start() -> Self {
        let minio = Minio::start().await;
        let bucket = minio.bucket().await;
        let port = minio.endpoint().strip_prefix("http://127.0.0.1:");
        let port = port.expect("a MinIO of our own: a proxy stands before it");
        let proxy = Proxy::start(port.parse().unwrap()).await;
        let args = ["--maxmemory", MAX_MEMORY, "--maxmemory-policy"];
        let redis = Redis::start_with(&[&args[..], &["noeviction"]].concat()).await;

        let mut env = minio.env(&bucket);
        for (name, value) in &mut env {
            if name == "AWS_ENDPOINT" {
                *value = format!("http://127.0.0.1:{}", proxy.port());
            }
        }
        // Unused connections are closed soon, so that they do not look like a leak.
        env.push(("AWS_POOL_IDLE_TIMEOUT".to_owned(), "3s".to_owned()));
        let (url, storage) = (redis.url(), format!("s3://{bucket}/registry"));
        let args = ["--storage", &storage, "--redis", &url];
        // A long deadline for a busy machine, because this test does not test the deadline.
        let args = [&args[..], &["--redis-timeout", "1s"]].concat();
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(Registry::start(&args, &env).await);
        }
        Self {
            nodes,
            redis,
            proxy,
            bucket: minio.store(&bucket),
            _minio: minio,
        }
    }

    /// Returns all objects below the root of the storage.
    pub(crate) async fn objects(&self) -> HashSet<String> {
        let objects = self.bucket.list(None);
        let keys = objects.map_ok(|object| {
            let key = object.location.as_ref();
            key.strip_prefix("registry/").unwrap_or(key).to_owned()
        });
        keys.try_collect().await.expect("a list of the bucket")
    }
}
