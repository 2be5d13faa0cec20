//! A store in a folder.
//!
//! `LocalFileSystem` removes a folder when it removes the last file in it. If a write creates the
//! same folder at that moment, the write fails with "Unable to create dir". The next try can create
//! the folder, so [`Folder`] repeats the write.

use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;

/// How often a write is tried.
const TRIES: usize = 100;

/// A `LocalFileSystem` that repeats a write if its folder was removed meanwhile.
#[derive(Debug)]
pub struct Folder(LocalFileSystem);

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    /// Returns an error if the folder does not exist.
    pub fn new(path: &std::path::Path) -> Result<Self> {
        let store = LocalFileSystem::new_with_prefix(path)?;
        Ok(Self(store.with_automatic_cleanup(true)))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns whether the write failed because its folder was removed meanwhile.
fn lost_its_folder(error: &Error) -> bool {
    let Error::Generic { source, .. } = error else {
        return false;
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            // std creates a folder, finds it there, and then finds it gone: `AlreadyExists`.
            return matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists);
        }
        cause = error.source();
    }
    false
}

/// Repeats a write until it does not lose its folder.
async fn retry<T, F: Future<Output = Result<T>>>(mut write: impl FnMut() -> F) -> Result<T> {
    for _ in 1..TRIES {
        match write().await {
            Err(error) if lost_its_folder(&error) => tokio::task::yield_now().await,
            done => return done,
        }
    }
    write().await
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Folder {
    async fn put_opts(
        &self,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        retry(|| self.0.put_opts(to, payload.clone(), options.clone())).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        retry(|| self.0.put_multipart_opts(to, options.clone())).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        retry(|| self.0.copy_opts(from, to, options.clone())).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        retry(|| self.0.rename_opts(from, to, options.clone())).await
    }

    async fn get_opts(&self, of: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(of, options).await
    }

    async fn get_ranges(&self, of: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.0.get_ranges(of, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_removed_in_any_moment_of_its_creation_is_lost() {
        let lost = |kind| {
            let source = Box::new(std::io::Error::from(kind));
            lost_its_folder(&Error::Generic {
                store: "LocalFileSystem",
                source,
            })
        };
        assert!(lost(ErrorKind::NotFound));
        assert!(lost(ErrorKind::AlreadyExists));
        assert!(!lost(ErrorKind::PermissionDenied));
    }
}
