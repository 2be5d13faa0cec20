//! Tests that each kind of finding is found, and removed with `fix`. Without `fix` the audit writes
//! nothing.

use super::{World, as_go, changes, link_path, store_blob, store_link};
use layercache::layout::Layout;
use layercache::layout::OciImages;
use layercache::{Digest, Link};
use layercache_cli::admin::{Fate, Finding, Wrong};
use object_store::ObjectStoreExt;
use test_support::nodes::{LENGTH, SET, blob_path, digest, hash, name};

/// Checks that an audit reports exactly these findings and writes nothing. Then checks that `fix`
/// removes them and keeps everything that is right.
async fn finds(world: &World, expected: &[&str]) {
    let before = (world.dump(), changes(&world.redis));
    let output = world.look().await;
    assert_eq!(output.names(), expected);
    assert!(
        output
            .findings
            .iter()
            .all(|finding| finding.fate == Fate::Left)
    );
    let after = (world.dump(), changes(&world.redis));
    assert_eq!(after, before, "the audit wrote something");

    let fixed = world.fix().await;
    assert_eq!(fixed.names(), expected);
    assert_eq!(fixed.report.removed, expected.len() as u64);
    let again = world.look().await;
    assert_eq!(again.names(), [""; 0]);
    let (was, is) = (&output.report, &again.report);
    assert_eq!(
        is.ok + is.skipped,
        is.looked_at(),
        "all other items are correct"
    );
    let is_fact = |finding: &&Finding| finding.digest.is_some() && !is_orphan(finding);
    let wrong = output.findings.iter().filter(is_fact).count() as u64;
    let facts = was.memberships + was.metas - wrong;
    assert_eq!(is.memberships + is.metas, facts, "correct facts are kept");
    for ours in ["layercache::*", "lease::*", "fence::*"] {
        assert_eq!(world.redis.cli(&["KEYS", ours]), "", "the audit left a key");
    }
}

fn is_orphan(finding: &Finding) -> bool {
    matches!(finding.wrong, Wrong::Orphan { .. })
}

async fn world() -> World {
    let world = World::new().await;
    world.cached(1).await;
    world
}

#[tokio::test]
async fn correct_facts_are_no_findings() {
    let world = world().await;
    for i in 2..50 {
        world.cached(i).await;
    }
    let before = changes(&world.redis);
    let output = world.fix().await;
    assert_eq!(output.names(), [""; 0]);
    let report = &output.report;
    assert_eq!((report.memberships, report.metas), (49, 49));
    assert_eq!((report.ok, report.others), (147, 49));
    assert_eq!(changes(&world.redis), before);
}

#[tokio::test]
async fn a_membership_without_its_link_is_a_finding() {
    let world = world().await;
    let digest = digest(2);
    store_blob(&world.store, &digest).await;
    world.cache_as_go(&name(), &digest, LENGTH);
    finds(&world, &[&format!("stale-membership {SET} {digest}")]).await;
    let beside = format!("{SET}::{digest}");
    assert_eq!(world.redis.cli(&["EXISTS", &beside]), "0", "its media type");
    assert_eq!(world.redis.cli(&["EXISTS", &hash(&digest)]), "1");
}

#[tokio::test]
async fn a_link_with_another_content_is_a_finding() {
    let world = world().await;
    let other = world.cached(2).await;
    for (i, content) in [
        (3, other.to_string()),
        (4, String::new()),
        (5, "x".repeat(2000)),
    ] {
        let digest = digest(i);
        store_blob(&world.store, &digest).await;
        world.cache_as_go(&name(), &digest, LENGTH);
        let path = link_path(&Link::layer(name(), digest));
        world.store.put(&path, content.into()).await.unwrap();
    }
    let names = [3, 4, 5].map(|i| format!("broken-link {SET} {}", digest(i)));
    finds(&world, &[&names[0], &names[1], &names[2]]).await;
}

/// The store is as a garbage collection leaves it.
#[tokio::test]
async fn a_deleted_blob_is_a_finding() {
    let world = world().await;
    let digest = world.cached(2).await;
    world.store.delete(&blob_path(&digest)).await.unwrap();
    let expected = [
        format!("no-content {SET} {digest}"),
        format!("stale-meta {}", hash(&digest)),
    ];
    finds(&world, &[&expected[0], &expected[1]]).await;
}

