//! Runs both registries over the same image in the same bucket, with the same Redis.

use super::client::Ask;
use super::s3_proxy::S3Proxy;
use crate::support::go_registry::GoRegistry;
use crate::support::image::{Image, write_oci_layout};
use crate::support::minio::Minio;
use crate::support::redis::Redis;
use crate::support::registry::{Registry, program};
use crate::support::skopeo;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};
use tempfile::TempDir;

/// The repository of the image.
const NAME: &str = "library/image";

/// An image in a bucket, a Redis, and a proxy in front of the bucket.
#[derive(Debug)]
pub struct Stage {
    pub redis: Redis,
    /// Counts the calls that reach the bucket.
    pub proxy: S3Proxy,
    minio: Minio,
    bucket: String,
    image: Image,
    layout: TempDir,
}

/// One of the two registries, while it runs.
#[derive(Debug)]
pub enum Side {
    Ours(Registry),
    Go(GoRegistry),
}

impl Side {
    /// Returns its `host:port`.
    pub fn address(&self) -> String {
        match self {
            Self::Ours(registry) => registry.address(),
            Self::Go(registry) => registry.address(),
        }
    }

    pub fn pid(&self) -> u32 {
        match self {
            Self::Ours(registry) => registry.pid(),
            Self::Go(registry) => registry.pid(),
        }
    }
}

impl Stage {
    /// Pushes an image of this many layers of about this many bytes, through the example.
    /// Afterwards each call of the bucket takes `delay` longer.
    pub async fn set(layers: usize, layer_bytes: usize, delay: Duration) -> Self {
        build_the_registry();
        let layout = tempfile::tempdir().expect("a folder for an image");
        let image = write_oci_layout(layout.path(), layers, layer_bytes);
        let minio = Minio::start().await;
        let stage = Self {
            redis: Redis::start().await,
            proxy: S3Proxy::start(minio.endpoint(), delay).await,
            bucket: minio.bucket().await,
            minio,
            image,
            layout,
        };
        let pushes = stage.example(stage.minio.endpoint(), &[]).await;
        let to = format!("{}/{NAME}:latest", pushes.address());
        skopeo::push(stage.layout.path(), &to);
        stage
    }

    /// Starts the example behind the proxy, with an empty Redis.
    pub async fn ours(&self) -> Side {
        self.redis.cli(&["FLUSHALL"]);
        let redis = self.redis.url();
        Side::Ours(
            self.example(&self.proxy.endpoint(), &["--redis", &redis])
                .await,
        )
    }

    /// Starts the example behind the proxy without a cache. It sends its look-ups to the bucket:
    /// with `verified` all at the same time, with `plain` one after the other.
    pub async fn ours_without_cache(&self, look_ups: &str) -> Side {
        let args = ["--look-ups", look_ups];
        Side::Ours(self.example(&self.proxy.endpoint(), &args).await)
    }

    async fn example(&self, endpoint: &str, args: &[&str]) -> Registry {
        let storage = format!("s3://{}", self.bucket);
        let mut env = self.minio.env(&self.bucket);
        env.push(("AWS_ENDPOINT".to_owned(), endpoint.to_owned()));
        let storage = ["--storage", storage.as_str()];
        Registry::start(&[&storage, args].concat(), &env).await
    }

    /// Starts the Go registry behind the proxy, with an empty Redis.
    pub async fn go(&self) -> Side {
        self.redis.cli(&["FLUSHALL"]);
        let env: HashMap<_, _> = self.minio.env(&self.bucket).into_iter().collect();
        let storage = json!({
            "s3": {
                "regionendpoint": self.proxy.endpoint(),
                "region": env["AWS_REGION"],
                "bucket": self.bucket,
                "accesskey": env["AWS_ACCESS_KEY_ID"],
                "secretkey": env["AWS_SECRET_ACCESS_KEY"],
                "secure": false,
            },
            // Both registries then send the content themselves.
            "redirect": { "disable": true },
            "maintenance": { "uploadpurging": { "enabled": false } },
        });
        Side::Go(GoRegistry::start_quiet(storage, &self.redis).await)
    }

    pub fn manifest(&self) -> Ask {
        let target = format!("/v2/{NAME}/manifests/{}", self.image.manifest);
        Ask::get(&target, self.length(&self.image.manifest))
    }

    /// Returns the request for the configuration, which is a blob but no layer.
    pub fn config(&self) -> Ask {
        self.blob("GET", &self.image.config)
    }

    pub fn layers(&self, method: &str) -> Vec<Ask> {
        let layers = self.image.layers.iter();
        layers.map(|digest| self.blob(method, digest)).collect()
    }

    fn blob(&self, method: &str, digest: &str) -> Ask {
        let target = format!("/v2/{NAME}/blobs/{digest}");
        Ask::new(method, &target, self.length(digest))
    }

    fn length(&self, digest: &str) -> usize {
        let file = self
            .layout
            .path()
            .join("blobs")
            .join(digest.replace(':', "/"));
        fs::metadata(file).expect("a blob of the image").len() as usize
    }
}

/// Builds the example, so that one command runs the bench. If it is built already, this does
/// nothing.
fn build_the_registry() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let bench = env::current_exe().expect("the path of this bench");
    // The path is `target/release/deps/name`. With a target platform it is one folder deeper, which
    // this does not support.
    let target = bench.ancestors().nth(3).expect("the folder of the target");
    let mut build = Command::new(cargo);
    // With the variables that Cargo sets for this bench, build scripts would run again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    let status = build
        .args([
            "build",
            "--release",
            "--package",
            "registry",
            "--target-dir",
        ])
        .arg(target)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .status();
    let status = status.expect("cargo");
    assert!(
        status.success() && program().is_file(),
        "no registry: {status}"
    );
}
