//! Tests wrong values of facts, each in the place of a right one.

use super::{Counted, MEMORY_HIT, MISS, REDIS_HIT};
use layercache::layout::{Distribution, Layout};
use layercache::{CacheStatus, Digest, Freshness, Link};
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutOptions,
};
use std::time::{Duration, Instant};
use test_support::nodes::{
    Bare, LENGTH, Node, PATIENCE, SET, bare, blob_path, config, digest, hash, layers, name, stat,
    until,
};
use test_support::redis::{Redis, Version};

/// Lua definitions that the lines of `META` and `MEMBERSHIP` use.
const WORDS: &str = r"
local set, hash, path, other = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local long = string.rep('7', 10000000)
local function put(field, value) redis.call('HSET', hash, field, value) end
local function be(key, command, ...) redis.call('DEL', key) redis.call(command, key, ...) end
";

/// Values in the place of a blob's metadata that neither a node nor a Go registry writes.
const META: &str = r"
be(hash, 'SET', 'x')
be(hash, 'SET', long)
be(hash, 'RPUSH', 'length', '7')
be(hash, 'SADD', 'length', 'path')
be(hash, 'ZADD', 7, 'length')
be(hash, 'XADD', '*', 'length', '7')

put('path', '')
put('path', '/' .. path)
put('path', path .. '/')
put('path', path .. '/../data')
put('path', '../' .. path)
put('path', 'etc/passwd')
put('path', other)
put('path', path .. '\0')
put('path', path .. '\n')
put('path', '\255')
put('path', long)

redis.call('HDEL', hash, 'length')
put('length', '')
put('length', '-7')
put('length', '+7')
put('length', ' 7')
put('length', '7 ')
put('length', '7\n')
put('length', '7\0')
put('length', '7.0')
put('length', '7e0')
put('length', '1e3')
put('length', '0x7')
put('length', '7_0')
put('length', 'inf')
put('length', '\217\167')
put('length', '0')
put('length', '9223372036854775808')
put('length', '18446744073709551616')
put('length', '-9223372036854775808')
put('length', string.rep('9', 400))
put('length', long)

put('size', '8')
put('size', '')
put('size', '-7')
put('size', long)
put('digest', '')
put('digest', 'sha256:')
put('digest', 'sha256:' .. string.rep('0', 64))
put('digest', 'sha512:' .. string.rep('0', 128))
put('digest', other)
put('digest', long)

put('last_modified', '')
put('last_modified', '0')
put('last_modified', '1.5')
put('last_modified', '-1.000000000')
put('last_modified', '1.-00000001')
put('last_modified', '1e9.000000000')
put('last_modified', '253402300800.000000000')
put('last_modified', '8210266876800.000000000')
put('last_modified', '9223372036854775807.000000000')
put('last_modified', '18446744073709551615.999999999')
put('last_modified', '99999999999999999999.000000000')
put('last_modified', long)

put('e_tag', 'x\r\nSet-Cookie: y')
put('e_tag', '\0')
put('e_tag', '\127')
put('e_tag', '\255')
put('e_tag', long)
put('version', 'x\n')
put('version', '\237\160\128')
put('version', long)

put('attributes', string.sub(redis.call('HGET', hash, 'attributes'), 1, -2))
put('attributes', redis.call('HGET', hash, 'attributes') .. '1:x')
put('attributes', '12:content-type')
put('attributes', '12:content-type99999999999999999999:x')
put('attributes', '12:content-type-1:x')
put('attributes', '12:content-type+1:x')
put('attributes', '12:content-type4:x\r\ny')
put('attributes', 'x')
put('attributes', '\255')
put('attributes', long)

for i = 1, 100000 do put('foreign' .. i, 'x') end put('length', '-7')
for _, field in ipairs({'path', 'length', 'e_tag', 'version', 'last_modified', 'attributes', 'size', 'digest'}) do put(field, string.sub(long, 1, 1000000)) end
";

/// Values in the place of a membership.
const MEMBERSHIP: &str = r"
be(set, 'SET', 'x')
be(set, 'SET', long)
be(set, 'RPUSH', 'x')
be(set, 'HSET', 'x', 'y')
be(set, 'ZADD', 7, 'x')
be(set, 'XADD', '*', 'x', 'y')
";

