//! Tests that passwords and keys appear nowhere, with and without failures: not in logs of any
//! level, `Debug`, errors, metrics or answers.

use test_support as support;

use layercache::{
    CachedStore, ChangePolicy, Digest, Freshness, LayerInfoCache, Link, MemoryConfig, RedisCache,
    RedisConfig, TieredCache,
};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::error::Error;
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::Duration;
use support::bucket::Bucket;
use support::http::{Http, Image};
use support::log::Log;
use support::minio::Minio;
use support::redis::Redis;
use support::registry::{Registry, program};
use support::server::free_port;
use support::tls::choose_cryptography;
use tempfile::TempDir;

/// A text that all secrets of these tests contain, even when they are encoded.
const MARK: &str = "s3cr3t";
const PASSWORD: &str = "s3cr3t-of-all";
/// This one contains characters that must be encoded in a URL.
const OF_APP: &str = "s3cr3t:of/app@x";
const OF_APP_ENCODED: &str = "s3cr3t%3Aof%2Fapp%40x";

#[track_caller]
fn is_clean(what: &str, text: &str) {
    if let Some(at) = text.find(MARK) {
        let around = text.get(at.saturating_sub(300)..at + 40);
        panic!("{what} shows a secret: {}", around.unwrap_or(text));
    }
}

/// A Redis with a password, a user with all rights and a user without rights.
struct Servers {
    redis: Redis,
    folder: TempDir,
}

impl Servers {
    async fn start() -> Self {
        choose_cryptography();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let args = ["--requirepass", PASSWORD, "--unixsocket"];
        let args = [&args[..], &[socket.to_str().unwrap()]].concat();
        let redis = Redis::start_with(&args).await;
        for (user, may) in [("app", "+@all"), ("nobody", "-@all")] {
            let password = format!(">{OF_APP}");
            redis.cli(&["ACL", "SETUSER", user, "on", &password, "~*", "&*", may]);
        }
        Self { redis, folder }
    }

    /// Returns addresses of every form, and whether the server can be reached with each.
    fn urls(&self) -> Vec<(String, bool)> {
        let address = self.redis.address();
        let socket = self.folder.path().join("redis.sock");
        let socket = socket.display();
        let unused = free_port();
        vec![
            (format!("redis://:{PASSWORD}@{address}"), true),
            (format!("redis://default:{PASSWORD}@{address}/0"), true),
            (format!("redis://app:{OF_APP_ENCODED}@{address}"), true),
            (format!("unix://{socket}?pass={PASSWORD}"), true),
            (
                format!("redis+unix://{socket}?user=app&pass={OF_APP_ENCODED}"),
                true,
            ),
            // A wrong password, a wrong user, and the user without rights.
            (format!("redis://:{MARK}-wrong@{address}"), false),
            (
                format!("redis://{MARK}-user:{OF_APP_ENCODED}@{address}"),
                false,
            ),
            (format!("redis://nobody:{OF_APP_ENCODED}@{address}"), false),
            (format!("unix://{socket}?pass={MARK}-wrong"), false),
            // No server at the address, and TLS to a server without TLS.
            (format!("redis://:{PASSWORD}@127.0.0.1:{unused}"), false),
            (format!("unix://{socket}-none?pass={PASSWORD}"), false),
            (format!("rediss://:{PASSWORD}@{address}"), false),
            (
                format!("rediss://app:{OF_APP_ENCODED}@{address}/#insecure"),
                false,
            ),
            (format!("redis://:{PASSWORD}@unknown.invalid"), false),
            // Sentinel and cluster addresses of a server that is neither.
            (
                format!(
                    "redis+sentinel://app:{OF_APP_ENCODED}@{address}/it?sentinel_password={PASSWORD}"
                ),
                false,
            ),
            (
                format!(
                    "redis+sentinel://:{PASSWORD}@127.0.0.1:{unused}/it?sentinel_password={MARK}-x"
                ),
                false,
            ),
            (
                format!("redis+cluster://app:{OF_APP_ENCODED}@{address}"),
                false,
            ),
        ]
    }
}

