//! Tests that bad chunks, manifests and HTTP are refused: nothing is stored, revealed or broken.

use test_support as support;

use futures::future::join_all;
use serde_json::{Value, json};
use support::guarded::{World, head};
use support::http::{
    CONFIG, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, answer, descriptor, manifest, until,
};
use support::image::sha256;

const TEN: &[u8] = b"0123456789";

#[tokio::test]
async fn chunks_with_an_invalid_or_unexpected_range_are_refused() {
    let world = World::start().await;
    let (http, upload) = (world.http(), &world.upload);
    let finish = format!("{upload}?digest={}", sha256(TEN));
    let none = " x - 0- -9 9-0 0-9-9 +0-+9 0x0-0x9 0-99999999999999999999";
    let another = "0-8 0-10 0-18446744073709551615";
    let ranges = none.split(' ').chain(another.split(' '));
    let ranges = ranges.chain(["lines 0-9"]).map(|range| (range, 400));
    for (range, status) in ranges.chain([("1-10", 416), ("9-18", 416)]) {
        for (method, path) in [("PATCH", upload), ("PUT", &finish)] {
            let request = http.ask(method, path).header("content-range", range);
            let refused = answer(request.body(TEN)).await;
            assert_eq!(refused.status, status, "{method} {range:?}");
            world.refused(refused, status, "BLOB_UPLOAD_INVALID");
        }
    }
    let headers = "Content-Length: 10\r\nContent-Range: 0-\u{e9}\r\n";
    let request = head("PATCH", upload, headers) + "0123456789";
    let refused = http.raw(request).await.unwrap();
    world.refused(refused, 400, "BLOB_UPLOAD_INVALID");
    world.is_unharmed().await;
}

/// A body that ends too early, ends too late or is malformed creates no blob.
#[tokio::test]
async fn bodies_with_a_wrong_length_or_encoding_are_refused() {
    let world = World::start().await;
    let http = world.http();
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (headers, body) in [
        ("Content-Length: 11\r\n".to_owned(), "0123456789"),
        (
            "Content-Length: 18446744073709551615\r\n".to_owned(),
            "0123456789",
        ),
        (
            format!("{chunked}Content-Range: 0-4\r\n"),
            "a\r\n0123456789\r\n0\r\n\r\n",
        ),
        (
            format!("{chunked}Content-Range: 0-10\r\n"),
            "a\r\n0123456789\r\n0\r\n\r\n",
        ),
        (chunked.to_owned(), "a\r\n0123456789\r\n"),
        (chunked.to_owned(), "a\r\n01234567890\r\n0\r\n\r\n"),
        (chunked.to_owned(), "xyz\r\n0123456789\r\n0\r\n\r\n"),
        (
            chunked.to_owned(),
            "ffffffffffffffffff\r\n0123456789\r\n0\r\n\r\n",
        ),
        (chunked.to_owned(), "-1\r\n0123456789\r\n0\r\n\r\n"),
    ] {
        let upload = http.begin_upload("a/b").await;
        for (method, path) in [
            ("PATCH", upload.clone()),
            ("PUT", format!("{upload}?digest={}", sha256(TEN))),
            (
                "POST",
                format!("/v2/a/b/blobs/uploads/?digest={}", sha256(TEN)),
            ),
            ("PUT", "/v2/a/b/manifests/latest".to_owned()),
        ] {
            let request = head(method, &path, &headers) + body;
            if let Some(refused) = http.cut_off(request).await {
                world.keeps_secrets(&refused);
                assert_eq!(
                    refused.status / 100,
                    4,
                    "{method} {headers}{body}: {refused:?}"
                );
            }
        }
        until(|| http.delete(&upload), |answer| answer.status == 204).await;
        http.head(&format!("/v2/a/b/blobs/{}", sha256(TEN)))
            .await
            .expect(404);
    }
    world.is_unharmed().await;
}

