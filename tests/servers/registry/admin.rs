//! Tests the purge of the example registry. Operators run it after a garbage collection.

use test_support as support;

use std::fs;
use std::path::Path;
use support::http::{Answer, CONFIG, Http, Image, Node, answer, blob, manifest_path, over, until};
use support::image::sha256;
use support::redis::Redis;
use support::registry::Registry;

const PURGE: &str = "/admin/purge";
const MEMORY: &str = "layercache; hit; detail=memory";

/// Three nodes over one folder and one Redis. The memory of each node has the image.
struct Cluster {
    first: Node,
    others: [Registry; 2],
    image: Image,
    redis: Redis,
}

impl Cluster {
    async fn start() -> Self {
        let (redis, image) = (Redis::start().await, Image::new(1));
        let url = redis.url();
        let args = ["--admin", "--redis", &url, "--redis-timeout", "5s"];
        let first = Node::start_with(&args).await;
        let others = [
            over(first.folder(), &args).await,
            over(first.folder(), &args).await,
        ];
        first.http.push("a/b", "latest", &image).await;
        let cluster = Self {
            first,
            others,
            image,
            redis,
        };
        for http in cluster.clients() {
            for path in cluster.paths() {
                until(|| http.head(&path), is_from_memory).await;
            }
        }
        cluster
    }

    fn clients(&self) -> [Http; 3] {
        let [second, third] = &self.others;
        [self.first.http.clone(), Http::new(second), Http::new(third)]
    }

    /// Returns the paths of all parts of the image.
    fn paths(&self) -> [String; 3] {
        [
            blob("a/b", &sha256(CONFIG)),
            blob("a/b", &self.image.layer_digest()),
            manifest_path("a/b", &self.image.digest()),
        ]
    }

    /// Deletes content and links without telling any node, as garbage collection does.
    fn collect(&self) {
        self.first.collect(&sha256(CONFIG));
        self.first.collect(&self.image.layer_digest());
        let repository = Path::new("docker/registry/v2/repositories/a/b");
        for (links, digest) in [
            ("_layers/sha256", sha256(CONFIG)),
            ("_manifests/revisions/sha256", self.image.digest()),
        ] {
            let hex = digest.strip_prefix("sha256:").unwrap();
            let link = repository.join(links).join(hex).join("link");
            fs::remove_file(self.first.folder().join(link)).unwrap();
        }
    }
}

fn is_from_memory(answer: &Answer) -> bool {
    answer.header("cache-status") == Some(MEMORY)
}

#[tokio::test]
async fn purge_is_off_by_default() {
    let (off, image) = Node::with_image().await;
    let path = blob("a/b", &image.layer_digest());
    until(|| off.http.head(&path), is_from_memory).await;
    for method in ["POST", "GET", "PUT"] {
        let unknown = answer(off.http.ask(method, "/admin/other")).await;
        let purge = answer(off.http.ask(method, PURGE)).await;
        assert_eq!(
            purge.text(),
            unknown.text(),
            "a disabled endpoint must look like an unknown one"
        );
        purge.refused(404, "NAME_UNKNOWN");
    }
    assert!(is_from_memory(&off.http.head(&path).await));
    assert!(!off.registry.has_logged(PURGE));

    for (value, status) in [("true", 204), ("false", 404)] {
        let storage = ["--storage", off.folder().to_str().unwrap()];
        let env = [("LAYERCACHE_ADMIN".to_owned(), value.to_owned())];
        let node = Registry::start(&storage, &env).await;
        Http::new(&node).post(PURGE).await.expect(status);
        assert_eq!(node.has_logged(PURGE), status == 204);
    }
}

#[tokio::test]
async fn purge_accepts_only_post() {
    let node = Node::start_with(&["--admin"]).await;
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let answer = answer(node.http.ask(method, PURGE)).await;
        let answer = answer.refused(405, "UNSUPPORTED");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    let purged = node.http.post(PURGE).await.expect(204);
    assert_eq!(purged.body, b"");
}

#[tokio::test]
async fn a_purge_on_one_node_after_garbage_collection_corrects_all_nodes() {
    let cluster = Cluster::start().await;
    cluster.collect();
    for http in cluster.clients() {
        for path in cluster.paths() {
            http.head(&path).await.expect(200);
        }
    }
    let [_, through, _] = cluster.clients();
    through.post(PURGE).await.expect(204);
    for http in cluster.clients() {
        for path in cluster.paths() {
            http.head(&path).await.expect(404);
        }
    }
    // A client that asks which layers it can skip now gets the right answer, so its push is
    // complete.
    through.push("a/b", "latest", &cluster.image).await;
    for http in cluster.clients() {
        http.pulls("a/b", "latest", &cluster.image).await;
    }
}

#[tokio::test]
async fn a_purge_fails_with_503_while_redis_is_down() {
    let mut cluster = Cluster::start().await;
    cluster.collect();
    cluster.redis.kill();
    let http = &cluster.first.http;
    let refused = http.post(PURGE).await.refused(503, "UNAVAILABLE");
    assert!(refused.header("retry-after").is_some());
    refused.hides(&[&cluster.redis.address(), "127.0.0.1"]);
    // This node has removed its own facts nevertheless.
    for path in cluster.paths() {
        http.head(&path).await.expect(404);
    }
    cluster.redis.restart_on_same_port().await;
    until(|| http.post(PURGE), |answer| answer.status == 204).await;
    for http in cluster.clients() {
        for path in cluster.paths() {
            http.head(&path).await.expect(404);
        }
    }
}