/// Texts that are no address of a Redis. Each has a secret where one might be.
const NO_URLS: &[&str] = &[
    "s3cr3t",
    ":s3cr3t@host",
    "reddis://:s3cr3t@host",
    "redis:/:s3cr3t@host",
    "redis//:s3cr3t@host",
    "redis://:s3cr3t@host:port",
    "redis://:s3cr3t@host:99999",
    "redis://:s3cr3t@",
    "redis://:s3cr3t@host/database",
    "redis://:s3cr3t%@host",
    "redis://:s3cr3t%ff%fe@host",
    "redis://s3cr3t%ff:x@host",
    "redis://:s3cr3t@[::1",
    "redis://:s3cr3t@ho st",
    "redis://:s3cr3t@host/?protocol=s3cr3t",
    "rediss://:s3cr3t@host/#s3cr3t",
    "unix://?pass=s3cr3t",
    "unix:///x?db=s3cr3t",
    "http://:s3cr3t@host",
    "s3cr3t://host",
    "redis+sentinel://:s3cr3t@host",
    "redis+sentinel://:s3cr3t@host/it?s3cr3t=x",
    "redis+cluster://:s3cr3t@host/7",
    "redis+s3cr3t://host",
    "rediss://:s3cr3t@host/?ca=/s3cr3t",
    "rediss://:s3cr3t@host/?cert=/s3cr3t",
    "rediss://:s3cr3t@host/?cert=/s3cr3t&key=/s3cr3t",
];

/// Everything that this process logs, at every level.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    log
});

