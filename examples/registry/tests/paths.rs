//! Tests that each path that a request uses is below the root of the storage. The types of names,
//! tags and digests allow no other path.
use test_support as support;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use registry::paths::Paths;
use registry::route::{Reference, Route};
use std::collections::BTreeSet;
use std::fs;
use std::path::Component;
use support::guarded::head;
use support::http::{Http, Image, over};
use support::image::sha256;

/// Returns all paths that a request to this route may read, write or delete.
fn reached(route: &Route) -> Vec<Path> {
    let paths = Paths::default();
    match route {
        Route::Blob(name, digest) | Route::Manifest(name, Reference::Digest(digest)) => {
            vec![paths.repository(name), paths.blob(digest)]
        }
        Route::Uploads(name) => vec![paths.repository(name)],
        Route::Upload(name, id) => vec![paths.upload(name, *id)],
        Route::Manifest(name, Reference::Tag(tag)) => vec![
            paths.tag(name, tag),
            paths.tag_current(name, tag),
            paths.tag_index(name, tag, &layercache::Digest::Sha256([7; 32])),
        ],
        Route::Tags(name) => vec![paths.tags(name)],
        Route::Referrers(name, digest) => {
            vec![
                paths.referrers(name, digest),
                paths.referrer(name, digest, digest),
            ]
        }
    }
}

/// Checks that a path is below the root, in an object store and in a file system.
fn is_below_the_root(path: &Path) -> Result<(), TestCaseError> {
    let text = path.as_ref();
    prop_assert!(text.starts_with("docker/registry/v2/"), "{text}");
    prop_assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'%'),
        "{text}"
    );
    prop_assert!(
        text.split('/').all(|part| !matches!(part, "" | "." | "..")),
        "{text}"
    );
    // The path is used as it was parsed. No part of it was escaped.
    let parsed = Path::parse(text).ok();
    prop_assert_eq!(parsed.as_ref(), Some(path));
    let root = std::env::temp_dir();
    let store = LocalFileSystem::new_with_prefix(&root).unwrap();
    let file = store.path_to_filesystem(path).unwrap();
    let below = file.strip_prefix(root.canonicalize().unwrap());
    let is_below = below.is_ok_and(|below| {
        below
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
    });
    prop_assert!(is_below, "{}", file.display());
    Ok(())
}

/// Parts of valid names, and parts of attacks.
const PIECES: &[&str] = &[
    "a",
    "b/c",
    "library/alpine",
    "..",
    ".",
    "/",
    "//",
    "/..",
    "../",
    "\\",
    "..\\",
    "\0",
    "%2e%2e",
    "%2f",
    "%00",
    "%5c",
    "~",
    "C:",
    "blobs",
    "uploads",
    "manifests",
    "referrers",
    "tags",
    "list",
    "/blobs/",
    "/manifests/",
    "/blobs/uploads/",
    "/tags/list",
    "/referrers/",
    "latest",
    "1.0",
    "sha256:",
    "sha512:",
    "_layers",
    "_manifests",
    "_uploads",
    "data",
    "link",
    "\n",
    " ",
    "ä",
    "．．",
    "00000000-0000-0000-0000-000000000000",
    "{0}",
];

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(str::to_owned),
        1 => "[0-9a-f]{64}".prop_map(|hex| format!("sha256:{hex}")),
        1 => ".{0,4}",
    ]
}

fn target() -> impl Strategy<Value = String> {
    proptest::collection::vec(piece(), 0..9).prop_map(|pieces| pieces.concat())
}

/// Generates targets that are valid, or invalid in one part.
fn almost() -> impl Strategy<Value = String> {
    let name = prop_oneof![3 => Just("a/b".to_owned()), 2 => target()];
    let digest = || "[0-9a-f]{64}".prop_map(|hex| format!("sha256:{hex}"));
    let id = Just("0f0e0d0c-0000-4000-8000-0123456789ab".to_owned());
    let last = prop_oneof![2 => digest(), 1 => id, 1 => Just("latest".to_owned()), 2 => target()];
    let word =
        proptest::sample::select(&["blobs", "blobs/uploads", "manifests", "referrers", "tags"][..]);
    (name, word, last).prop_map(|(name, word, last)| format!("{name}/{word}/{last}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_target_leaves_the_root(target in prop_oneof![target(), almost()]) {
        if let Ok(route) = target.parse::<Route>() {
            for path in reached(&route) {
                is_below_the_root(&path)?;
            }
        }
    }
}

/// The property above says something only about accepted targets, so enough targets must be
/// accepted.
#[test]
fn many_targets_are_accepted() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut kinds = BTreeSet::new();
    let mut accepted = 0;
    for _ in 0..5_000 {
        let target = almost().new_tree(&mut runner).unwrap().current();
        if let Ok(route) = target.parse::<Route>() {
            accepted += 1;
            kinds.insert(format!("{route:?}").split('(').next().unwrap().to_owned());
        }
    }
    assert!(accepted > 500, "only {accepted} targets were accepted");
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

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