#[tokio::test]
async fn a_wrong_meta_is_a_finding() {
    let world = world().await;
    let [length, nothing, path, tag] = [2, 3, 4, 5].map(digest);
    for digest in [length, nothing, path, tag] {
        store_blob(&world.store, &digest).await;
        let right = blob_path(&digest).to_string();
        let set = [
            "HSET",
            &hash(&digest),
            "length",
            "7",
            "path",
            &right,
            "e_tag",
            "",
        ];
        world.redis.cli(&set);
        world.redis.cli(&["HDEL", &hash(&digest), "e_tag"]);
    }
    world.redis.cli(&["HSET", &hash(&length), "length", "8"]);
    // A Go registry caches this length if it asks for a blob that is still being written.
    world.redis.cli(&["HSET", &hash(&nothing), "length", "0"]);
    let elsewhere = blob_path(&length).to_string();
    world.redis.cli(&["HSET", &hash(&path), "path", &elsewhere]);
    world
        .redis
        .cli(&["HSET", &hash(&tag), "e_tag", "\"of-before\""]);
    let output = world.look().await;
    let wrong = |digest: Digest| {
        let finding = output.findings.iter().find(|it| it.digest == Some(digest));
        finding.unwrap().wrong.clone()
    };
    let expected = Wrong::WrongLength {
        cached: 8,
        stored: 7,
    };
    assert_eq!(wrong(length), expected);
    let expected = Wrong::WrongLength {
        cached: 0,
        stored: 7,
    };
    assert_eq!(wrong(nothing), expected);
    let expected = Some(blob_path(&path).to_string());
    assert_eq!(
        wrong(path),
        Wrong::WrongPath {
            cached: elsewhere,
            expected
        }
    );
    let stored = world
        .store
        .head(&blob_path(&tag))
        .await
        .unwrap()
        .e_tag
        .unwrap();
    let cached = "\"of-before\"".to_owned();
    assert_eq!(wrong(tag), Wrong::WrongTag { cached, stored });
    let names = [
        (length, "wrong-length"),
        (nothing, "wrong-length"),
        (path, "wrong-path"),
        (tag, "wrong-tag"),
    ];
    let names = names.map(|(digest, name)| format!("{name} {}", hash(&digest)));
    finds(&world, &[&names[0], &names[1], &names[2], &names[3]]).await;
}

#[tokio::test]
async fn a_broken_value_is_a_finding() {
    let world = world().await;
    let [fields, other, kind] = [2, 3, 4].map(digest);
    for digest in [fields, other, kind] {
        store_blob(&world.store, &digest).await;
    }
    let redis = &world.redis;
    redis.cli(&["HSET", &hash(&fields), "size", "seven"]);
    redis.cli(&[
        "HSET",
        &hash(&other),
        "size",
        "7",
        "digest",
        &kind.to_string(),
    ]);
    redis.cli(&["SET", &hash(&kind), "x"]);
    redis.cli(&["SET", "repository::a::blobs", "x"]);
    redis.cli(&["RPUSH", "repository::a::manifests", "x"]);
    redis.cli(&["SADD", SET, "no-digest"]);
    let mut expected = [
        format!("broken-value {}", hash(&fields)),
        format!("broken-value {}", hash(&other)),
        format!("broken-value {}", hash(&kind)),
        "broken-value repository::a::blobs".to_owned(),
        "broken-value repository::a::manifests".to_owned(),
        format!("broken-value {SET} no-digest"),
    ];
    expected.sort();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    finds(&world, &expected).await;
}