/// Returns an error and all its sources, as `Display` and as `Debug` print them.
fn chain(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("\n{error} {error:?}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn the_library_shows_no_secret() {
    let log = LOG.clone();
    let servers = Servers::start().await;
    let digest = Digest::Sha256([7; 32]);
    let link = Link::layer("library/alpine".parse().unwrap(), digest);
    for (url, is_well) in servers.urls() {
        let config = RedisConfig::new(&url)
            .with_timeout(Duration::from_secs(1))
            .with_change_timeout(Duration::from_secs(1))
            .with_change_policy(ChangePolicy::Strict);
        is_clean("Debug", &format!("{config:?} {config:#?}"));
        let cache = RedisCache::new(config.clone()).unwrap();
        let added = cache.add(&link).await;
        assert_eq!(added.is_ok(), is_well, "{url}");
        let known = cache.contains(&link).await;
        assert!(known.is_ok() || !is_well, "{url}: {known:?}");
        for error in [added.err(), known.err()].into_iter().flatten() {
            is_clean("an error of a cache", &chain(&error));
        }
        let tiered = TieredCache::with_redis(MemoryConfig::default(), cache);
        is_clean("Debug", &format!("{tiered:?} {tiered:#?}"));

        let builder = CachedStore::builder(InMemory::new()).redis(config);
        is_clean("Debug", &format!("{builder:?} {builder:#?}"));
        let store = builder.build().unwrap();
        let (registry, path) = (store.registry(), Path::from("docker/registry/v2/x"));
        let repository = registry.repository("library/alpine".parse().unwrap());
        let blobs = registry.blobs();
        is_clean(
            "Debug",
            &format!("{store:?} {store:#?} {registry:?} {repository:?} {blobs:?}"),
        );
        let stat = repository.stat(&digest, Freshness::Cached).await;
        assert_eq!(
            stat.unwrap().value,
            None,
            "no read fails because of a cache"
        );
        let changed = repository.link(&digest).await;
        assert_eq!(changed.is_ok(), is_well, "{url}: {changed:?}");
        let purged = store.purge().await;
        assert_eq!(purged.is_ok(), is_well, "{url}: {purged:?}");
        for error in [changed.err(), purged.err()].into_iter().flatten() {
            is_clean("an error of a change", &chain(&error));
        }
        if let Err(error) = store.get(&path).await {
            is_clean("an error of the store", &chain(&error));
        }
        store.shutdown().await;
    }
    for url in NO_URLS {
        let errors = [
            RedisCache::new(RedisConfig::new(*url)).err(),
            CachedStore::builder(InMemory::new())
                .redis(RedisConfig::new(*url))
                .build()
                .err(),
        ];
        for error in errors {
            // The parser accepts some of these texts in another meaning, so they cause no error.
            let Some(error) = error else { continue };
            is_clean("an error of a setting", &chain(&error));
        }
    }
    let log = log.text();
    for line in ["connected to Redis", "Redis is not asked", "TRACE", "DEBUG"] {
        assert!(log.contains(line), "the log is incomplete: no {line:?}");
    }
    is_clean("the log", &log);
}

/// Checks that a registry's answers, metrics and log contain no secret, and returns the log.
async fn shows_no_secret(
    mut registry: Registry,
    what: &str,
    is_used: impl AsyncFnOnce(&Http),
) -> String {
    let http = Http::new(&registry);
    is_used(&http).await;
    let metrics = http.get("/metrics").await.expect(200);
    is_clean("/metrics", &metrics.text());
    registry.terminate().await;
    let log = registry.log().join("\n");
    assert!(log.contains("registry on http://"), "{what}: {log}");
    is_clean(what, &log);
    log
}

fn tracing_all() -> Vec<(String, String)> {
    vec![("RUST_LOG".to_owned(), "trace".to_owned())]
}

#[tokio::test]
async fn the_example_shows_no_secret_of_redis() {
    let servers = Servers::start().await;
    for (i, (url, is_well)) in servers.urls().into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let storage = ["--storage", folder.path().to_str().unwrap()];
        let timeout = ["--redis-timeout", "2s", "--redis-change-timeout", "2s"];
        let timeout = [&timeout[..], &["--change-policy", "strict"]].concat();
        let (mut args, mut env) = ([&storage[..], &timeout].concat(), tracing_all());
        match i % 2 {
            0 => args.extend(["--redis", &url]),
            _ => env.push(("LAYERCACHE_REDIS_URL".to_owned(), url.clone())),
        }
        let registry = Registry::start(&[&args[..], &["--admin"]].concat(), &env).await;
        let used = async |http: &Http| {
            let image = Image::new(1);
            let pushed = http.try_push_blob("a/b", &image.layer).await;
            is_clean("an answer", &format!("{pushed:?}"));
            assert_eq!(pushed.status, if is_well { 201 } else { 503 }, "{pushed:?}");
            let path = support::http::blob("a/b", &image.layer_digest());
            http.head(&path)
                .await
                .expect(if is_well { 200 } else { 404 });
            for answer in [http.delete(&path).await, http.post("/admin/purge").await] {
                is_clean("an answer", &format!("{answer:?}"));
            }
        };
        let what = format!("the log with the {i}th address");
        let log = shows_no_secret(registry, &what, used).await;
        assert!(is_well || log.contains("DEBUG"), "{what}: not all of it");
    }
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program());
    command.args(["--listen", "127.0.0.1:0", "--storage", "memory://"]);
    command.env("RUST_LOG", "trace").args(args);
    command.envs(env.iter().copied()).output().unwrap()
}

#[track_caller]
fn prints_no_secret(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    let text = String::from_utf8_lossy(&[&out[..], err].concat()).into_owned();
    is_clean("what it prints", &text);
    text
}

#[tokio::test]
async fn the_example_does_not_print_refused_settings() {
    let mut refused = 0;
    for url in NO_URLS {
        if RedisCache::new(RedisConfig::new(*url)).is_ok() {
            continue;
        }
        for output in [
            run(&["--redis", url], &[]),
            run(&[], &[("LAYERCACHE_REDIS_URL", url)]),
        ] {
            assert!(!output.status.success());
            let text = prints_no_secret(&output);
            assert!(text.contains("--redis"), "{text}");
            refused += 1;
        }
    }
    assert!(refused >= NO_URLS.len(), "too few were refused");
    let keys = "s3://key:s3cr3t@bucket";
    for output in [
        run(
            &["--help"],
            &[
                ("LAYERCACHE_REDIS_URL", "redis://:s3cr3t@host"),
                ("LAYERCACHE_STORAGE", keys),
            ],
        ),
        Command::new(program())
            .args(["--storage", keys])
            .output()
            .unwrap(),
        Command::new(program())
            .env("LAYERCACHE_STORAGE", keys)
            .output()
            .unwrap(),
    ] {
        prints_no_secret(&output);
    }
}

