//! Tests requests to a registry: an invalid name or digest reaches no tier.

use test_support::guarded::head;
use test_support::http::{Http, Image, Node, blob};
use test_support::redis::Redis;

/// Commands that use the key of a fact. Heartbeats use other commands.
const OF_FACTS: [&str; 8] = [
    "sismember",
    "hmget",
    "sadd",
    "srem",
    "hset",
    "hdel",
    "set",
    "get",
];

/// Returns how often these commands were called since the counts were reset.
fn calls(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse::<u64>().ok()?;
        OF_FACTS.contains(&name).then_some(calls)
    };
    stats.lines().filter_map(count).sum()
}

/// Returns the keys of facts.
fn keys(redis: &Redis) -> Vec<String> {
    let keys = redis.cli(&["KEYS", "*"]);
    let is_of_a_fact = |key: &&str| !key.starts_with("layercache::{nodes}");
    let mut keys: Vec<_> = keys
        .lines()
        .filter(is_of_a_fact)
        .map(str::to_owned)
        .collect();
    keys.sort();
    keys
}

/// Returns names as a client sends them, each with the form in which it would be part of a key.
fn names() -> Vec<String> {
    let names = "%7b %7d %7ba%7d a%7db a* * a%0ab a%0d%0ab a::b :: a:b %5b%5d a%3f A a/B \
        a%00 %00 %ff %c3%a4 .. a/../b a//b a%20b %22 ' a%5cb lease::a blobs repository::a::blobs";
    let is_none = |name: &&str| *name != "blobs";
    let names = names
        .split(' ')
        .filter(|name| !name.is_empty())
        .filter(is_none);
    let long = ["a".repeat(256), "a".repeat(300), "a/".repeat(30_000) + "a"];
    names.map(str::to_owned).chain(long).collect()
}

fn digests() -> Vec<String> {
    let hex = "ab".repeat(32);
    vec![
        "sha256:".to_owned(),
        "sha256:*".to_owned(),
        "sha256:%7b%7d".to_owned(),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}%0a"),
        format!("sha256:{hex}%00"),
        format!("sha256::{hex}"),
        format!("sha256:{hex}::x"),
        format!("sha512:{hex}"),
        format!("sha384:{hex}{}", &hex[32..]),
        format!("sha1:{}", &hex[..40]),
        format!("md5:{}", &hex[..32]),
        format!("SHA256:{hex}"),
        format!("sha256+b64:{hex}"),
        "sha256:".to_owned() + &"a".repeat(50_000),
    ]
}

/// Sends a request of each kind that names a repository and a digest.
async fn ask_everything(http: &Http, name: &str, digest: &str) {
    let upload = "00000000-0000-0000-0000-000000000000";
    for (method, place) in [
        ("GET", format!("blobs/{digest}")),
        ("HEAD", format!("blobs/{digest}")),
        ("DELETE", format!("blobs/{digest}")),
        ("GET", format!("manifests/{digest}")),
        ("HEAD", format!("manifests/{digest}")),
        ("PUT", format!("manifests/{digest}")),
        ("DELETE", format!("manifests/{digest}")),
        ("GET", format!("referrers/{digest}")),
        ("POST", format!("blobs/uploads/?digest={digest}")),
        ("POST", format!("blobs/uploads/?mount={digest}&from=a/b")),
        ("PUT", format!("blobs/uploads/{upload}?digest={digest}")),
    ] {
        let target = format!("/v2/{name}/{place}");
        let request = head(method, &target, "Content-Length: 2\r\n") + "{}";
        let answer = http.raw(request).await;
        let status = answer.map_or(400, |answer| answer.status);
        assert!((400..500).contains(&status), "{method} {target}: {status}");
    }
}

#[tokio::test]
async fn only_parsed_names_and_digests_become_redis_keys() {
    let (redis, image) = (Redis::start().await, Image::new(1));
    let args = ["--redis", &redis.url(), "--redis-timeout", "5s"];
    let node = Node::start_with(&args).await;
    let (http, digest) = (&node.http, image.layer_digest());
    http.push("a/b", "latest", &image).await;
    http.head(&blob("a/b", &digest)).await.expect(200);
    let before = keys(&redis);
    redis.cli(&["CONFIG", "RESETSTAT"]);
    for name in names() {
        ask_everything(http, &name, &digest).await;
        let from = format!("/v2/a/b/blobs/uploads/?mount={digest}&from={name}");
        let request = head("POST", &from, "Content-Length: 0\r\n");
        let status = http.raw(request).await.map(|answer| answer.status);
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{from}"
        );
        assert_eq!(calls(&redis), 0, "{name} has reached Redis");
    }
    for digest in digests() {
        ask_everything(http, "a/b", &digest).await;
        assert_eq!(calls(&redis), 0, "{digest} has reached Redis");
    }
    assert_eq!(keys(&redis), before);
    // A valid request does reach Redis.
    http.head(&blob("c/d", &digest)).await.expect(404);
    assert!(calls(&redis) > 0);
    http.pulls("a/b", "latest", &image).await;
}