#[tokio::test]
async fn an_orphan_is_a_finding() {
    let world = world().await;
    let (redis, digest) = (&world.redis, digest(2));
    let lease = format!("lease::{{{SET}}}::{digest}");
    let fence = format!("fence::{{{}}}", hash(&digest));
    redis.cli(&["SET", &lease, "1"]);
    redis.cli(&["SADD", &fence, "1"]);
    redis.cli(&["HSET", &format!("{SET}::{digest}"), "mediatype", "x"]);
    redis.cli(&["SET", "blobs::junk", "1"]);
    redis.cli(&["SET", "repository::UPPER::blobs", "1"]);
    let mut expected = [
        format!("orphan {lease}"),
        format!("orphan {fence}"),
        format!("orphan {SET}::{digest}"),
        "orphan blobs::junk".to_owned(),
        "orphan repository::UPPER::blobs".to_owned(),
    ];
    expected.sort();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    finds(&world, &expected).await;
}

#[tokio::test]
async fn keys_of_other_applications_are_no_findings() {
    let world = world().await;
    let redis = &world.redis;
    let digest = digest(2);
    let long = "ab".repeat(48);
    redis.cli(&["SET", "session:7", "x"]);
    redis.cli(&["SET", "eu:blobs::junk", "x"]);
    redis.cli(&[
        "SET",
        &format!("lease::{{{}}}", hash(&digest)),
        "1",
        "PX",
        "60000",
    ]);
    redis.cli(&["HSET", &format!("blobs::sha384:{long}"), "size", "7"]);
    redis.cli(&["SADD", SET, &format!("sha384:{long}")]);
    // A Go registry leaves this key behind when it clears the others.
    redis.cli(&["HSET", &hash(&digest), "mediatype", "x"]);
    let output = world.look().await;
    assert_eq!(output.names(), [""; 0]);
    assert_eq!(output.report.skipped, 1);
}

/// A prefix selects the keys of one registry among several.
#[tokio::test]
async fn only_keys_with_the_prefix_are_audited() {
    let world = world().await;
    let redis = &world.redis;
    let digest = digest(2);
    redis.cli(&["SADD", &format!("eu:{SET}"), &digest.to_string()]);
    redis.cli(&["SADD", SET, &digest.to_string()]);
    let config = super::config(redis).with_prefix("eu:");
    let audit = layercache_cli::admin::Audit::new(world.store.clone(), config).unwrap();
    let output = World::run(audit.fix(true)).await.unwrap();
    assert_eq!(
        output.names(),
        [format!("stale-membership eu:{SET} {digest}")]
    );
    assert_eq!(redis.cli(&["SISMEMBER", SET, &digest.to_string()]), "1");
    assert_eq!(redis.cli(&["EXISTS", &format!("eu:{SET}")]), "0");
}

/// Keys as a Go registry of version 3 writes them: manifests are among the blobs of a repository,
/// and a blob may also be known by a digest of another algorithm.
#[tokio::test]
async fn keys_of_a_go_registry_of_version_3_are_audited() {
    let world = world().await;
    let manifest = digest(2);
    store_blob(&world.store, &manifest).await;
    let link = Link::manifest(name(), manifest);
    let text = manifest.to_string();
    world
        .store
        .put(&link_path(&link), text.into())
        .await
        .unwrap();
    world.cache_as_go(&name(), &manifest, LENGTH);

    let (canonical, alias) = (world.cached(3).await, Digest::Sha512([3; 64]));
    let link = Link::layer(name(), alias);
    let text = canonical.to_string();
    world
        .store
        .put(&link_path(&link), text.into())
        .await
        .unwrap();
    let redis = &world.redis;
    redis.cli(&["SADD", SET, &alias.to_string()]);
    let size = ["size", "7", "digest", &canonical.to_string()];
    redis.cli(&[&["HSET", &hash(&alias)], &size[..]].concat());
    let output = world.look().await;
    assert_eq!(output.names(), [""; 0]);
    assert_eq!((output.report.memberships, output.report.metas), (4, 4));

    // Then a garbage collection removes both blobs.
    for digest in [manifest, canonical] {
        world.store.delete(&blob_path(&digest)).await.unwrap();
    }
    let gone = [manifest, canonical, alias];
    let mut expected: Vec<_> = gone
        .iter()
        .flat_map(|digest| {
            [
                format!("no-content {SET} {digest}"),
                format!("stale-meta {}", hash(digest)),
            ]
        })
        .collect();
    expected.sort();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    finds(&world, &expected).await;
}