#[tokio::test]
async fn content_with_another_digest_is_refused() {
    let world = World::start().await;
    let http = world.http();
    let other = sha256(b"other");
    let post = http.ask("POST", &format!("/v2/a/b/blobs/uploads/?digest={other}"));
    world.refused(answer(post.body(TEN)).await, 400, "DIGEST_INVALID");
    let upload = http.begin_upload("a/b").await;
    world.refused(
        http.finish(&upload, &other, TEN).await,
        400,
        "DIGEST_INVALID",
    );
    let put = http
        .put_manifest("a/b", &other, &world.image.manifest)
        .await;
    world.refused(put, 400, "DIGEST_INVALID");
    world.is_unharmed().await;
}

/// Many clients send to one upload at the same time. The upload accepts one request at a time, and
/// takes each accepted chunk whole and once.
#[tokio::test]
async fn an_upload_accepts_one_of_many_concurrent_requests() {
    let world = World::start().await;
    let http = world.http();
    let upload = &http.begin_upload("a/b").await;
    let chunk = "x".repeat(1_000);
    let patches = join_all((0..32).map(async |_| {
        let patch = http.patch(upload, chunk.as_bytes()).await;
        match patch.status {
            202 => 1,
            _ => {
                world.refused(patch, 409, "BLOB_UPLOAD_INVALID");
                0
            }
        }
    }));
    let taken: usize = patches.await.into_iter().sum();
    assert!(taken > 0);
    let content = chunk.repeat(taken);
    let status = http.get(upload).await.expect(204);
    assert_eq!(
        status.header("range"),
        Some(&*format!("0-{}", content.len() - 1))
    );

    let wrong = sha256(b"other");
    let finishes = join_all((0..16).map(|_| http.finish(upload, &wrong, b""))).await;
    let mut refused = finishes
        .iter()
        .map(|answer| answer.status)
        .collect::<Vec<_>>();
    refused.sort_unstable();
    refused.dedup();
    assert!(
        refused
            .iter()
            .all(|status| [400, 404, 409].contains(status)),
        "{refused:?}"
    );
    assert!(refused.contains(&400));
    world.refused(http.get(upload).await, 404, "BLOB_UPLOAD_UNKNOWN");
    world.is_unharmed().await;
}

/// Returns a manifest with one field changed.
fn with(world: &World, field: &str, value: Value) -> String {
    let mut manifest = manifest(&world.image.layer);
    manifest[field] = value;
    manifest.to_string()
}