fn with(env: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let mut env: Vec<_> = env
        .iter()
        .filter(|(other, _)| other != name)
        .cloned()
        .collect();
    env.push((name.to_owned(), value.to_owned()));
    env.extend(tracing_all());
    env
}

/// Checks that neither the log nor an answer contains the key, which is in the environment.
async fn of_s3(env: &[(String, String)], storage: &str, is_well: bool) {
    let env = [env, &tracing_all()].concat();
    let registry = Registry::start(&["--storage", storage], &env).await;
    let used = async |http: &Http| {
        let image = Image::new(1);
        let pushed = http.try_push_blob("a/b", &image.layer).await;
        is_clean("an answer", &format!("{pushed:?}"));
        assert_eq!(pushed.status, if is_well { 201 } else { 500 }, "{pushed:?}");
        let path = support::http::blob("a/b", &image.layer_digest());
        for answer in [
            http.head(&path).await,
            http.get(&path).await,
            http.delete(&path).await,
        ] {
            is_clean("an answer", &format!("{answer:?}"));
        }
    };
    let log = shows_no_secret(registry, "the log with S3", used).await;
    assert!(log.contains("DEBUG"), "not all of it: {log}");
}

#[tokio::test]
async fn the_example_shows_no_secret_of_s3() {
    let minio = Minio::start_with_password("s3cr3t-of-minio").await;
    let bucket = minio.bucket().await;
    let (env, storage) = (minio.env(&bucket), format!("s3://{bucket}/x"));
    of_s3(&env, &storage, true).await;
    of_s3(
        &with(&env, "AWS_SECRET_ACCESS_KEY", "s3cr3t-wrong"),
        &storage,
        false,
    )
    .await;
    of_s3(
        &with(&env, "AWS_SESSION_TOKEN", "s3cr3t-token"),
        &storage,
        false,
    )
    .await;

    let store = CachedStore::new(minio.store(&bucket));
    is_clean(
        "Debug",
        &format!("{store:?} {store:#?} {:?}", store.registry()),
    );
    let wrong = minio
        .builder(&bucket)
        .with_secret_access_key("s3cr3t-wrong");
    let store = CachedStore::new(wrong.build().unwrap());
    let error = store.get(&Path::from("x")).await.unwrap_err();
    is_clean("an error of S3", &chain(&error));
    let repository = store.registry().repository("a/b".parse().unwrap());
    let error = repository
        .stat(&Digest::Sha256([7; 32]), Freshness::Cached)
        .await;
    is_clean("an error of S3", &chain(&error.unwrap_err()));
}

/// This server accepts any key, so it answers requests with a token.
#[tokio::test]
async fn the_example_shows_no_session_token() {
    let bucket = Bucket::start().await;
    let hex = Image::new(1).layer_digest().replace("sha256:", "");
    let root = "docker/registry/v2";
    bucket.put(
        &format!("{root}/blobs/sha256/{}/{hex}/data", &hex[..2]),
        "content",
    );
    let link = format!("{root}/repositories/a/b/_layers/sha256/{hex}/link");
    bucket.put(&link, format!("sha256:{hex}"));
    let env = with(&bucket.env(), "AWS_SESSION_TOKEN", "s3cr3t-token");
    let registry = Registry::start(&["--storage", Bucket::STORAGE], &env).await;
    let path = support::http::blob("a/b", &format!("sha256:{hex}"));
    let used = async |http: &Http| {
        http.head(&path).await.expect(200);
        http.get(&path).await.expect(200);
        http.delete(&path).await.expect(202);
    };
    shows_no_secret(registry, "the log with a token", used).await;
}