/// CVE-2026-35172: the membership and its media type stay when the blob's hash is cleared.
#[tokio::test]
async fn a_membership_that_a_go_registry_did_not_delete_is_a_finding() {
    let world = world().await;
    let digest = world.cached(2).await;
    let path = link_path(&Link::layer(name(), digest));
    world.store.delete(&path).await.unwrap();
    world
        .redis
        .cli(&["HDEL", &hash(&digest), "digest", "size", "mediatype"]);
    finds(&world, &[&format!("stale-membership {SET} {digest}")]).await;
}

#[tokio::test]
async fn a_layout_without_shared_blobs_is_audited() {
    let world = World::new().await;
    let (right, stale, other) = (digest(1), digest(2), digest(3));
    let layout = OciImages::default();
    for digest in [right, other] {
        let path = layout.link_path(&Link::layer(name(), digest)).unwrap();
        world.store.put(&path, "content".into()).await.unwrap();
    }
    let redis = &world.redis;
    for digest in [right, stale] {
        redis.cli(&["SADD", SET, &digest.to_string()]);
        let path = layout.link_path(&Link::layer(name(), digest)).unwrap();
        redis.cli(&["HSET", &hash(&digest), "length", "7", "path", path.as_ref()]);
    }
    redis.cli(&["HSET", &hash(&other), "length", "7", "path", "some/where"]);
    let audit = || world.audit().layout(OciImages::default());
    let expected = [
        format!("stale-membership {SET} {stale}"),
        format!("stale-meta {}", hash(&stale)),
        format!("wrong-path {}", hash(&other)),
    ];
    assert_eq!(World::run(audit()).await.unwrap().names(), expected);
    let fixed = World::run(audit().fix(true)).await.unwrap();
    assert_eq!(fixed.report.removed, 3);
    let again = World::run(audit()).await.unwrap();
    assert_eq!((again.names().len(), again.report.ok), (0, 2));
}

#[tokio::test]
async fn selected_repositories_and_their_blobs_are_audited() {
    let world = world().await;
    let (mine, others) = ("team/app".parse().unwrap(), "other/app".parse().unwrap());
    let [first, second] = [2, 3].map(digest);
    world.cache_as_go(&mine, &first, LENGTH);
    world.cache_as_go(&others, &second, LENGTH);
    world.redis.cli(&["SET", "blobs::junk", "x"]);
    let audit = world
        .audit()
        .repositories(|name| name.as_str().starts_with("team/"));
    let output = World::run(audit).await.unwrap();
    let expected = [
        format!("stale-membership repository::team/app::blobs {first}"),
        format!("stale-meta {}", hash(&first)),
    ];
    assert_eq!(output.names(), expected);
}

#[tokio::test]
async fn a_sample_is_audited() {
    let world = World::new().await;
    // The digests begin with their numbers.
    let many: Vec<_> = (0..200u32).map(|i| digest(i << 24 | 7)).collect();
    let commands = many
        .iter()
        .flat_map(|digest| as_go(&name(), digest, LENGTH));
    let commands: Vec<_> = commands.collect();
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    world.redis.cli_lines(&commands);
    let small = World::run(world.audit().sample(0.25)).await.unwrap();
    assert_eq!((small.report.memberships, small.report.metas), (64, 64));
    assert_eq!(small.names().len(), 128);
    let again = World::run(world.audit().sample(0.25)).await.unwrap();
    assert_eq!(small.names(), again.names());
    let large = World::run(world.audit().sample(0.5)).await.unwrap();
    let has = |name: &String| large.names().contains(name);
    assert!(small.names().iter().all(has));
}

#[tokio::test]
async fn a_store_that_fails_stops_the_audit() {
    let world = world().await;
    world.store.fail(true);
    let error = World::run(world.audit()).await.unwrap_err();
    assert!(
        matches!(error.source, layercache::Error::Backend { .. }),
        "{error}"
    );
    world.store.fail(false);
    store_link(&world.store, &name(), &digest(1)).await;
    assert_eq!(world.look().await.names(), [""; 0]);
}
