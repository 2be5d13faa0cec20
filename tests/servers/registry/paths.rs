//! Tests that no request reaches a file beside the root of the storage.

use std::collections::BTreeSet;
use std::fs;
use test_support::guarded::head;
use test_support::http::{Http, Image, over};
use test_support::image::sha256;

/// No request reads or writes a file beside the root, in any spelling of its path.
#[tokio::test]
async fn no_request_reaches_files_beside_the_root() {
    const SECRET: &str = "a file beside the root";
    let folder = tempfile::tempdir().unwrap();
    let (root, beside) = (
        folder.path().join("root"),
        folder.path().join("root-beside"),
    );
    // Files like a blob, a manifest or a tag, in another place.
    let digest = sha256(SECRET.as_bytes());
    let hex = digest.strip_prefix("sha256:").unwrap();
    for place in [
        format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]),
        format!("docker/registry/v2/repositories/a/_layers/sha256/{hex}/link"),
        "docker/registry/v2/repositories/a/_manifests/tags/x/current/link".to_owned(),
        "secret".to_owned(),
    ] {
        let file = beside.join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, SECRET).unwrap();
    }
    let registry = over(&root, &[]).await;
    let (http, image) = (Http::new(&registry), Image::new(1));
    http.push("a/b", "latest", &image).await;
    let before = files(folder.path());

    let out = "../../../../../../root-beside/secret";
    let mut ways = vec![
        out.to_owned(),
        format!("/{}", beside.join("secret").display()),
    ];
    ways.push(out.replace("..", "%2e%2e"));
    ways.push(out.replace('/', "%2f"));
    ways.push(out.replace("..", "%2E%2E").replace('/', "%2F"));
    ways.push(out.replace('/', "\\"));
    ways.push(out.replace('/', "%5c"));
    ways.push(out.replace("..", "%252e%252e"));
    ways.push(out.replace('/', "//"));
    ways.push(format!("{out}%00"));
    ways.push(format!("x%00/{out}"));
    ways.push(out.replace("..", "..;"));
    ways.push(out.replace("..", "%c0%ae%c0%ae"));
    for way in &ways {
        for target in [
            format!("/{way}"),
            format!("/v2/{way}"),
            format!("/v2/{way}/blobs/{digest}"),
            format!("/v2/{way}/tags/list"),
            format!("/v2/{way}/blobs/uploads/"),
            format!("/v2/a/b/blobs/{way}"),
            format!("/v2/a/b/blobs/uploads/{way}"),
            format!("/v2/a/b/blobs/uploads/{way}?digest={digest}"),
            format!("/v2/a/b/manifests/{way}"),
            format!("/v2/a/b/referrers/{way}"),
            format!("/v2/a/b/blobs/uploads/?digest={way}"),
            format!("/v2/a/b/blobs/uploads/?mount={way}&from=a/b"),
            format!("/v2/a/b/blobs/uploads/?mount={digest}&from={way}"),
        ] {
            for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"] {
                let request = head(method, &target, "Content-Length: 2\r\n") + "{}";
                let answer = http.raw(request).await;
                let answer = answer.unwrap_or_else(|| panic!("no answer to {method} {target}"));
                assert!(
                    (400..500).contains(&answer.status),
                    "{method} {target}: {answer:?}"
                );
                answer.hides(&[SECRET]);
            }
        }
    }
    assert_eq!(files(folder.path()), before);
    http.pulls("a/b", "latest", &image).await;
}

/// Returns all files below a folder, with their content.
fn files(folder: &std::path::Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = fs::read(&path).unwrap();
            found.insert((path.display().to_string(), content));
        }
    }
    found
}
