//! A layout in which every object is a blob, so that the cache sees every path.

use layercache::layout::{Layout, Meaning};
use layercache::{Digest, Link};
use object_store::path::Path;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Mutex;

/// Names each path by the path's own hash. Contents may change, so a cached answer that is not
/// removed in time shows in the test.
#[derive(Debug, Default)]
pub struct EveryPath {
    paths: Mutex<HashMap<Digest, Path>>,
}

impl Layout for EveryPath {
    fn meaning(&self, location: &Path) -> Option<Meaning> {
        let digest = Digest::Sha256(Sha256::digest(location.as_ref()).into());
        let mut paths = self.paths.lock().unwrap();
        paths.entry(digest).or_insert_with(|| location.clone());
        Some(Meaning::Blob(digest))
    }

    fn blob_path(&self, digest: &Digest) -> Option<Path> {
        let paths = self.paths.lock().unwrap();
        // If no path is known for a digest, any path will do.
        Some(paths.get(digest).cloned().unwrap_or_default())
    }

    fn link_path(&self, _link: &Link) -> Option<Path> {
        None
    }
}