/// Values that say nothing about the fact and are no error. They count as a miss.
const NOTHING: &str = r"
redis.call('DEL', hash)
redis.call('DEL', set)
redis.call('SREM', set, string.sub(hash, 8))
be(set, 'SADD', '')
be(set, 'SADD', 'sha256:', 'x', long)
be(hash, 'HSET', 'mediatype', 'x')
";

fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.is_empty())
}

/// Puts a blob whose object has a value in each field.
async fn put(bare: &Bare, digest: &Digest) {
    let attributes: Attributes = [
        (Attribute::ContentType, "text/plain"),
        (Attribute::Metadata("a".into()), "b"),
    ]
    .into_iter()
    .collect();
    let options = PutOptions::from(attributes);
    let path = blob_path(digest);
    let content = "content".into();
    bare.inner()
        .put_opts(&path, content, options)
        .await
        .unwrap();
    let store = layercache::CachedStore::new(bare.clone());
    layers(&store).link(digest).await.unwrap();
}

/// Returns everything that a `head` answers, and the tier that answered.
async fn head(store: &impl ObjectStore, digest: &Digest) -> (ObjectMeta, Attributes, CacheStatus) {
    let options = GetOptions::new().with_head(true);
    let result = store.get_opts(&blob_path(digest), options).await.unwrap();
    let status = result.extensions.get().copied();
    (
        result.meta,
        result.attributes,
        status.unwrap_or(CacheStatus::Bypass),
    )
}

struct Table {
    redis: Redis,
    bare: Bare,
    /// The node that reads the broken values first. The node `later` reads them afterwards.
    first: Counted,
    later: Node,
    blob: u32,
}

impl Table {
    async fn of(version: Version) -> Self {
        let (redis, bare) = (Redis::start_of(version).await, bare(Duration::ZERO));
        Self {
            first: Counted::new(&bare, config(&redis)),
            later: Counted::new(&bare, config(&redis)).node,
            redis,
            bare,
            blob: 0,
        }
    }

    /// Lets Redis know a blob, and then runs the script that replaces its value.
    async fn spoil(&mut self, act: &str) -> Digest {
        self.blob += 1;
        let digest = digest(self.blob);
        put(&self.bare, &digest).await;
        until(&self.first.node, &digest, MEMORY_HIT).await;
        let path = blob_path(&digest).to_string();
        let other = blob_path(&test_support::nodes::digest(0)).to_string();
        let script = format!("{WORDS} {act}");
        let args = ["EVAL", &script, "2", SET, &hash(&digest), &path, &other];
        self.redis.cli(&args);
        self.first.node.clear_memory();
        self.later.clear_memory();
        digest
    }

    /// Checks that the node gives the store's answer.
    async fn is_right(&self, digest: &Digest, act: &str, by_head: bool) {
        let node = &self.first.node;
        let (reads, start) = (self.bare.reads(), Instant::now());
        if by_head {
            let (meta, attributes, status) = head(node, digest).await;
            let (right, also, _) = head(self.bare.inner(), digest).await;
            assert_eq!((meta, attributes), (right, also), "{act}");
            assert_eq!(status, CacheStatus::Miss, "{act}");
        } else {
            assert_eq!(stat(node, digest).await, MISS, "{act}");
        }
        assert!(
            start.elapsed() < PATIENCE / 2,
            "{act}: {:?}",
            start.elapsed()
        );
        assert!(
            self.bare.reads() > reads,
            "{act}: no read reached the store"
        );
    }

    /// Checks that Redis has the right values again, and that they expire.
    async fn is_repaired(&self, digest: &Digest, act: &str) {
        until(&self.first.node, digest, MEMORY_HIT).await;
        let (node, reads) = (&self.later, self.bare.reads());
        assert_eq!(stat(node, digest).await, REDIS_HIT, "{act}");
        let layers = layers(node);
        let answer = layers.stat(digest, Freshness::Cached).await.unwrap();
        let meta = answer.value.unwrap();
        assert_eq!(meta.length(), LENGTH, "{act}");
        assert_eq!(meta.path(), blob_path(digest).as_ref(), "{act}");
        let (meta, attributes, _) = head(node, digest).await;
        assert_eq!(
            self.bare.reads(),
            reads,
            "{act}: the read reached the store"
        );
        let (right, also, _) = head(self.bare.inner(), digest).await;
        assert_eq!((meta, attributes), (right, also), "{act}");
        for key in [SET, &hash(digest)] {
            let left: i64 = self.redis.cli(&["PTTL", key]).parse().unwrap();
            assert!(left > 0, "{act}: {key} never expires");
        }
    }
}

