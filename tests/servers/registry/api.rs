//! Tests blobs and manifests in the API of the example registry, against the distribution
//! specification.

use test_support as support;

use serde_json::json;
use support::http::{
    Answer, Http, Image, Node, OCI_INDEX, OCI_MANIFEST, answer, blob, descriptor, location,
    manifest, manifest_path,
};
use support::image::sha256;

fn manifest_of(reference: &str) -> String {
    manifest_path("a/b", reference)
}

async fn with_header(http: &Http, path: &str, name: &str, value: &str) -> Answer {
    answer(http.ask("GET", path).header(name, value)).await
}

#[tokio::test]
async fn the_base_path_names_the_api_version() {
    let Node { http, .. } = &Node::start().await;
    for path in ["/v2/", "/v2"] {
        for method in ["GET", "HEAD"] {
            let base = answer(http.ask(method, path)).await.expect(200);
            let version = base.header("docker-distribution-api-version");
            assert_eq!(version, Some("registry/2.0"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_blob_has_the_headers_that_clients_and_proxies_need() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let digest = image.layer_digest();
    let path = blob("a/b", &digest);
    let (head, get) = (http.head(&path).await, http.get(&path).await);
    for (answer, body) in [(&head, &b""[..]), (&get, &image.layer)] {
        assert_eq!((answer.status, &*answer.body), (200, body));
        for (name, value) in [
            ("content-length", "5000"),
            ("content-type", "application/octet-stream"),
            ("docker-content-digest", &digest),
            ("etag", &format!("\"{digest}\"")),
            ("accept-ranges", "bytes"),
            ("cache-control", "max-age=31536000"),
            ("docker-distribution-api-version", "registry/2.0"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
}

#[tokio::test]
async fn blob_ranges_follow_rfc_9110() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let (path, layer) = (blob("a/b", &image.layer_digest()), &image.layer);
    for (range, wanted) in [
        ("bytes=0-0", 0..1),
        ("bytes=5-9", 5..10),
        ("Bytes=5-9", 5..10),
        ("bytes=4999-", 4999..5000),
        ("bytes=100-99999", 100..5000),
        ("bytes=0-18446744073709551615", 0..5000),
        ("bytes=-7", 4993..5000),
        ("bytes=-99999", 0..5000),
    ] {
        let part = with_header(http, &path, "range", range).await.expect(206);
        let said = format!("bytes {}-{}/5000", wanted.start, wanted.end - 1);
        assert_eq!(part.header("content-range"), Some(&*said), "{range}");
        assert_eq!(part.header("accept-ranges"), Some("bytes"));
        assert!(part.body == layer[wanted], "{range}");
    }
    for range in ["bytes=5000-", "bytes=5000-6000", "bytes=-0"] {
        let refused = with_header(http, &path, "range", range).await;
        let refused = refused.refused(416, "RANGE_INVALID");
        assert_eq!(refused.header("content-range"), Some("bytes */5000"));
    }
    // A range that is invalid, or of a kind that a registry need not support, is ignored.
    for range in [
        "bytes=9-5",
        "bytes=a-b",
        "bytes",
        "lines=1-2",
        "bytes=0-1,4-5",
        "bytes=--5",
    ] {
        let whole = with_header(http, &path, "range", range).await.expect(200);
        assert!(whole.body == *layer, "{range}");
    }
}

#[tokio::test]
async fn if_range_applies_only_to_the_same_content() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let digest = image.layer_digest();
    for (if_range, status) in [
        (format!("\"{digest}\""), 206),
        ("\"other\"".to_owned(), 200),
    ] {
        let request = http.ask("GET", &blob("a/b", &digest));
        let request = request
            .header("range", "bytes=0-1")
            .header("if-range", if_range);
        answer(request).await.expect(status);
    }
    let request = http
        .ask("HEAD", &blob("a/b", &digest))
        .header("range", "bytes=0-1");
    let head = answer(request).await.expect(200);
    assert_eq!(head.header("content-length"), Some("5000"));
}

#[tokio::test]
async fn if_none_match_is_answered_with_304() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let (layer, manifest) = (image.layer_digest(), image.digest());
    for (path, digest) in [
        (blob("a/b", &layer), &layer),
        (manifest_of("latest"), &manifest),
        (manifest_of(&manifest), &manifest),
    ] {
        for known in [
            format!("\"{digest}\""),
            format!("W/\"{digest}\""),
            format!("\"a\", \"{digest}\""),
            "*".to_owned(),
        ] {
            let answer = with_header(http, &path, "if-none-match", &known).await;
            let answer = answer.expect(304);
            assert_eq!(answer.header("etag"), Some(&*format!("\"{digest}\"")));
            assert_eq!(answer.body, b"");
        }
        let other = with_header(http, &path, "if-none-match", "\"other\"").await;
        assert!(!other.expect(200).body.is_empty());
    }
}

#[tokio::test]
async fn deleting_a_blob_affects_only_its_repository() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    http.push_blob("c/d", &image.layer).await;
    let path = blob("a/b", &image.layer_digest());
    http.delete(&path).await.expect(202);
    for refused in [http.get(&path).await, http.delete(&path).await] {
        let refused = refused.refused(404, "BLOB_UNKNOWN");
        let named = &refused.json()["errors"][0]["detail"]["digest"];
        assert_eq!(*named, image.layer_digest());
    }
    http.head(&path).await.expect(404);
    let elsewhere = http.get(&blob("c/d", &image.layer_digest())).await;
    assert!(elsewhere.expect(200).body == image.layer);
    http.push_blob("a/b", &image.layer).await;
    http.get(&path).await.expect(200);
}

#[tokio::test]
async fn a_manifest_is_served_by_tag_and_digest() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let digest = image.digest();
    for reference in ["latest", &digest] {
        let path = manifest_of(reference);
        let (head, get) = (http.head(&path).await, http.get(&path).await);
        for (answer, body) in [(&head, &b""[..]), (&get, &image.manifest)] {
            assert_eq!((answer.status, &*answer.body), (200, body));
            for (name, value) in [
                ("content-length", &*image.manifest.len().to_string()),
                ("content-type", OCI_MANIFEST),
                ("docker-content-digest", &digest),
                ("etag", &format!("\"{digest}\"")),
            ] {
                assert_eq!(answer.header(name), Some(value), "{name} of {reference}");
            }
        }
    }
    for refused in [
        http.get(&manifest_of("other")).await,
        http.get(&manifest_of(&sha256(b"other"))).await,
        http.get(&format!("/v2/c/d/manifests/{digest}")).await,
        http.get("/v2/c/d/manifests/latest").await,
    ] {
        refused.refused(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn a_manifest_is_accepted_by_tag_and_digest_with_any_spelling_of_its_media_type() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let digest = image.digest();
    for reference in ["v1", "V_2.0-rc", &digest] {
        for media_type in [
            None,
            Some(OCI_MANIFEST.to_owned()),
            Some(format!("{OCI_MANIFEST}; charset=utf-8")),
            Some(OCI_MANIFEST.to_uppercase()),
        ] {
            let mut request = http.ask("PUT", &manifest_of(reference));
            if let Some(media_type) = media_type {
                request = request.header("content-type", media_type);
            }
            let put = answer(request.body(image.manifest.clone())).await;
            let put = put.expect(201);
            assert_eq!(location(&put), manifest_of(&digest));
            assert_eq!(put.header("docker-content-digest"), Some(&*digest));
        }
        http.pulls("a/b", reference, image).await;
    }
}

#[tokio::test]
async fn moving_a_tag_keeps_the_old_manifest() {
    let (Node { http, .. }, old) = &Node::with_image().await;
    let new = Image::new(2);
    http.push("a/b", "latest", &new).await;
    http.pulls("a/b", "latest", &new).await;
    http.pulls("a/b", &old.digest(), old).await;
}

#[tokio::test]
async fn an_index_needs_its_manifests_in_the_repository() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let part = descriptor(OCI_MANIFEST, &image.manifest);
    let index = json!({ "schemaVersion": 2, "manifests": [part] }).to_string();
    let put = http.put_manifest("a/b", "index", &index).await;
    put.expect(201);
    let get = http.get(&manifest_of("index")).await.expect(200);
    assert_eq!(get.header("content-type"), Some(OCI_INDEX));
    assert_eq!(get.text(), index);
    let put = http.put_manifest("c/d", "index", &index).await;
    put.refused(404, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_in_the_repository_or_at_urls() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let layer = |content| descriptor("application/vnd.oci.image.layer.v1.tar", content);
    let mut lacking = manifest(&image.layer);
    lacking["layers"] = json!([layer(b"1"), layer(&image.layer), layer(b"2"), layer(b"2")]);
    let put = http.put_manifest("a/b", "x", lacking.to_string());
    let put = put.await.refused(404, "MANIFEST_BLOB_UNKNOWN");
    let errors = put.json()["errors"].as_array().unwrap().clone();
    let named = errors.iter().map(|error| &error["detail"]["digest"]);
    let mut named: Vec<_> = named.map(|digest| digest.as_str().unwrap()).collect();
    named.sort_unstable();
    let mut wanted = [sha256(b"1"), sha256(b"2")];
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    http.get(&manifest_of("x"))
        .await
        .refused(404, "MANIFEST_UNKNOWN");

    let mut foreign = manifest(&image.layer);
    foreign["layers"] = json!([layer(b"far")]);
    foreign["layers"][0]["urls"] = json!(["https://example.com/layer"]);
    let put = http.put_manifest("a/b", "x", foreign.to_string());
    put.await.expect(201);
}

#[tokio::test]
async fn deleting_a_tag_keeps_the_manifest() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    http.put_manifest("a/b", "other", &image.manifest)
        .await
        .expect(201);
    http.delete(&manifest_of("latest")).await.expect(202);
    for refused in [
        http.get(&manifest_of("latest")).await,
        http.delete(&manifest_of("latest")).await,
    ] {
        refused.refused(404, "MANIFEST_UNKNOWN");
    }
    http.pulls("a/b", "other", image).await;
    http.pulls("a/b", &image.digest(), image).await;
    assert_eq!(http.tags("a/b").await, ["other"]);
}

#[tokio::test]
async fn deleting_a_manifest_deletes_its_tags() {
    let (Node { http, .. }, image) = &Node::with_image().await;
    let kept = Image::new(2);
    http.push("a/b", "kept", &kept).await;
    http.put_manifest("a/b", "other", &image.manifest)
        .await
        .expect(201);
    let digest = image.digest();
    http.delete(&manifest_of(&digest)).await.expect(202);
    for gone in [&digest, "latest", "other"] {
        http.get(&manifest_of(gone))
            .await
            .refused(404, "MANIFEST_UNKNOWN");
        http.delete(&manifest_of(gone))
            .await
            .refused(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(http.tags("a/b").await, ["kept"]);
    http.pulls("a/b", "kept", &kept).await;
}
