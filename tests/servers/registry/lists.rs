//! Tests the lists of the example registry (tags, referrers) against the distribution
//! specification.

use test_support as support;

use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::http::{
    Answer, CONFIG, Http, Node, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, descriptor, manifest_path,
};
use support::image::sha256;

/// Returns a page of tags, and the address of the next page.
async fn tags(http: &Http, query: &str) -> (Vec<String>, Option<String>) {
    let page = http
        .get(&format!("/v2/a/b/tags/list{query}"))
        .await
        .expect(200);
    let body = page.json();
    assert_eq!(body["name"], "a/b");
    let tags = serde_json::from_value(body["tags"].clone()).unwrap();
    (tags, next(&page))
}

fn next(page: &Answer) -> Option<String> {
    let link = page.header("link")?.strip_prefix('<').unwrap();
    Some(link.strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

#[tokio::test]
async fn tags_are_sorted_and_paged() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    for tag in ["b", "B", "_x", "1.0", "a", "1.0-rc"] {
        http.put_manifest("a/b", tag, &image.manifest)
            .await
            .expect(201);
    }
    let all = ["1.0", "1.0-rc", "B", "_x", "a", "b", "latest"];
    assert_eq!(tags(http, "").await, (all.map(String::from).to_vec(), None));
    for n in 1..=8 {
        let (mut found, mut link) = tags(http, &format!("?n={n}")).await;
        while let Some(path) = link {
            let query = path.strip_prefix("/v2/a/b/tags/list").unwrap();
            let (more, next) = tags(http, query).await;
            assert!(
                (1..=n).contains(&more.len()),
                "the page has {} tags",
                more.len()
            );
            found.extend(more);
            assert!(found.len() <= all.len(), "{found:?}");
            link = next;
        }
        assert_eq!(found, all, "pages of {n} tags");
    }
    assert_eq!(tags(http, "?n=0").await, (vec![], None));
    assert_eq!(tags(http, "?last=a").await.0, ["b", "latest"]);
    assert_eq!(tags(http, "?last=ab&n=1").await.0, ["b"]);
    assert_eq!(tags(http, "?last=zzz").await, (vec![], None));
    let unknown = http.get("/v2/c/d/tags/list").await;
    unknown.refused(404, "NAME_UNKNOWN");
}

/// Returns an artifact of this type that names a manifest as its subject.
fn artifact(number: usize, kind: Option<&str>, subject: &[u8]) -> String {
    let mut artifact = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, CONFIG),
        "layers": [],
        "subject": descriptor(OCI_MANIFEST, subject),
        "annotations": { "number": number.to_string() },
    });
    if let Some(kind) = kind {
        artifact["artifactType"] = kind.into();
    }
    artifact.to_string()
}

async fn push_artifact(http: &Http, artifact: &str, subject: &[u8]) -> String {
    let digest = sha256(artifact.as_bytes());
    let put = http.put_manifest("a/b", &digest, artifact).await;
    let put = put.expect(201);
    assert_eq!(put.header("oci-subject"), Some(&*sha256(subject)));
    digest
}

async fn referrers(http: &Http, path: &str) -> (Vec<Value>, Answer) {
    let page = http.get(path).await.expect(200);
    assert_eq!(page.header("content-type"), Some(OCI_INDEX));
    let index = page.json();
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["mediaType"], OCI_INDEX);
    (index["manifests"].as_array().unwrap().clone(), page)
}

#[tokio::test]
async fn referrers_are_found_by_their_subject_and_type() {
    let (node, image) = &Node::with_image().await;
    let http = &node.http;
    let path = format!("/v2/a/b/referrers/{}", image.digest());
    let mut wanted = Vec::new();
    for (number, kind) in [Some("x/sbom"), Some("x/sig"), None]
        .into_iter()
        .enumerate()
    {
        let artifact = artifact(number, kind, &image.manifest);
        let digest = push_artifact(http, &artifact, &image.manifest).await;
        wanted.push(json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": artifact.len(),
            // An artifact without a type of its own has the type of its configuration.
            "artifactType": kind.unwrap_or(OCI_CONFIG),
            "annotations": { "number": number.to_string() },
        }));
    }
    let (found, page) = referrers(http, &path).await;
    assert_eq!(page.header("oci-filters-applied"), None);
    assert_eq!(found.len(), 3);
    assert!(wanted.iter().all(|one| found.contains(one)), "{found:?}");

    for (kind, wanted) in [("x/sbom", &wanted[..1]), ("x/other", &[])] {
        let (found, page) = referrers(http, &format!("{path}?artifactType={kind}")).await;
        assert_eq!(page.header("oci-filters-applied"), Some("artifactType"));
        assert_eq!(found, wanted);
    }
    let first = wanted[0]["digest"].as_str().unwrap();
    http.delete(&manifest_path("a/b", first)).await.expect(202);
    let (found, _) = referrers(http, &path).await;
    assert_eq!(found.len(), 2);
    assert!(!found.contains(&wanted[0]));
    let hex = first.strip_prefix("sha256:").unwrap();
    let is_left = |path: &String| path.contains("/referrers/") && path.contains(hex);
    assert!(!node.stored().iter().any(is_left));
}

/// A signature may arrive before the manifest that it signs.
#[tokio::test]
async fn an_unknown_subject_can_have_referrers() {
    let Node { http, .. } = &Node::start().await;
    let path = format!("/v2/a/b/referrers/{}", sha256(b"subject"));
    assert_eq!(referrers(http, &path).await.0, [json!(null); 0]);
    http.push_blob("a/b", CONFIG).await;
    push_artifact(http, &artifact(1, None, b"subject"), b"subject").await;
    assert_eq!(referrers(http, &path).await.0.len(), 1);
    let elsewhere = path.replace("a/b", "c/d");
    assert_eq!(referrers(http, &elsewhere).await.0, [json!(null); 0]);
}

#[tokio::test]
async fn many_referrers_are_paged() {
    const MANY: usize = 600;
    let (Node { http, .. }, image) = &Node::with_image().await;
    let pushes = futures::stream::iter(0..MANY).map(async |number| {
        let kind = if number % 2 == 0 { "x/even" } else { "x/odd" };
        push_artifact(
            http,
            &artifact(number, Some(kind), &image.manifest),
            &image.manifest,
        )
        .await
    });
    pushes.buffer_unordered(16).for_each(async |_| ()).await;
    for (query, wanted) in [("", MANY), ("?artifactType=x/odd", MANY / 2)] {
        let mut path = format!("/v2/a/b/referrers/{}{query}", image.digest());
        let mut found = Vec::new();
        let mut pages = 0;
        loop {
            let (manifests, page) = referrers(http, &path).await;
            found.extend(manifests.iter().map(|one| one["digest"].to_string()));
            pages += 1;
            assert!(pages <= MANY, "the pages do not end");
            match next(&page) {
                Some(next) => path = next,
                None => break,
            }
        }
        let unique: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), unique.len(), pages), (wanted, wanted, 3));
    }
}
