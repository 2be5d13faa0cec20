//! Tests that bad names, tags, digests, paths and methods are refused: nothing is stored, revealed
//! or broken.

use test_support as support;

use support::guarded::{World, head};
use support::http::blob;
use support::image::sha256;

/// Invalid names of repositories, as a client sends them.
const NAMES: &str = "A/b a..b a//b a/ -a a- _a .a a. a___b a.-b \
    a:b a@b a~b a'b a$b a* ~ %7e a\\b a%5cb \
    .. . ../a a/.. a/../b a/./b %2e%2e %2E%2E%2Fa a%2f..%2fb a%2F%2Fb \
    %00 a%00 a%00/b a%0ab a%0d%0aX:%20y a%20b a%3fb a%25b a%2525 %c3%a4 a+b";

const TAGS: &str = "-x .x . .. %2e %2e%2e a%20b a+b %00 a%00 %c3%a4 a%0d%0ab a%5cb a%25 a@b a* ~";

/// Paths that the API does not have.
const NOWHERE: &str = r"
    / /v1/ /etc/passwd //etc/passwd /../etc/passwd /%2e%2e/etc/passwd
    /v2/../../etc/passwd /v2/%2e%2e/%2e%2e/etc/passwd /v2/..%2f..%2fetc%2fpasswd /v2//etc/passwd
    /v2/..\..\etc\passwd /v2/..%5c..%5cetc%5cpasswd /v2/% /v2/%00 /v2/%ff%fe
    /v2/a/b /v2/a/b/blobs/%ff /v2/a/b/manifests/%ff /v2/a/b/_layers/sha256
    /v2/a/b/blobs/../../../../etc/passwd /v2/a/b/manifests/../../../../etc/passwd
    /v2/a/b/manifests/..%2f..%2f..%2fetc%2fpasswd /v2/a/b/manifests/latest%2fcurrent%2flink
    /v2/a/b/blobs/uploads/%2e%2e%2fdata /v2/%2fdocker%2fregistry%2fv2%2frepositories
";

#[tokio::test]
async fn invalid_names_are_refused() {
    let world = World::start().await;
    let digest = world.image.layer_digest();
    let (long, longer) = ("a".repeat(256), "a/".repeat(20_000) + "a");
    for name in NAMES.split(' ').chain([&*long, &*longer]) {
        for place in [
            "tags/list".to_owned(),
            format!("blobs/{digest}"),
            "manifests/latest".to_owned(),
            format!("manifests/{digest}"),
            format!("referrers/{digest}"),
        ] {
            let target = format!("/v2/{name}/{place}");
            let get = world.http().raw(head("GET", &target, "")).await;
            let get = get.unwrap();
            assert_eq!(get.status, 400, "{target}: {get:?}");
            world.refused(get, 400, "NAME_INVALID");
        }
        for (method, place) in [
            ("POST", "blobs/uploads/".to_owned()),
            ("POST", format!("blobs/uploads/?digest={}", sha256(b"{}"))),
            ("PUT", "manifests/latest".to_owned()),
            ("DELETE", "manifests/latest".to_owned()),
            ("DELETE", format!("blobs/{digest}")),
        ] {
            let target = format!("/v2/{name}/{place}");
            world
                .refuses_change(method, &target, 400, "NAME_INVALID")
                .await;
        }
        let target = format!(
            "/v2/a/b/blobs/uploads/?mount={digest}&from={}",
            name.replace('+', "%2b")
        );
        world
            .refuses_change("POST", &target, 400, "NAME_INVALID")
            .await;
    }
    world.is_unharmed().await;
}

#[tokio::test]
async fn invalid_tags_are_refused() {
    let world = World::start().await;
    let long = "x".repeat(129);
    for tag in TAGS.split(' ').chain(["", &*long]) {
        let target = format!("/v2/a/b/manifests/{tag}");
        world.refuses(&target, 400, "MANIFEST_INVALID").await;
        for method in ["PUT", "DELETE"] {
            world
                .refuses_change(method, &target, 400, "MANIFEST_INVALID")
                .await;
        }
    }
    world.is_unharmed().await;
}

#[tokio::test]
async fn invalid_digests_are_refused() {
    let world = World::start().await;
    let hex = "ab".repeat(32);
    let upload = &world.upload;
    for digest in [
        "sha256:".to_owned(),
        "sha256:abc".to_owned(),
        ":".to_owned(),
        format!("md5:{hex}"),
        format!("SHA256:{hex}"),
        format!("sha512:{hex}"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}0"),
        format!("sha256:{}g", &hex[1..]),
        format!("sha256:{hex}%00"),
        format!("sha256:{hex}%0a"),
        format!("sha256::{hex}"),
        format!("%20sha256:{hex}"),
        "sha256:..".to_owned(),
        "sha256:%c3%a4".to_owned(),
        "sha256:".to_owned() + &"a".repeat(30_000),
    ] {
        for place in ["blobs", "manifests", "referrers"] {
            let target = format!("/v2/a/b/{place}/{digest}");
            let get = world.http().raw(head("GET", &target, "")).await.unwrap();
            assert_eq!(get.status, 400, "{target}: {get:?}");
            world.refused(get, 400, "DIGEST_INVALID");
        }
        for (method, target) in [
            ("POST", format!("/v2/a/b/blobs/uploads/?digest={digest}")),
            (
                "POST",
                format!("/v2/a/b/blobs/uploads/?mount={digest}&from=a/b"),
            ),
            ("PUT", format!("{upload}?digest={digest}")),
            ("PUT", format!("/v2/a/b/manifests/{digest}")),
            ("DELETE", format!("/v2/a/b/blobs/{digest}")),
            ("DELETE", format!("/v2/a/b/manifests/{digest}")),
        ] {
            world
                .refuses_change(method, &target, 400, "DIGEST_INVALID")
                .await;
        }
    }
    for target in [
        "/v2/a/b/blobs/..",
        "/v2/a/b/blobs/%2e%2e",
        "/v2/a/b/blobs/latest",
    ] {
        world.refuses(target, 400, "DIGEST_INVALID").await;
    }
    for target in [upload.clone(), format!("{upload}?digest=")] {
        world
            .refuses_change("PUT", &target, 400, "DIGEST_INVALID")
            .await;
    }
    world.is_unharmed().await;
}