async fn broken_values_are_repaired(fact: &str, values: &'static str, by_head: bool) {
    let mut table = Table::of(Version::Redis).await;
    for act in lines(values) {
        let before = table.first.broken(fact);
        let digest = table.spoil(act).await;
        table.is_right(&digest, act, by_head).await;
        // A node whose heartbeats were late does not ask Redis, so it may meet the value at a later
        // read.
        table.is_repaired(&digest, act).await;
        assert!(table.first.broken(fact) > before, "{act} was not counted");
    }
    let other = if fact == "meta" { "membership" } else { "meta" };
    assert_eq!(table.first.broken(other), 0, "nothing else was broken");
}

#[tokio::test]
async fn broken_metadata_is_a_miss_counted_and_repaired() {
    broken_values_are_repaired("meta", META, false).await;
}

#[tokio::test]
async fn a_head_with_broken_metadata_equals_the_store() {
    broken_values_are_repaired("meta", META, true).await;
}

#[tokio::test]
async fn a_broken_membership_is_a_miss_counted_and_repaired() {
    broken_values_are_repaired("membership", MEMBERSHIP, false).await;
}

#[tokio::test]
async fn an_empty_value_is_a_miss_and_not_counted_as_broken() {
    let mut table = Table::of(Version::Redis).await;
    for act in lines(NOTHING) {
        let digest = table.spoil(act).await;
        table.is_right(&digest, act, false).await;
        table.is_repaired(&digest, act).await;
    }
    assert_eq!(table.first.broken("meta"), 0);
    assert_eq!(table.first.broken("membership"), 0);
}

/// The types and their errors differ between servers. All other values are text on every server.
#[tokio::test]
async fn values_of_another_type_are_recognized_on_every_server() {
    for version in [Version::Redis6_2, Version::Valkey] {
        let mut table = Table::of(version).await;
        for (fact, values) in [("meta", META), ("membership", MEMBERSHIP)] {
            for act in lines(values).filter(|act| act.starts_with("be(")) {
                let before = table.first.broken(fact);
                let digest = table.spoil(act).await;
                table.is_right(&digest, act, false).await;
                table.is_repaired(&digest, act).await;
                assert!(table.first.broken(fact) > before, "{act} was not counted");
            }
        }
    }
}

/// The reply exceeds the server's output limit for a subscribed client. The server ends the
/// connection instead of answering.
#[tokio::test]
async fn a_value_too_large_to_read_is_repaired() {
    const ACT: &str =
        "for _, field in ipairs({'path', 'length', 'e_tag', 'version'}) do put(field, long) end";
    let mut table = Table::of(Version::Redis).await;
    let digest = table.spoil(ACT).await;
    table.is_right(&digest, ACT, false).await;
    table.is_repaired(&digest, ACT).await;
}

/// If a value is broken and the object is gone, no node answers with it.
#[tokio::test]
async fn broken_values_make_no_deleted_object_visible() {
    let mut table = Table::of(Version::Redis).await;
    for act in lines(META) {
        let digest = table.spoil(act).await;
        let path = blob_path(&digest);
        table.bare.inner().delete(&path).await.unwrap();
        assert_eq!(stat(&table.first.node, &digest).await.0, None, "{act}");
        let gone = table.first.node.head(&path).await.unwrap_err();
        assert!(matches!(gone, Error::NotFound { .. }), "{act}: {gone}");
    }
    for act in lines(MEMBERSHIP) {
        let digest = table.spoil(act).await;
        let link = Link::layer(name(), digest);
        let path = Distribution::default().link_path(&link).unwrap();
        table.bare.inner().delete(&path).await.unwrap();
        assert_eq!(stat(&table.first.node, &digest).await.0, None, "{act}");
    }
}