#[tokio::test]
async fn invalid_manifests_are_refused() {
    let world = World::start().await;
    let layer = |field: &str, value: Value| {
        let mut layer = manifest(&world.image.layer)["layers"][0].clone();
        layer[field] = value;
        with(&world, "layers", json!([layer]))
    };
    let config = descriptor(OCI_CONFIG, CONFIG);
    let text = String::from_utf8(world.image.manifest.clone()).unwrap();
    let twice = text.replacen('{', "{\"schemaVersion\":2,", 1);
    for bad in [
        String::new(),
        " ".to_owned(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "2".to_owned(),
        "\"text\"".to_owned(),
        "{}".to_owned(),
        "\0".to_owned(),
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        text[..text.len() - 1].to_owned(),
        format!("{text}{text}"),
        twice,
        // Other readers need the names of the fields, so an array of the values is no manifest.
        json!([2, OCI_MANIFEST, null, config, [], null, null, null]).to_string(),
        with(
            &world,
            "config",
            json!([OCI_CONFIG, sha256(CONFIG), CONFIG.len(), null]),
        ),
        with(&world, "schemaVersion", json!(1)),
        with(&world, "schemaVersion", json!("2")),
        with(&world, "schemaVersion", json!(2.5)),
        with(&world, "schemaVersion", json!(null)),
        with(&world, "mediaType", json!("text/plain")),
        with(&world, "mediaType", json!(7)),
        with(&world, "mediaType", json!(OCI_INDEX)),
        with(&world, "manifests", json!([])),
        with(&world, "config", json!(null)),
        with(&world, "config", json!("x")),
        with(&world, "layers", json!({})),
        with(&world, "layers", json!("x")),
        with(&world, "layers", json!([null])),
        with(&world, "layers", json!([{}])),
        with(&world, "annotations", json!({ "a": 1 })),
        with(&world, "annotations", json!([])),
        with(&world, "subject", json!({ "digest": "../../x", "size": 1 })),
        with(&world, "subject", json!("x")),
        with(&world, "artifactType", json!({})),
        layer("digest", json!("sha256:abc")),
        layer("digest", json!("../../../etc/passwd")),
        layer("digest", json!(null)),
        layer("size", json!(-1)),
        layer("size", json!(1.5)),
        layer("size", json!("5000")),
        layer("size", json!(1e30)),
        layer("urls", json!("x")),
    ] {
        for reference in ["latest", &sha256(bad.as_bytes())] {
            let put = world.http().put_manifest("a/b", reference, &bad).await;
            let start: String = bad.chars().take(200).collect();
            assert_eq!(put.status, 400, "{start}: {put:?}");
            world.refused(put, 400, "MANIFEST_INVALID");
        }
    }
    let put = world
        .http()
        .put_manifest("a/b", "latest", [0xff, 0xfe])
        .await;
    world.refused(put, 400, "MANIFEST_INVALID");
    world.is_unharmed().await;
}

#[tokio::test]
async fn manifests_with_wrong_sizes_types_or_blobs_are_refused() {
    let world = World::start().await;
    let http = world.http();
    let layer = manifest(&world.image.layer)["layers"][0].clone();
    for size in [0_u64, 4_999, 5_001, u64::MAX] {
        let mut other = layer.clone();
        other["size"] = size.into();
        // The same holds if the manifest has the correct layer too.
        for layers in [json!([other]), json!([layer, other])] {
            let bad = with(&world, "layers", layers);
            let put = http.put_manifest("a/b", "latest", bad).await;
            world.refused(put, 400, "SIZE_INVALID");
        }
    }
    for media_type in [OCI_INDEX, "text/plain", "x", "", ";"] {
        let request = http.ask("PUT", "/v2/a/b/manifests/latest");
        let request = request.header("content-type", media_type);
        let put = answer(request.body(world.image.manifest.clone())).await;
        world.refused(put, 400, "MANIFEST_INVALID");
    }
    let unknown = with(&world, "layers", json!([descriptor("a/b", b"unknown")]));
    let put = http.put_manifest("a/b", "latest", unknown).await;
    world.refused(put, 404, "MANIFEST_BLOB_UNKNOWN");
    world.is_unharmed().await;
}

#[tokio::test]
async fn too_large_manifests_are_refused() {
    let world = World::start().await;
    let http = world.http();
    for length in [(4 << 20) + 1, 32 << 20] {
        let path = "/v2/a/b/manifests/latest";
        for headers in [
            format!("Content-Length: {length}\r\n"),
            "Transfer-Encoding: chunked\r\n".to_owned(),
        ] {
            let mut request = head("PUT", path, &headers).into_bytes();
            if headers.starts_with('T') {
                request.extend(format!("{length:x}\r\n").bytes());
            }
            request.resize(request.len() + length, b' ');
            let refused = http.raw(request).await.unwrap();
            world.refused(refused, 413, "SIZE_INVALID");
        }
    }
    // A manifest of the greatest allowed length.
    let mut longest = world.image.manifest.clone();
    longest.resize(4 << 20, b' ');
    let digest = sha256(&longest);
    http.put_manifest("a/b", &digest, &longest)
        .await
        .expect(201);
    let back = http.get(&format!("/v2/a/b/manifests/{digest}")).await;
    assert!(back.expect(200).body == longest);
}

/// The HTTP library refuses these messages, without a body.
#[tokio::test]
async fn invalid_http_is_refused() {
    let world = World::start().await;
    let manifest = "/v2/a/b/manifests/latest";
    let many: String = (0..200).map(|i| format!("X-{i}: y\r\n")).collect();
    let huge = format!("X: {}\r\n", "y".repeat(1 << 20));
    let long = format!("/v2/{}/tags/list", "a".repeat(70_000));
    for (request, status) in [
        (head("GET", manifest, &many), 431),
        (head("GET", manifest, &huge), 431),
        (head("GET", &long, ""), 414),
        ("\0\0\0\0\r\n\r\n".to_owned(), 400),
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET /v2/\r\n\r\n".to_owned(), 400),
        ("GET /v2/ HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET /v2/ x HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("G\0T /v2/ HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /v2/\0 HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /v2/ HTTP/1.1\r\nHost x\r\n\r\n".to_owned(), 400),
        ("GET /v2/ HTTP/1.1\r\n: x\r\n\r\n".to_owned(), 400),
        ("GET /v2/ HTTP/1.1\r\nX: a\0b\r\n\r\n".to_owned(), 400),
        ("GET v2/ HTTP/1.1\r\n\r\n".to_owned(), 400),
        (head("PUT", manifest, "Content-Length: -1\r\n"), 400),
        (head("PUT", manifest, "Content-Length: x\r\n"), 400),
        (
            head("PUT", manifest, "Content-Length: 99999999999999999999\r\n"),
            400,
        ),
        (
            head(
                "PUT",
                manifest,
                "Content-Length: 1\r\nContent-Length: 2\r\n",
            ),
            400,
        ),
        (head("PUT", manifest, "Transfer-Encoding: x\r\n"), 400),
        (
            head("PUT", manifest, "Transfer-Encoding: chunked, x\r\n"),
            400,
        ),
    ] {
        let start: String = request.chars().take(80).collect();
        let refused = world.http().raw(&request).await;
        let refused = refused.unwrap_or_else(|| panic!("no answer to {start:?}"));
        assert_eq!(refused.status, status, "{start:?}: {refused:?}");
        assert_eq!(refused.body, b"");
        world.keeps_secrets(&refused);
    }
    world.is_unharmed().await;
}

#[tokio::test]
async fn bytes_that_are_not_text_are_refused_or_ignored() {
    let world = World::start().await;
    let raw = |target: &[u8], headers: &[u8]| {
        [
            b"GET ",
            target,
            b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
            headers,
            b"\r\n",
        ]
        .concat()
    };
    for target in [
        &b"/v2/\xff/tags/list"[..],
        b"/v2/a/b/manifests/\xff",
        b"/v2/a/b/blobs/\xc3\x28",
    ] {
        let refused = world.http().raw(raw(target, b"")).await.unwrap();
        assert_eq!(refused.status / 100, 4, "{target:?}: {refused:?}");
        world.keeps_secrets(&refused);
    }
    // A header that is not valid text is ignored.
    for headers in [
        &b"Range: \xff\r\n"[..],
        b"If-None-Match: \xff\r\n",
        b"Accept: \xff\r\n",
        b"X: \xff\r\n",
    ] {
        let target = format!("/v2/a/b/blobs/{}", world.image.layer_digest());
        let whole = world.http().raw(raw(target.as_bytes(), headers)).await;
        assert!(whole.unwrap().expect(200).body == world.image.layer);
    }
    world.is_unharmed().await;
}

#[tokio::test]
async fn truncated_requests_are_refused() {
    let world = World::start().await;
    let target = format!("/v2/a/b/blobs/uploads/?digest={}", sha256(TEN));
    let whole = head("POST", &target, "Content-Length: 11\r\n") + "0123456789";
    for length in 0..whole.len() {
        if let Some(refused) = world.http().cut_off(&whole[..length]).await {
            assert_eq!(refused.status, 400, "{length}");
            world.keeps_secrets(&refused);
        }
    }
    world.is_unharmed().await;
}