#[tokio::test]
async fn paths_outside_the_api_are_refused() {
    let world = World::start().await;
    for target in NOWHERE.split_whitespace() {
        world.refuses(target, 404, "NAME_UNKNOWN").await;
    }
    for (target, code) in [
        ("/v2/../../etc/passwd/tags/list", "NAME_INVALID"),
        ("/v2/a/../../../etc/manifests/passwd", "NAME_INVALID"),
        ("/v2/a/b/manifests/%zz", "MANIFEST_INVALID"),
    ] {
        let get = world.http().raw(head("GET", target, "")).await.unwrap();
        world.refused(get, 400, code);
    }
    // An encoded slash is a slash, so this is another spelling of the same path.
    let spelling = head("GET", "/v2/a%2fb/manifests/latest", "");
    let same = world.http().raw(spelling).await.unwrap().expect(200);
    assert_eq!(same.body, world.image.manifest);
    world.is_unharmed().await;
}

#[tokio::test]
async fn unknown_uploads_are_refused() {
    let world = World::start().await;
    for id in "1 .. %2e%2e %00 %c3%a4 00000000-0000-0000-0000-000000000000".split(' ') {
        let target = format!("/v2/a/b/blobs/uploads/{id}");
        let with_digest = format!("{target}?digest={}", sha256(b"{}"));
        for (method, target) in [
            ("GET", &target),
            ("DELETE", &target),
            ("PATCH", &target),
            ("PUT", &with_digest),
        ] {
            let unknown = "BLOB_UPLOAD_UNKNOWN";
            world.refuses_change(method, target, 404, unknown).await;
        }
    }
    world.is_unharmed().await;
}

#[tokio::test]
async fn invalid_queries_are_refused() {
    let world = World::start().await;
    for query in [
        "n=x",
        "n=-1",
        "n=1.5",
        "n=",
        "n=99999999999999999999999",
        "n=%00",
        "n=1&n=2",
        "last=a&last=b",
    ] {
        let get = world
            .http()
            .get(&format!("/v2/a/b/tags/list?{query}"))
            .await;
        world.refused(get, 400, "UNSUPPORTED");
    }
    // A `last` that is not a tag is no error, and the registry makes no path of it.
    for last in ["..", "%2e%2e%2f", "%00", "%ff", "%c3%a4", "a%20b"] {
        let get = world
            .http()
            .get(&format!("/v2/a/b/tags/list?last={last}"))
            .await;
        world.keeps_secrets(&get.expect(200));
    }
    let subject = world.image.digest();
    for last in ["x", "..", "%00"] {
        let path = format!("/v2/a/b/referrers/{subject}?last={last}");
        world.refused(world.http().get(&path).await, 400, "DIGEST_INVALID");
    }
    let twice = format!("/v2/a/b/blobs/uploads/?digest={subject}&digest={subject}");
    world
        .refuses_change("POST", &twice, 400, "UNSUPPORTED")
        .await;
    world.is_unharmed().await;
}

#[tokio::test]
async fn unsupported_methods_are_refused() {
    let world = World::start().await;
    let digest = world.image.digest();
    let places = [
        ("/v2/".to_owned(), "GET, HEAD"),
        (blob("a/b", &digest), "GET, HEAD, DELETE"),
        ("/v2/a/b/blobs/uploads/".to_owned(), "POST"),
        (world.upload.clone(), "GET, PATCH, PUT, DELETE"),
        (
            "/v2/a/b/manifests/latest".to_owned(),
            "GET, HEAD, PUT, DELETE",
        ),
        (
            format!("/v2/a/b/manifests/{digest}"),
            "GET, HEAD, PUT, DELETE",
        ),
        ("/v2/a/b/tags/list".to_owned(), "GET"),
        (format!("/v2/a/b/referrers/{digest}"), "GET"),
    ];
    for (path, allowed) in &places {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get",
        ] {
            if allowed.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let refused = world.http().raw(head(method, path, "")).await.unwrap();
            assert_eq!(refused.header("allow"), Some(*allowed), "{method} {path}");
            if method == "HEAD" {
                assert_eq!((refused.status, &*refused.body), (405, &b""[..]), "{path}");
            } else {
                world.refused(refused, 405, "UNSUPPORTED");
            }
        }
    }
    world.is_unharmed().await;
}
