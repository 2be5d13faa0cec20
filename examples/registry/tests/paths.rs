//! Tests that each path that a request uses is below the root of the storage. The types of names,
//! tags and digests allow no other path.
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use registry::paths::Paths;
use registry::route::{Reference, Route};
use std::collections::BTreeSet;
use std::path::Component;

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
