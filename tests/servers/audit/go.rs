//! Tests a Go registry whose cache is not told of a garbage collection, and how an audit repairs
//! it.

use super::{command, dump, text};
use std::path::Path;
use std::process::Command;
use test_support::go_registry::GoRegistry;
use test_support::image::{Image, write_oci_layout};
use test_support::redis::Redis;
use test_support::skopeo::{pull, push, skopeo};
use test_support::tools::require;

/// Returns the status of a `HEAD`.
async fn head(url: &str) -> u16 {
    let answer = reqwest::Client::new().head(url).send().await.unwrap();
    answer.status().as_u16()
}

fn delete(reference: &str) {
    skopeo(&[
        "delete",
        "--tls-verify=false",
        &format!("docker://{reference}"),
    ]);
}

/// Returns whether the image can be pulled, byte for byte.
fn can_be_pulled(reference: &str, image: &Image, folder: &Path) -> bool {
    let target = format!("oci:{}:latest", folder.display());
    let output = Command::new(require("skopeo"))
        .args(["--insecure-policy", "copy", "-q", "--preserve-digests"])
        .args([
            "--src-tls-verify=false",
            &format!("docker://{reference}"),
            &target,
        ])
        .output()
        .expect("skopeo");
    let has = |digest: &str| {
        folder
            .join("blobs")
            .join(digest.replace(':', "/"))
            .is_file()
    };
    output.status.success() && image.blobs().all(has)
}

/// distribution#4269 and others: push, delete, collect garbage, push again. The registry accepts
/// the push and reports success, but no client can pull the image.
#[tokio::test]
async fn a_push_that_a_stale_cache_breaks_succeeds_after_an_audit() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let layout = folder.path().join("image");
    let image = write_oci_layout(&layout, 2, 10_000);
    let redis = Redis::start().await;
    let go = GoRegistry::start(&data, Some(&redis), true).await;
    let (broken, kept) = (
        format!("{}/team/app:1", go.address()),
        format!("{}/team/kept:1", go.address()),
    );
    // Another image, which stays.
    let other_layout = folder.path().join("other");
    let other = write_oci_layout(&other_layout, 1, 20_000);
    push(&other_layout, &kept);
    push(&layout, &broken);
    pull(&broken, &folder.path().join("pulled"));

    delete(&broken);
    go.garbage_collect();
    let layer = format!("{}/v2/team/app/blobs/{}", go.url(), image.layers[0]);
    assert_eq!(head(&layer).await, 200, "of a blob that is gone");
    push(&layout, &broken);
    let target = folder.path().join("not-pulled");
    assert!(
        !can_be_pulled(&broken, &image, &target),
        "the push was good"
    );
    delete_if_there(&go, &image).await;

    let url = redis.url();
    let storage = data.to_str().unwrap();
    let args = ["--storage", storage, "--redis", &url];
    let before = dump(&redis);
    let found = command(&args);
    assert_eq!(found.status.code(), Some(1), "{}", text(&found.stderr));
    let lines = text(&found.stdout);
    for blob in image.blobs() {
        let membership = format!("no-content\trepository::team/app::blobs\t{blob}\t");
        assert!(lines.contains(&membership), "{lines}");
        assert!(
            lines.contains(&format!("stale-meta\tblobs::{blob}\t")),
            "{lines}"
        );
    }
    for blob in other.blobs() {
        assert!(!lines.contains(blob), "{lines}");
    }
    assert_eq!(dump(&redis), before, "the audit wrote something");

    let fixed = command(&[&args[..], &["--fix"]].concat());
    assert_eq!(fixed.status.code(), Some(1), "{}", text(&fixed.stderr));
    assert_eq!(head(&layer).await, 404);
    push(&layout, &broken);
    let target = folder.path().join("pulled-again");
    assert!(can_be_pulled(&broken, &image, &target));
    let target = folder.path().join("other-pulled");
    assert!(can_be_pulled(&kept, &other, &target));

    let clean = command(&args);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stdout));
    assert_eq!(redis.cli(&["KEYS", "layercache::*"]), "");
}

/// Deletes the manifest of the broken push, whose links name absent blobs.
async fn delete_if_there(go: &GoRegistry, image: &Image) {
    let url = format!("{}/v2/team/app/manifests/{}", go.url(), image.manifest);
    let answer = reqwest::Client::new().delete(url).send().await.unwrap();
    // A registry that does not know the manifest answers with 404, which is as good.
    assert!(
        answer.status().is_success() || answer.status() == 404,
        "{answer:?}"
    );
}
